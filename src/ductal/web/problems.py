"""Errors as `application/problem+json` (RFC 9457), each with a stable code, and their place in the OpenAPI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from ductal.errors import DuctalError

MEDIA_TYPE = "application/problem+json"

# Code: HTTP status and title. Clients may rely on the codes.
CODES: dict[str, tuple[int, str]] = {
    "bad_request": (400, "The request cannot be read"),
    "unauthorised": (401, "A token is needed"),
    "foreign_origin": (403, "The request comes from another site"),
    "not_found": (404, "There is no such thing"),
    "method_not_allowed": (405, "This address does not take this method"),
    "not_acceptable": (406, "The answer is not to be had in this form"),
    "too_slow": (408, "The request came too slowly"),
    "not_finished": (409, "The job has no result yet"),
    "too_large": (413, "The request is too large"),
    "unsupported_format": (415, "This is no image of a known format"),
    "unknown_host": (421, "The server does not have this name"),
    "invalid": (422, "A field is missing or has a wrong value"),
    "not_a_patch": (422, "The image is not a patch"),
    "damaged": (422, "The image is damaged"),
    "no_explanation": (422, "This model cannot be explained"),
    "spacing_needed": (422, "The size of a pixel is not known"),
    "too_many_pixels": (422, "The image has too many pixels"),
    "not_usable": (422, "The image cannot be analysed"),
    "busy": (429, "Too much is waiting"),
    "timeout": (503, "It took too long"),
    "not_ready": (503, "The model is not loaded yet"),
    "no_space": (503, "The server's disk is full"),
    "overloaded": (503, "Too many requests at once"),
    "internal": (500, "Something went wrong in the server"),
}
Responses = dict[int | str, dict[str, Any]]  # of a route, for its OpenAPI
_ANYWHERE = (
    "bad_request", "unauthorised", "foreign_origin", "too_slow", "too_large", "unknown_host", "overloaded",
)  # fmt: skip
_OF_STATUS = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large", 422: "invalid"}


class Problem(BaseModel):
    """What went wrong, why, and what to do (RFC 9457); `code` is stable."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str


class ApiError(HTTPException):
    """An error that a client gets as a `Problem`.

    Args:
        code: one of `CODES`.
        detail: what happened, why, and what to do.
        headers: of the answer.
    """

    def __init__(self, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(CODES[code][0], detail, headers)
        self.code = code

    @property
    def problem(self) -> Problem:
        """What the client reads."""
        return Problem(title=CODES[self.code][1], status=self.status_code, detail=self.detail, code=self.code)

    def response(self) -> Response:
        """The answer, with its status and headers."""
        return JSONResponse(
            self.problem.model_dump(), self.status_code, headers=self.headers, media_type=MEDIA_TYPE
        )


def documented(*codes: str) -> Responses:
    """The `responses` of a route for these codes and those that any route may give."""
    found: Responses = {}
    for code in (*_ANYWHERE, *codes):
        status, title = CODES[code]
        known = found.get(status)
        if known is None:
            schema = {"$ref": f"#/components/schemas/{Problem.__name__}"}
            found[status] = {"description": f"`{code}`: {title}", "content": {MEDIA_TYPE: {"schema": schema}}}
        elif f"`{code}`" not in known["description"]:
            known["description"] += f"; `{code}`: {title}"
    return found


def add_handlers(app: FastAPI) -> None:
    """Answer every error with a problem, those of the framework included."""
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(DuctalError, _refused)
    app.add_exception_handler(Exception, _unforeseen)


async def _http_error(_: Request, error: Exception) -> Response:
    if isinstance(error, ApiError):
        return error.response()
    assert isinstance(error, HTTPException)
    code = _OF_STATUS.get(error.status_code, "bad_request")
    detail = str(error.detail)
    if code == "not_found":
        detail = "There is nothing at this address. The addresses are listed in /api/v1/openapi.json."
    elif code == "method_not_allowed":
        detail = "Use one of the methods in the header Allow."
    return ApiError(code, detail, error.headers).response()


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    parts = []
    for one in error.errors()[:5]:
        where = ".".join(str(part) for part in one["loc"][1:]) or str(one["loc"][0])
        parts.append(f"{where[:60]}: {one['msg'][:200]}")
    return ApiError("invalid", f"{'; '.join(parts)}. The fields are described in /api/v1/openapi.json.").response()


async def _refused(_: Request, error: Exception) -> Response:
    return ApiError("not_usable", str(error)).response()


async def _unforeseen(_: Request, error: Exception) -> Response:  # noqa: ARG001 - the framework logs it
    return ApiError("internal", "The error is in the server's log. Other requests are not affected.").response()

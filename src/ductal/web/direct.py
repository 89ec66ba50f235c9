"""Routes without FastAPI's search for an endpoint's arguments, which takes longer than reading a patch."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.responses import Response

from ductal.web.problems import ApiError

_FLAG = TypeAdapter(bool)


class DirectRoute(APIRoute):
    """A route whose endpoint is given the request and gives the response.

    What it takes and gives is not read from its signature, so that the route must say it: `openapi_extra`,
    `response_model`.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See FastAPI."""
        return self.endpoint


def as_json(answer: BaseModel) -> Response:
    """The response with an answer."""
    return Response(answer.model_dump_json(), media_type="application/json")


def flag(request: Request, name: str) -> bool:
    """A true or false of the query, false by default. Raises ApiError "invalid"."""
    if not request.scope["query_string"]:
        return False
    given = request.query_params.get(name)
    try:
        return given is not None and _FLAG.validate_python(given)
    except ValidationError as error:
        raise ApiError("invalid", f"{name}: {error.errors()[0]['msg']}. Send true or false.") from error


def file_body(field: str, text: str, *, many: bool = False) -> dict[str, Any]:
    """The `openapi_extra` of a route that takes files as a form, or a single one also as the body itself."""
    one = {"type": "string", "format": "binary", "description": text}
    what = {"type": "array", "minItems": 1, "items": one} if many else one
    form = {"schema": {"type": "object", "required": [field], "properties": {field: what}}}
    content: dict[str, Any] = {"multipart/form-data": form}
    if not many:
        content |= {kind: {"schema": one} for kind in ("image/png", "image/jpeg", "image/tiff")}
    return {"requestBody": {"required": True, "content": content}}


def flag_parameter(name: str, text: str) -> dict[str, Any]:
    """The `openapi_extra` for `flag`."""
    schema = {"type": "boolean", "default": False}
    return {"parameters": [{"name": name, "in": "query", "required": False, "schema": schema, "description": text}]}

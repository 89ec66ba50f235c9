"""The files in a request: those of a form, or its body. All of it is held in memory, so only for small bodies.

Starlette's `request.form` spools files to the disk, takes a form that was cut short, and parses on the event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from anyio import to_thread
from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ductal.web.problems import ApiError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

OTHER_FIELDS = 4  # that a form may have besides its files, and that are ignored
AT_ONCE_BYTES = 64 << 10  # a larger form is parsed in a thread, so that others need not wait for it
FORM, BYTES = b"multipart/form-data", b"application/octet-stream"
_NEEDED = 'Send a form (multipart/form-data) with the field "{field}"{otherwise}.'


class File(NamedTuple):
    """An uploaded file; its name is the client's, "" where there is none."""

    name: str
    content: bytes


def file_body(field: str, text: str, *, many: bool = False) -> dict[str, Any]:
    """The `openapi_extra` of a route that takes files as a form, or a single one also as the body itself."""
    one = {"type": "string", "format": "binary", "description": text}
    what = {"type": "array", "minItems": 1, "items": one} if many else one
    form = {"schema": {"type": "object", "required": [field], "properties": {field: what}}}
    content: dict[str, Any] = {"multipart/form-data": form}
    if not many:
        content |= {kind: {"schema": one} for kind in ("image/png", "image/jpeg", "image/tiff")}
    return {"requestBody": {"required": True, "content": content}}


async def read_files(request: Request, field: str, most: int) -> list[File]:
    """The files of a form's field, at least one.

    Raises:
        ApiError: "invalid" where there is no form, or no file in the field; "bad_request" where the form is damaged
            or holds more than `most` files.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != FORM or not boundary:
        raise ApiError("invalid", f"{field}: {_NEEDED.format(field=field, otherwise='')}")
    body = await request.body()
    if len(body) > AT_ONCE_BYTES:
        return await to_thread.run_sync(parse_form, body, boundary, field, most)
    return parse_form(body, boundary, field, most)


async def read_file(request: Request, field: str) -> File:
    """The only file of a form, or a body that is an image itself. Raises ApiError as `read_files` does."""
    kind, _ = parse_options_header(request.headers.get("content-type"))
    if kind.startswith(b"image/") or kind == BYTES:
        return File("", await request.body())
    if kind != FORM:
        needed = _NEEDED.format(field=field, otherwise=", or the image itself with its type, such as image/png")
        raise ApiError("invalid", f"{field}: {needed}")
    return (await read_files(request, field, 1))[0]


def parse_form(body: bytes, boundary: bytes, field: str, most: int) -> list[File]:
    """The files in one field of a multipart form (RFC 7578); raises ApiError as `read_files` does."""
    reader = _Reader(field, most)
    try:
        parser = MultipartParser(boundary, reader.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise ApiError("bad_request", f"The form is damaged or cut short ({error}). Send it again.") from error
    if not reader.ended:
        raise ApiError("bad_request", "The form ends before its last boundary. Send it again.")
    if not reader.files:
        raise ApiError("invalid", f"{field}: the form has no file in this field.")
    return reader.files


class _Reader:
    """What `MultipartParser` calls."""

    def __init__(self, field: str, most: int) -> None:
        self.files: list[File] = []
        self.ended = False
        self._field, self._most = field.encode(), most
        self._seen = self._others = 0
        self._name, self._value = b"", b""
        self._disposition: bytes | None = None
        self._content: list[bytes] = []

    def callbacks(self) -> MultipartCallbacks:
        """All of them."""
        return {
            "on_part_begin": self.on_part_begin, "on_header_field": self.on_header_field,
            "on_header_value": self.on_header_value, "on_header_end": self.on_header_end,
            "on_part_data": self.on_part_data, "on_part_end": self.on_part_end, "on_end": self.on_end,
        }  # fmt: skip

    def on_part_begin(self) -> None:
        self._disposition = None
        self._content = []

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name, self._value = b"", b""

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._content.append(data[start:end])

    def on_part_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        is_file = b"filename" in options
        self._seen += is_file
        self._others += not is_file
        if self._seen > self._most or self._others > OTHER_FIELDS:
            raise ApiError("bad_request", f"The form has more than {self._most} files, or other fields. Send fewer.")
        if is_file and options.get(b"name") == self._field:
            self.files.append(File(options[b"filename"].decode("utf-8", "replace"), b"".join(self._content)))

    def on_end(self) -> None:
        self.ended = True

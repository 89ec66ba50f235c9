"""A real HTTP server on this machine that misbehaves on request, and what it is asked for."""

from __future__ import annotations

import io
import random
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ductal.data.fetch import FetchResult, fetch
from ductal.data.manifest import Manifest

NAMES = [
    f"IDC_regular_ps50_idx5/{patient}/{label}/{patient}_idx5_x{x}_y51_class{label}.png"
    for patient in ("8863", "9036", "10254")
    for label in (0, 1)
    for x in (51, 101, 151)
]


def make_zip(names: list[str] = NAMES, seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            content = random.Random(f"{seed} {name.rsplit('/', 1)[-1]}").randbytes(4000)
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


CONTENT = make_zip()
OTHER = make_zip(seed=1)
EXPECTED = Manifest(patients=3, patches=18, positives=9)

Behaviour = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.requests.append(dict(self.headers.items()))
        behaviour = self.server.script.pop(0) if self.server.script else self.server.always
        behaviour(self)

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, status: int, body: bytes, **headers: object) -> None:
        """Headers with underscores for dashes; Content_Length may differ from the body."""
        self.send_response(status)
        for name, value in ({"Content_Length": len(body)} | headers).items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def asked_start(self) -> int | None:
        """The first byte asked for, or None when the whole file is to be sent."""
        server, wanted = self.server, self.headers.get("Range")
        condition = self.headers.get("If-Range")
        if wanted is None or (condition and condition not in (server.etag, server.modified)):
            return None
        return int(wanted.removeprefix("bytes=").removesuffix("-"))


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, str]] = []
        self.script: list[Behaviour] = []
        self.always: Behaviour = normal
        self.content = CONTENT
        self.etag: str | None = '"one"'
        self.modified: str | None = None
        self.released = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/webdata/idc.zip"

    @property
    def ranges(self) -> list[str | None]:
        return [request.get("Range") for request in self.requests]

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that hang up are part of the tests


@contextmanager
def serving() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()


def partial(handler: Handler, send: int | None = None, pad: int = 0, surplus: bytes = b"") -> None:
    """A right answer of which only `send` bytes come; `pad` bytes too many are announced."""
    server, start = handler.server, handler.asked_start()
    marks: dict[str, object] = {"ETag": server.etag, "Last_Modified": server.modified}
    total = len(server.content) + pad
    if start is None:
        body = server.content[:send]
        handler.answer(200, body, **marks, Content_Length=total)
    elif start >= total:
        handler.answer(416, b"", Content_Range=f"bytes */{total}")
    else:
        body = server.content[start:][:send] + surplus
        marks["Content_Range"] = f"bytes {start}-{total - 1}/{total}"
        handler.answer(206, body, **marks, Content_Length=total - start + len(surplus))


def normal(handler: Handler) -> None:
    partial(handler)


def cut(after: int) -> Behaviour:
    return lambda handler: partial(handler, send=after)


def without_ranges(send: int | None = None) -> Behaviour:
    def behave(handler: Handler) -> None:
        content = handler.server.content
        handler.answer(200, content[:send], Content_Length=len(content))

    return behave


def status(code: int) -> Behaviour:
    return lambda handler: handler.answer(code, b"sorry")


def silent(handler: Handler) -> None:
    handler.server.released.wait(10)


def get(server: Server, out: Path, **options: Any) -> FetchResult:
    return fetch(out, server.url, **{"expected": EXPECTED, "backoff": 0.0, "timeout": 5.0} | options)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


PART = ["idc.zip.part", "idc.zip.part.json"]
DONE = ["idc.zip", "idc.zip.manifest.json"]

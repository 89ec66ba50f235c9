"""What uvicorn leaves open below HTTP: clients that connect and never send a request, heads without end, and too many
connections."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ductal.web.problems import MEDIA_TYPE, ApiError

HEAD_SECONDS = 10.0  # for a whole request line with its headers
HEAD_BYTES = 64 << 10  # of it; also of what stands between two pieces of a chunked body, or behind the last


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's own protocol, with limits on the size and time of a request's head and on open connections.

    Args:
        most: connections; further ones are closed at once.
        settings: uvicorn's.
    """

    def __init__(self, *, most: int, **settings: Any) -> None:
        super().__init__(**settings)
        self._most = most
        self._head_timer: asyncio.TimerHandle | None = None
        self._in_body = False
        self._unfinished = 0  # bytes since the parser last came to the end of something

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        super().connection_made(transport)
        if len(self.connections) > self._most:
            transport.abort()
            return
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._unfinished += len(data)
        super().data_received(data)
        if self._unfinished > HEAD_BYTES:
            self.send_400_response(f"Its head is longer than {HEAD_BYTES:,} bytes.")
        if self._unfinished and not self._in_body:
            self._watch_head()
        else:
            self._stop_watching()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        super().connection_lost(exc)
        self._stop_watching()

    def on_headers_complete(self) -> None:
        """See httptools, which turns an exception here into an error of the request."""
        self._in_body, self._unfinished = True, 0
        hosts = sum(name == b"host" for name, _ in self.headers)
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1") or hosts > 1 or (hosts == 0 and version == "1.1"):
            raise ValueError("not HTTP/1.1, or not one Host")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self._unfinished = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """See httptools."""
        self._in_body, self._unfinished = False, 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """A problem, as every other error; behind the answer to an earlier request, the end of the connection."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                self._end_after_answer()
                return
            cycle.disconnected = True  # nobody answers a request whose body broke off
            cycle.message_event.set()
        body = json.dumps(ApiError("bad_request", f"{msg} Send HTTP/1.1.").problem.model_dump()).encode()
        head = f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[400] + head.encode() + body)
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """A request that asks for another protocol is answered in this one; what follows it would be in the other."""
        self._end_after_answer()

    def _end_after_answer(self) -> None:
        self.cycle.keep_alive = False
        self.flow.pause_reading()

    def _watch_head(self) -> None:
        """The clock runs from the first byte of a head to its last, and does not start anew in between."""
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _stop_watching(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

"""What uvicorn leaves open below HTTP: clients that connect and never send a request, and too many of them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from ductal.web.problems import MEDIA_TYPE, ApiError

HEAD_SECONDS = 10.0  # for a whole request line with its headers


class GuardedProtocol(H11Protocol):
    """uvicorn's own protocol, with a time limit on the head of a request and a limit on open connections.

    Args:
        most: connections; further ones are closed at once.
        settings: uvicorn's.
    """

    def __init__(self, *, most: int, **settings: Any) -> None:
        super().__init__(**settings)
        self._most = most
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        super().connection_made(transport)
        if len(self.connections) > self._most:
            transport.abort()
            return
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        super().connection_lost(exc)
        self._stop_watching()

    def send_400_response(self, msg: str) -> None:
        """A problem, as every other error."""
        body = json.dumps(ApiError("bad_request", f"{msg} Send HTTP/1.1.").problem.model_dump()).encode()
        headers = [
            (b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]  # fmt: skip
        for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _watch_head(self) -> None:
        """The clock runs from the first byte of a head to its last, and does not start anew in between."""
        if self.conn.their_state is not h11.IDLE:
            self._stop_watching()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _stop_watching(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

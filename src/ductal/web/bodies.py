"""Bodies are counted and timed as they arrive, before anything parses them. Plain ASGI."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ductal.web.problems import ApiError
from ductal.web.settings import Limits

LEFTOVER_SECONDS = 2.0
_SEND_SECONDS = 60.0


class BodyLimits:
    """Refuses bodies that are too large or come too slowly, whatever their header says about their length.

    Args:
        app: what is guarded.
        limits: of time, and the size for paths that `sizes` does not name.
        sizes: bytes by path.
    """

    def __init__(self, app: ASGIApp, limits: Limits, sizes: Mapping[str, int]) -> None:
        self.app, self._limits, self._sizes = app, limits, sizes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        largest = self._sizes.get(scope["path"], self._limits.other_bytes)
        body = _Body(scope, receive, send, self._limits, largest)
        try:
            body.check_header()
        except ApiError as error:
            return await error.response()(scope, receive, body.send)
        try:
            return await self.app(scope, body.receive, body.send)
        except _NotRead:  # there is nobody to answer; the server closes the connection
            return None


class AtOnce:
    """Refuses requests beyond so many at a time.

    Args:
        app: what is guarded.
        most: requests in all.
        most_of: requests of a path, besides.
    """

    def __init__(self, app: ASGIApp, most: int, most_of: Mapping[str, int]) -> None:
        self.app, self._most, self._most_of = app, most, most_of
        self._now, self._now_of = 0, dict.fromkeys(most_of, 0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        path = scope["path"]
        counted = path in self._most_of
        if self._now >= self._most or (counted and self._now_of[path] >= self._most_of[path]):
            error = ApiError("overloaded", "The server is at its limit. Try again in a second.", {"Retry-After": "1"})
            return await error.response()(scope, receive, send)
        self._now += 1
        if counted:
            self._now_of[path] += 1
        try:
            return await self.app(scope, receive, send)
        finally:
            self._now -= 1
            if counted:
                self._now_of[path] -= 1


class _NotRead(Exception):  # noqa: N818 - not an error of the program
    """A client does not read its answer."""


class _Body:
    """One request's body, and the answer to it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limits: Limits, largest: int) -> None:
        self._receive, self._send, self._limits, self._largest = receive, send, limits, largest
        headers = Headers(scope=scope)
        length = headers.get("content-length", "0")
        self._announced = int(length) if length.isdecimal() else 0
        self._ended = self._announced == 0 and "transfer-encoding" not in headers
        self._size, self._started = 0, time.monotonic()

    def check_header(self) -> None:
        """Raises ApiError "too_large" where the header announces too much."""
        if self._announced > self._largest:
            raise self._too_large()

    async def receive(self) -> Message:
        """The next part. Raises ApiError "too_large" or "too_slow"."""
        if self._ended:
            return await self._receive()
        allowed = self._limits.body_seconds + self._size / self._limits.slowest_bytes
        left = self._started + allowed - time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, min(left, self._limits.pause_seconds))):
                message = await self._receive()
        except TimeoutError:
            raise ApiError("too_slow", "The body came too slowly, or stopped coming. Send it again.") from None
        self._ended = message["type"] != "http.request" or not message.get("more_body", False)
        self._size += len(message.get("body", b""))
        if self._size > self._largest:
            raise self._too_large()
        return message

    async def send(self, message: Message) -> None:
        """Pass the answer on; a client that still sends is heard for a moment, or it would not hear the answer."""
        if message["type"] == "http.response.start" and not self._ended:
            await self._hear_the_rest()
            if not self._ended:
                MutableHeaders(scope=message)["Connection"] = "close"
        try:
            async with asyncio.timeout(_SEND_SECONDS):
                await self._send(message)
        except TimeoutError:
            raise _NotRead from None

    async def _hear_the_rest(self) -> None:
        try:
            async with asyncio.timeout(LEFTOVER_SECONDS):
                while not self._ended:
                    message = await self._receive()
                    self._ended = message["type"] != "http.request" or not message.get("more_body", False)
        except TimeoutError:
            pass

    def _too_large(self) -> ApiError:
        return ApiError(
            "too_large", f"This address takes {self._largest:,} bytes. Send fewer or smaller files; the limits are "
            "listed in /api/v1/model.",
        )  # fmt: skip

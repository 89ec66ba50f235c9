"""Who is answered, and what browsers may do with the answer: host, origin, token, headers. Plain ASGI."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ductal.web.problems import ApiError

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
API = "/api/"
OPEN = frozenset({"/api/v1/health", "/api/v1/ready"})  # for what watches the server
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


_RAW = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
_RAW_API = [*_RAW, (b"cache-control", b"no-store")]


class SecureHeaders:
    """Adds `HEADERS` to every answer, errors included, and keeps those of the API out of caches."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = _RAW_API if scope["path"].startswith(API) else _RAW
                message["headers"] = [*message.get("headers", ()), *ours]
            await send(message)

        return await self.app(scope, receive, with_headers)


class Gate:
    """Lets a request through when it names this server, does not come from a foreign page, and has the token.

    Args:
        app: what is guarded.
        hosts: names of the server; those of the loopback interface always count. A page that was rebound to this
            address by its own name server comes with another name.
        token: "" when none is needed.
    """

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...] = (), token: str = "") -> None:
        self.app = app
        self._hosts = LOOPBACK | {host.lower().strip("[]") for host in hosts}
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except ApiError as error:
                return await error.response()(scope, receive, send)
        return await self.app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if host_name(host) not in self._hosts:
            raise ApiError(
                "unknown_host", "The server is not known by this name. Call it by the address it has printed, or "
                "start it with --allow-host and the name.",
            )  # fmt: skip
        if scope["method"] not in SAFE_METHODS:
            origin = headers.get("origin")
            foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
            if foreign or headers.get("sec-fetch-site") in ("cross-site", "same-site"):
                raise ApiError("foreign_origin", "Another site's page may not use this server. Use the server's own.")
        path = scope["path"]
        if self._token and path.startswith(API) and path not in OPEN and not self._knows(headers):
            raise ApiError(
                "unauthorised", "Send the token the server was started with: Authorization: Bearer TOKEN.",
                {"WWW-Authenticate": 'Bearer realm="ductal"'},
            )  # fmt: skip

    def _knows(self, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1"), self._token)


def host_name(host: str) -> str:
    """The name in a Host header, in small letters, without port and brackets."""
    host = host.lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host

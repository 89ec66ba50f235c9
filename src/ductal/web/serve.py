"""Start the server: its socket, its protections below HTTP, and its end."""

from __future__ import annotations

import errno
import ipaddress
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import uvicorn

from ductal.errors import ServeError
from ductal.web.app import create_app
from ductal.web.connections import GuardedProtocol
from ductal.web.security import LOOPBACK
from ductal.web.service import check_run
from ductal.web.settings import Settings

GRACE_SECONDS = 10


def serve(run_folder: Path, settings: Settings, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve a run until a signal (SIGINT, SIGTERM) ends it.

    Args:
        run_folder: a finished run.
        settings: of the server.
        host: address or name to listen at.
        port: 0 takes any that is free.
        ready: called with the address, once connections are taken.

    Raises:
        ServeError: no token beyond the loopback interface, or the address cannot be listened at.
        RunError: not a finished run, or one that cannot be loaded.
        DataError: the cohort for samples cannot be used.
    """
    if not settings.token and not is_loopback(host):
        raise ServeError(
            f"{host} can be reached from other machines, so a token is needed. Set DUCTAL_TOKEN (or --token) to a "
            "long random text, such as that of: openssl rand -hex 24"
        )
    check_run(run_folder, settings)
    listener = listen(host, port)
    app = create_app(run_folder, settings)
    config = uvicorn.Config(
        app, http=partial(GuardedProtocol, most=settings.limits.connections),  # type: ignore[arg-type]
        loop="auto", ws="none", server_header=False, access_log=settings.access_log,
        log_config=None, timeout_graceful_shutdown=GRACE_SECONDS,
    )  # fmt: skip
    shown = f"[{host}]" if ":" in host else host
    ready(f"http://{shown}:{listener.getsockname()[1]}/")
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    server = uvicorn.Server(config)
    app.state.stop = partial(setattr, server, "should_exit", True)
    with listener, suppress(KeyboardInterrupt):  # uvicorn raises it anew once it has ended in order
        server.run(sockets=[listener])
    if app.state.failure is not None:
        raise app.state.failure


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens at `host`."""
    if host.lower() in LOOPBACK:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ServeError where there is none to be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=512)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ServeError(
                f"Port {port} of {host} is in use, perhaps by another ductal serve. Choose another one with --port; "
                "0 takes any that is free."
            ) from error
        raise ServeError(f"Cannot listen at {host}, port {port}: {error.strerror or error}.") from error

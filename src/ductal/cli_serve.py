"""The command that serves a run to browsers and scripts."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from ductal.cli_options import D4, Engine, EngineChoice, RunFolder
from ductal.console import make_console, say
from ductal.errors import ServeError

server = typer.Typer()


@server.command()
def serve(
    run_folder: RunFolder,
    host: Annotated[str, typer.Option(help="Address to listen at; any but this machine's own needs a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port; 0 takes any that is free.", min=0, max=65535)] = 8000,
    token: Annotated[
        str,
        typer.Option(envvar="DUCTAL_TOKEN", help="What clients must send; better set as a variable than typed here."),
    ] = "",
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", help="A name the server is called by; may be repeated.")
    ] = None,
    samples: Annotated[
        Path | None, typer.Option(help="The run's cohort, for sample patches; without it they are drawn.")
    ] = None,
    d4: D4 = False,
    engine: Engine = EngineChoice.auto,
    access_log: Annotated[
        bool, typer.Option("--access-log", help="A line for each request; names of files are never logged.")
    ] = False,
) -> None:
    """Serve a run to browsers and scripts on this machine; Ctrl-C ends it."""
    for name in ("fastapi", "python_multipart", "uvicorn", "httptools"):
        if find_spec(name) is None:
            raise ServeError(f"{name} is not installed, which this needs. Install it: pip install 'ductal[web]'.")
    from ductal.web.serve import serve as serve_run
    from ductal.web.settings import Settings

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    console = make_console()
    settings = Settings(
        token=token, hosts=tuple(allow_host or ()) + ((host,) if host not in ("0.0.0.0", "::") else ()),
        samples=samples, engine=engine.value, d4=d4, access_log=access_log,
    )  # fmt: skip
    serve_run(run_folder, settings, host, port, lambda url: say(console, f"Open {url} in a browser. Ctrl-C ends it."))

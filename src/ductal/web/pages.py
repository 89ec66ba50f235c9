"""The pages of the web application: templates without data, which the scripts fill through the HTTP interface."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

_HERE = Path(__file__).parent
PAGES = {"/": ("index.html", "classify"), "/model": ("model.html", "model")}


def add_pages(app: FastAPI) -> None:
    """Add `/`, `/model` and `/static/...`. They hold nothing of the run, so they need no token."""
    from starlette.staticfiles import StaticFiles

    for path, (template, page) in PAGES.items():
        _add(app, path, render_page(template, page))
    app.mount("/static", StaticFiles(directory=_HERE / "static"), name="static")


def render_page(template: str, page: str) -> str:
    """A page as HTML; `page` is which link of the navigation is the current one."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("ductal.web", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(template).render(page=page, version=metadata.version("ductal"))


def _add(app: FastAPI, path: str, html: str) -> None:
    from fastapi.responses import HTMLResponse

    # HEAD too: some browsers and proxies ask for it first.
    @app.api_route(path, methods=["GET", "HEAD"], include_in_schema=False)
    def page() -> HTMLResponse:
        return HTMLResponse(html, headers={"Cache-Control": "no-cache"})

"""The application: routes, limits and guards around one run."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from starlette.types import ASGIApp

from ductal import __version__
from ductal.errors import DuctalError
from ductal.files import scratch_folder
from ductal.web.bodies import AtOnce, BodyLimits
from ductal.web.jobs import Jobs
from ductal.web.model_info import RESEARCH_ONLY
from ductal.web.model_routes import router as model_router
from ductal.web.pages import add_pages
from ductal.web.patch_routes import router as patch_router
from ductal.web.problems import add_handlers
from ductal.web.security import Gate, SecureHeaders
from ductal.web.service import load_service
from ductal.web.settings import Settings
from ductal.web.slide_routes import PATH as SLIDES
from ductal.web.slide_routes import router as slide_router

PREFIX = "/api/v1"


class _Application(FastAPI):
    """FastAPI puts its answer to an unforeseen error around all middleware; the headers must be on that one, too."""

    def build_middleware_stack(self) -> ASGIApp:
        """See Starlette."""
        return SecureHeaders(super().build_middleware_stack())


def create_app(run_folder: Path, settings: Settings) -> FastAPI:
    """The application for a run, which is loaded in the background once the application starts.

    Where that fails, `state.failure` is the error, and `state.stop` is called, which whoever runs it may set.

    Args:
        run_folder: a finished run; `ductal.web.service.check_run` tells whether it is one.
        settings: of the server.
    """
    app = _Application(
        title="ductal", version=__version__, lifespan=_lifespan, docs_url=None, redoc_url=None,
        openapi_url=f"{PREFIX}/openapi.json", redirect_slashes=False,
        description=f"Invasive ductal carcinoma in patches and slides of breast tissue. {RESEARCH_ONLY}",
    )  # fmt: skip
    app.state.run_folder, app.state.settings = run_folder, settings
    app.state.service = app.state.failure = None
    app.state.stop = lambda: None
    limits = settings.limits
    # Added last is outermost.
    app.add_middleware(BodyLimits, limits=limits, sizes={
        f"{PREFIX}/predict": limits.patch_bytes, f"{PREFIX}/explain": limits.patch_bytes,
        f"{PREFIX}/predict/batch": limits.batch_bytes, SLIDES: limits.slide_bytes,
    })  # fmt: skip
    app.add_middleware(Gate, hosts=settings.hosts, token=settings.token)
    app.add_middleware(AtOnce, most=limits.requests, most_of={
        SLIDES: limits.slide_uploads, f"{PREFIX}/predict/batch": limits.batches,
    })  # fmt: skip
    add_handlers(app)
    app.include_router(patch_router)  # first, since it is asked most and they are tried in order
    app.include_router(model_router)
    app.include_router(slide_router)
    add_pages(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async def load() -> None:
        try:
            app.state.service = await asyncio.to_thread(load_service, app.state.run_folder, app.state.settings)
        except DuctalError as error:
            app.state.failure = error
            app.state.stop()

    # Not alone: several servers of a machine share the folder for temporary files, and each has its own in it.
    with scratch_folder(Path(tempfile.gettempdir()) / "ductal-serve", alone=False) as folder:
        folder.chmod(0o700)
        app.state.jobs = Jobs(folder, app.state.settings.limits)
        loading = asyncio.create_task(load())
        try:
            yield
        finally:
            await app.state.jobs.close()
            await loading
            if app.state.service is not None:
                await asyncio.to_thread(app.state.service.batcher.close)

"""The model, sample images, and whether the server is alive and ready."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends
from starlette.responses import Response

from ductal.web.card import card_html
from ductal.web.model_info import Card, ModelInfo
from ductal.web.problems import ApiError, Responses, documented
from ductal.web.schemas import Sample, Status
from ductal.web.service import Service, loaded

TheService = Annotated[Service, Depends(loaded)]
PNG = "image/png"
_PICTURE: Responses = {200: {"content": {PNG: {"schema": {"type": "string", "format": "binary"}}}}}

router = APIRouter(prefix="/api/v1")


@router.get("/health", tags=["server"], responses=documented())
async def health() -> Status:
    """The process is alive."""
    return Status(status="ok")


@router.get("/ready", tags=["server"], responses=documented("not_ready"))
async def ready(_: TheService) -> Status:
    """The model is loaded and warmed up."""
    return Status(status="ready")


@router.get("/model", tags=["model"], responses=documented("not_ready"))
async def model(service: TheService) -> ModelInfo:
    """What the model is, how good it is, what it must not be used for, and what the server takes."""
    return service.info.model


@router.get("/model/card", tags=["model"], responses=documented("not_ready"))
async def card(service: TheService) -> Card:
    """The run's model card."""
    return Card(markdown=service.info.card, html=card_html(service.info.card))


@router.get(
    "/model/figures/{name}", tags=["model"], response_class=Response,
    responses=_PICTURE | documented("not_found", "not_ready", "invalid"),
)  # fmt: skip
async def figure(service: TheService, name: str) -> Response:
    """A picture of the run's evaluation."""
    path = service.info.figures.get(name)
    if path is None:
        raise ApiError("not_found", "The run has no such figure; /api/v1/model lists those it has.")
    return Response(await to_thread.run_sync(path.read_bytes), media_type=PNG)


@router.get("/samples", tags=["samples"], responses=documented("not_ready"))
async def samples(service: TheService) -> list[Sample]:
    """Images to try."""
    return service.samples.entries


@router.get(
    "/samples/{name}", tags=["samples"], response_class=Response,
    responses=_PICTURE | documented("not_found", "not_ready", "invalid"),
)  # fmt: skip
async def sample(service: TheService, name: str) -> Response:
    """One of them."""
    content = service.samples.pngs.get(name)
    if content is None:
        raise ApiError("not_found", "There is no such sample; /api/v1/samples lists them.")
    return Response(content, media_type=PNG)

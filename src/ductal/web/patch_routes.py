"""Patches: predict one, predict many, explain one."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, NamedTuple

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from ductal.web.explaining import MAP_PX, patch_png
from ductal.web.forms import File, file_body, read_file, read_files
from ductal.web.input_check import notes
from ductal.web.problems import ApiError, documented
from ductal.web.schemas import Batch, Counts, Explanation, Failed, Prediction
from ductal.web.service import Service, loaded
from ductal.web.uploads import read_patch, shown_name

_IMAGE = ("unsupported_format", "invalid", "not_a_patch", "damaged", "busy", "timeout", "not_ready")
_PATCH = "A patch of 50 x 50 px: PNG, JPEG or TIFF."
_Views = Annotated[
    bool, Query(description="Also what the model says of the 8 rotations and flips; eight times the work.")
]
AT_ONCE_BYTES = 16 << 10  # a larger file is decoded in a thread: it can hold more than a patch's pixels

router = APIRouter(prefix="/api/v1", tags=["patches"])


class _Ready(NamedTuple):
    """A decoded patch."""

    name: str
    pixels: np.ndarray


@router.post(
    "/predict", response_model=Prediction, responses=documented(*_IMAGE),
    openapi_extra=file_body("file", _PATCH),
)  # fmt: skip
async def predict(request: Request, views: _Views = False) -> Response:
    """Probability of invasive ductal carcinoma of one patch."""
    service = await loaded(request)
    ready = await _read(request)
    async with _in_time(service):
        (answer,) = await _judged(service, [ready], views)
    return _as_json(answer)


@router.post(
    "/predict/batch", response_model=Batch, responses=documented("invalid", "busy", "timeout", "not_ready"),
    openapi_extra=file_body("files", _PATCH, many=True),
)  # fmt: skip
async def predict_batch(request: Request, views: _Views = False) -> Response:
    """Probabilities of many patches; a file that cannot be used gets a problem, and the others their answers."""
    service = await loaded(request)
    limits = service.settings.limits
    readings = await to_thread.run_sync(_prepare_each, await read_files(request, "files", limits.files))
    good = [one for one in readings if isinstance(one, _Ready)]
    answers: list[Prediction] = []
    async with _in_time(service):
        # Some at a time: enough to keep the network busy, and few enough to leave room for small requests.
        step = limits.waiting_patches // (2 * limits.batches)
        for start in range(0, len(good), step):
            answers += await _judged(service, good[start : start + step], views)
    remaining = iter(answers)
    predictions = [one if isinstance(one, Failed) else next(remaining) for one in readings]
    return _as_json(Batch(predictions=predictions, counts=_counts(predictions)))


@router.post(
    "/explain", response_model=Explanation, responses=documented(*_IMAGE, "no_explanation"),
    openapi_extra=file_body("file", _PATCH),
)  # fmt: skip
async def explain(request: Request) -> Response:
    """Where in a patch the network finds what it calls (Grad-CAM), as a picture to lay over the patch."""
    service = await loaded(request)
    waiting = service.explaining.statistics().tasks_waiting
    if waiting >= service.settings.limits.explanations:
        raise ApiError("busy", f"{waiting} explanations are waiting. Try again in seconds.", {"Retry-After": "5"})
    ready = await _read(request)
    async with _in_time(service):
        (answer,) = await _judged(service, [ready], True)
        explained = await to_thread.run_sync(
            service.explainer.explain, ready.pixels, answer.above_threshold,
            limiter=service.explaining, abandon_on_cancel=True,
        )  # fmt: skip
    return _as_json(Explanation(
        prediction=answer, map_png=base64.b64encode(explained.png).decode("ascii"), px=MAP_PX,
        patch_png=base64.b64encode(patch_png(ready.pixels)).decode("ascii"),
        explains=explained.target, empty=explained.empty, layer=explained.layer,
    ))  # fmt: skip


def _as_json(answer: BaseModel) -> Response:
    """The response with an answer, which need not be validated a second time."""
    return Response(answer.model_dump_json(), media_type="application/json")


async def _read(request: Request) -> _Ready:
    file = await read_file(request, "file")
    if len(file.content) <= AT_ONCE_BYTES:
        return _prepare(file)
    return await to_thread.run_sync(_prepare, file)


def _prepare(file: File) -> _Ready:
    return _Ready(shown_name(file.name), read_patch(file.content))


def _prepare_each(files: list[File]) -> list[_Ready | Failed]:
    readings: list[_Ready | Failed] = []
    for file in files:
        try:
            readings.append(_prepare(file))
        except ApiError as error:
            readings.append(Failed(name=shown_name(file.name), problem=error.problem))
    return readings


async def _judged(service: Service, ready: list[_Ready], views: bool) -> list[Prediction]:
    """The answers. A run that averages over the 8 views always asks for them."""
    patches = np.stack([one.pixels for one in ready])
    found = await service.batcher.predict(patches, views=views or service.judge.d4)
    answers = []
    for one, probs, codes in zip(ready, found.probs.reshape(len(ready), -1), found.codes, strict=True):
        said, usable = notes(codes)
        answers.append(service.judge.answer(one.name, probs, said, usable=usable))
    return answers


def _counts(predictions: list[Prediction | Failed]) -> Counts:
    answers = [one for one in predictions if isinstance(one, Prediction)]
    calls = [one.call for one in answers]
    return Counts(
        files=len(predictions), cancer=calls.count("cancer"), not_cancer=calls.count("not_cancer"),
        unsure=calls.count("unsure"), failed=len(predictions) - len(answers),
        warned=sum(bool(one.warnings) for one in answers),
    )  # fmt: skip


@asynccontextmanager
async def _in_time(service: Service) -> AsyncIterator[None]:
    seconds = service.settings.limits.answer_seconds
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise ApiError(
            "timeout", f"There was no answer within {seconds:g} seconds. Send fewer patches at a time, or try later."
        ) from None

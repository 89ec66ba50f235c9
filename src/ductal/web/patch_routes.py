"""Patches: predict one, predict many, explain one."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, NamedTuple

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, Depends, File, Query, UploadFile

from ductal.web.explaining import MAP_PX, patch_png
from ductal.web.input_check import check_patch
from ductal.web.problems import ApiError, documented
from ductal.web.schemas import Batch, Counts, Explanation, Failed, Note, Prediction
from ductal.web.service import Service, loaded
from ductal.web.settings import Limits
from ductal.web.uploads import read_patch, shown_name

TheService = Annotated[Service, Depends(loaded)]
WithViews = Annotated[
    bool, Query(description="Also what the model says of the 8 rotations and flips; eight times the work.")
]
_IMAGE = ("unsupported_format", "invalid", "not_a_patch", "damaged", "busy", "timeout", "not_ready")


class _Ready(NamedTuple):
    """A decoded patch."""

    name: str
    pixels: np.ndarray
    notes: list[Note]
    usable: bool


def patch_routes(limits: Limits) -> APIRouter:
    """The routes, with the limits that their forms keep."""
    router = APIRouter(prefix="/api/v1", tags=["patches"])
    one: Any = {"max_files": 1, "max_fields": 4, "max_part_size": 4096}
    many: Any = one | {"max_files": limits.files}
    router.post("/predict", responses=documented(*_IMAGE), form_limits=one)(predict)
    router.post("/predict/batch", responses=documented("invalid", "busy", "timeout", "not_ready"),
                form_limits=many)(predict_batch)  # fmt: skip
    router.post("/explain", responses=documented(*_IMAGE, "no_explanation"), form_limits=one)(explain)
    return router


async def predict(
    service: TheService,
    file: Annotated[UploadFile, File(description="A patch of 50 x 50 px: PNG, JPEG or TIFF.")],
    views: WithViews = False,
) -> Prediction:
    """Probability of invasive ductal carcinoma of one patch."""
    ready = await _read(file)
    async with _in_time(service):
        found = await _judged(service, [ready], views)
    return _answer(service, ready, found[0])


async def predict_batch(
    service: TheService,
    files: Annotated[list[UploadFile], File(description="Patches of 50 x 50 px: PNG, JPEG or TIFF.")],
    views: WithViews = False,
) -> Batch:
    """Probabilities of many patches; a file that cannot be used gets a problem, and the others their answers."""
    readings: list[_Ready | Failed] = []
    for file in files:
        try:
            readings.append(await _read(file))
        except ApiError as error:
            readings.append(Failed(name=shown_name(file.filename), problem=error.problem))
    good = [one for one in readings if isinstance(one, _Ready)]
    size = service.settings.limits.batch
    answers: list[Prediction] = []
    async with _in_time(service):
        # One batch after the other, so that a large request leaves room for small ones between its batches.
        for start in range(0, len(good), size):
            part = good[start : start + size]
            found = await _judged(service, part, views)
            answers += [_answer(service, *pair) for pair in zip(part, found, strict=True)]
    remaining = iter(answers)
    predictions = [one if isinstance(one, Failed) else next(remaining) for one in readings]
    return Batch(predictions=predictions, counts=_counts(predictions))


async def explain(
    service: TheService, file: Annotated[UploadFile, File(description="A patch of 50 x 50 px: PNG, JPEG or TIFF.")]
) -> Explanation:
    """Where in a patch the network finds what it calls (Grad-CAM), as a picture to lay over the patch."""
    waiting = service.explaining.statistics().tasks_waiting
    if waiting >= service.settings.limits.explanations:
        raise ApiError("busy", f"{waiting} explanations are waiting. Try again in seconds.", {"Retry-After": "5"})
    ready = await _read(file)
    async with _in_time(service):
        found = await _judged(service, [ready], True)
        answer = _answer(service, ready, found[0])
        explained = await to_thread.run_sync(
            service.explainer.explain, ready.pixels, answer.above_threshold,
            limiter=service.explaining, abandon_on_cancel=True,
        )  # fmt: skip
    return Explanation(
        prediction=answer, map_png=base64.b64encode(explained.png).decode("ascii"), px=MAP_PX,
        patch_png=base64.b64encode(patch_png(ready.pixels)).decode("ascii"),
        explains=explained.target, empty=explained.empty, layer=explained.layer,
    )  # fmt: skip


async def _read(file: UploadFile) -> _Ready:
    content = await file.read()
    return await to_thread.run_sync(_prepare, shown_name(file.filename), content)


def _prepare(name: str, content: bytes) -> _Ready:
    pixels = read_patch(content)
    notes, usable = check_patch(pixels)
    return _Ready(name, pixels, notes, usable)


async def _judged(service: Service, ready: list[_Ready], views: bool) -> np.ndarray:
    """Probabilities, float32 (n, 8) with views, which a run that averages over them always has, else (n, 1)."""
    with_views = views or service.judge.d4
    found = await service.batcher.predict(np.stack([one.pixels for one in ready]), views=with_views)
    return found if with_views else found[:, None]


def _answer(service: Service, ready: _Ready, found: np.ndarray) -> Prediction:
    return service.judge.answer(ready.name, found, ready.notes, usable=ready.usable)


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

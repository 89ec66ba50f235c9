"""What a server holds while it runs: the model, loaded once, and what is said of it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from anyio import CapacityLimiter
from fastapi import Request

from ductal.evaluation.runs import load_run
from ductal.inference.predictor import PATCH_SHAPE, Predictor
from ductal.slides.analyse import SlideAnalyser
from ductal.web.answers import Judge
from ductal.web.batching import Batcher
from ductal.web.explaining import Explainer
from ductal.web.input_check import flags
from ductal.web.model_info import RunInfo, read_run
from ductal.web.problems import ApiError
from ductal.web.samples import Samples, load_samples
from ductal.web.settings import Settings

log = logging.getLogger("ductal.web")


@dataclass(frozen=True)
class Service:
    """A loaded run, ready to answer.

    Attributes:
        run_folder: where it lies.
        settings: of the server.
        batcher: gives patches to the network.
        judge: makes calls of probabilities.
        explainer: makes Grad-CAM maps, one at a time (`explaining`).
        info: what is said of the run.
        samples: images to try.
    """

    run_folder: Path
    settings: Settings
    batcher: Batcher
    judge: Judge
    explainer: Explainer
    explaining: CapacityLimiter
    info: RunInfo
    samples: Samples


def check_run(run_folder: Path, settings: Settings) -> None:
    """Find out before the server starts whether the run can be served.

    Raises:
        RunError: it is not a finished run, or has a context that does not belong to it.
    """
    load_run(run_folder, evaluated=False)
    SlideAnalyser(run_folder, d4=settings.d4)


def load_service(run_folder: Path, settings: Settings) -> Service:
    """Load the run and warm it up, which takes seconds.

    Raises:
        RunError: it cannot be loaded. DataError: the cohort for samples cannot be used.
    """
    started, limits = time.monotonic(), settings.limits
    predictor = Predictor.from_run(run_folder, d4=settings.d4, engine=settings.engine)
    batcher = Batcher(predictor, flags, batch=limits.batch, wait_seconds=limits.wait_seconds,
                      waiting=limits.waiting_patches, streams=predictor.streams)  # fmt: skip
    for size in batcher.sizes:  # the first call of each size compiles and allocates, for each stream
        predictor.predict(np.zeros((size * predictor.streams, *PATCH_SHAPE), np.uint8), batch_size=size)
    judge = Judge.of_run(run_folder, predictor.threshold, predictor.d4)
    service = Service(
        run_folder=run_folder,
        settings=settings,
        batcher=batcher,
        judge=judge,
        explainer=Explainer(run_folder, d4=predictor.d4),
        explaining=CapacityLimiter(1),
        info=read_run(run_folder, predictor, SlideAnalyser(run_folder, d4=settings.d4), judge, limits),
        samples=load_samples(run_folder, settings.samples),
    )  # fmt: skip
    log.info("%s is loaded, %.1f s", service.info.model.name, time.monotonic() - started)
    return service


async def loaded(request: Request) -> Service:
    """The service, as a dependency of routes. Raises ApiError "not_ready" until it is loaded."""
    service: Service | None = request.app.state.service
    if service is None:
        raise ApiError("not_ready", "The model is not loaded yet; it takes seconds. Try again.", {"Retry-After": "2"})
    return service

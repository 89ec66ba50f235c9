"""What a server has done before it says that it is ready."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ductal.inference.predictor import Predictor
from ductal.web.service import load_service
from ductal.web.settings import Limits, Settings


def test_every_size_of_batch_was_computed_by_every_stream(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the first requests would wait for a compilation, and memory would grow under load."""
    asked: list[tuple[int, int]] = []
    predict = Predictor.predict

    def listening(self: Predictor, patches: np.ndarray, *args: object, **settings: int) -> np.ndarray:
        asked.append((len(patches), settings["batch_size"]))
        return predict(self, patches, *args, **settings)

    monkeypatch.setattr(Predictor, "predict", listening)
    service = load_service(run, Settings(limits=Limits(batch=5)))
    service.batcher.close()
    assert service.batcher.sizes == [1, 2, 3, 4, 5]
    streams = Predictor.from_run(run).streams
    assert asked == [(size * streams, size) for size in service.batcher.sizes]

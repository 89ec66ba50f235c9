"""What an export must give: the run's probabilities by its Predictor in float32, and how exactly that knows them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ductal.export.graph import LoadedRun
from ductal.inference.engines import Engine, TensorFlowEngine, Where

STEPS = 2  # float32 numbers that two right computations of a sigmoid may be apart


@dataclass(frozen=True)
class Reference:
    """A run's probabilities, float32 (n,), and the narrow range around each in which they cannot be told apart.

    A network's probability near 1 has few digits left in float32: 0.999999 tells its logit to 0.03. Where others of
    an ensemble, or other views, contradict such a network, the averaged probability is known no better than that.
    """

    probs: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def resolution(self) -> float:
        """The widest of the ranges."""
        return float((self.high - self.low).max())

    def distance(self, found: np.ndarray) -> np.ndarray:
        """How far each of `found` is outside its range: float64 (n,), 0 inside."""
        apart = np.maximum(self.low.astype(np.float64) - found, found - self.high.astype(np.float64))
        return np.maximum(apart, 0.0)


class _Kept:
    """An engine that remembers what it gave, or gives `replayed` instead of computing."""

    name, streams = "tensorflow", 1

    def __init__(self, engine: Engine | None, replayed: np.ndarray | None = None) -> None:
        self._engine, self.given = engine, replayed

    def run(self, batches: Iterable[tuple[Where, np.ndarray]], out: np.ndarray) -> None:
        """See `Engine.run`."""
        if self._engine is None:
            out[...] = self.given
        else:
            self._engine.run(batches, out)
            self.given = out.copy()


def reference_of(run: LoadedRun, patches: np.ndarray) -> Reference:
    """The reference for uint8 `patches` (n, 50, 50, 3)."""
    engines = [_Kept(TensorFlowEngine(item.model)) for item in run.networks]
    probs = run.predictor(engines).predict(patches)
    # Each step of the Predictor is monotonic, so moving all networks one way bounds what moving some would do.
    low, high = (
        run.predictor([_Kept(None, _moved(engine.given, towards)) for engine in engines]).predict(patches)
        for towards in (0.0, 1.0)
    )
    return Reference(probs, low, high)


def _moved(probs: Any, towards: float) -> np.ndarray:
    """`probs` (float32), each `STEPS` numbers nearer to `towards`."""
    for _ in range(STEPS):
        probs = np.nextafter(probs, np.float32(towards))
    return np.asarray(probs)

"""Heads over the grid of a frozen patch model: what they have in common, and the two without embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from sklearn.linear_model import LogisticRegression

from ductal.context.neighbourhood import window_means
from ductal.errors import RunError
from ductal.evaluation.arrays import Floats, Ints, patient_weights
from ductal.slides.grid import TileGrid

WINDOWS = (3, 5, 7, 9)
_UNPENALISED = 1e6
STEPS, TINY = 50, 1e-8  # of Newton's method: it takes about ten, where a general optimiser takes a hundred


@dataclass(frozen=True, eq=False)
class Slide:
    """The patches of one patient, all of them, on their grid.

    Attributes:
        patient: whose slide it is.
        grid: places of the n patches.
        labels: int8 (n,), IDC = 1.
        logits: float64 (n,), the run's calibrated logits.
        embeddings: float32 (n, d); None where no head needs them.
        rows: int64 (n,), rows of the cohort's table.
        part: "val", "test", or "" for a patient in no part of the run's split.
    """

    patient: str
    grid: TileGrid
    labels: np.ndarray
    logits: Floats
    embeddings: np.ndarray | None
    rows: Ints
    part: str = ""


class Fitted(Protocol):
    """A head after `Head.fit`."""

    def logits(self, slide: Slide) -> Floats:
        """float64 (n,), of a slide's patches; labels are not looked at."""


class Head(Protocol):
    """A way to call patches from what is known of their slide.

    Attributes:
        name: as in tables.
        track: "patch-only" or "slide context".
        says: what it is, in a line.
        settings: choices to try; the one with the smallest log loss on slides it was not fitted on is taken.
        folds: parts of the slides for that, and for the calibration; None leaves out one slide at a time.
    """

    @property
    def name(self) -> str: ...
    @property
    def track(self) -> str: ...
    @property
    def says(self) -> str: ...
    @property
    def settings(self) -> Sequence[Any]: ...
    @property
    def folds(self) -> int | None: ...

    def fit(self, slides: Sequence[Slide], setting: Any) -> Fitted:
        """Fit on these slides, and on nothing else."""


@dataclass(frozen=True)
class PatchOnly:
    """The patch model as it is: the row to compare with."""

    name: str = "patch-only"
    track: str = "patch-only"
    says: str = "the patch model alone, calibrated on the same slides as the others"
    settings: Sequence[Any] = (None,)
    folds: int | None = None

    def fit(self, slides: Sequence[Slide], setting: Any) -> PatchOnly:  # noqa: ARG002
        """Nothing to fit."""
        return self

    def logits(self, slide: Slide) -> Floats:
        """The slide's own."""
        return slide.logits


@dataclass(frozen=True)
class Smoothing:
    """(a) Logistic regression on a patch's logit and the mean logit of the window around it."""

    name: str = "smoothing"
    track: str = "slide context"
    says: str = "logistic regression on a patch's own logit and the mean logit around it"
    settings: Sequence[int] = WINDOWS
    folds: int | None = None

    def fit(self, slides: Sequence[Slide], setting: int) -> FittedSmoothing:
        """Fit with a window of `setting` patches a side; every patient counts the same."""
        features = np.concatenate([_own_and_around(slide, setting) for slide in slides])
        intercept, (own, around) = logistic_regression(features, slides, _UNPENALISED)
        return FittedSmoothing(setting, intercept, float(own), float(around))


@dataclass(frozen=True)
class FittedSmoothing:
    """Coefficients of `Smoothing`; see `ductal.context.model.ContextModel`, which is this with its calibration."""

    window: int
    intercept: float
    own: float
    neighbourhood: float

    def logits(self, slide: Slide) -> Floats:
        """See `Fitted.logits`."""
        features = _own_and_around(slide, self.window)
        return self.intercept + features @ np.array([self.own, self.neighbourhood])


def logistic_regression(features: Floats, slides: Sequence[Slide], strength: float) -> tuple[float, Floats]:
    """The intercept, and a coefficient for each feature (scikit-learn); every patient counts the same.

    Args:
        features: float64 (n, d), the slides' patches one below the other.
        slides: whose labels and patients they are.
        strength: scikit-learn's C.

    Raises:
        RunError: all patches of the slides are of one class.
    """
    labels = np.concatenate([slide.labels for slide in slides])
    if len(np.unique(labels)) < 2:
        raise RunError(
            f"All patches of {', '.join(slide.patient for slide in slides)} are of one class, so no context can "
            "be fitted on them. Add slides with the other class."
        )
    ids = np.repeat([slide.patient for slide in slides], [len(slide.labels) for slide in slides])
    model = LogisticRegression(C=strength, solver="newton-cholesky", tol=TINY, max_iter=STEPS)
    model.fit(features, labels, sample_weight=patient_weights(ids, len(labels)))
    return float(model.intercept_[0]), model.coef_[0]


def _own_and_around(slide: Slide, window: int) -> Floats:
    return np.stack([slide.logits, window_means(slide.grid, slide.logits, window)], axis=1)

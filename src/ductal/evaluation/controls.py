"""Control models: what colour, or nothing at all, already achieves on the same patients.

A network that does not beat them has learned nothing about tissue, so every table of results has
them as rows (Ignatov & Malivenko 2024, arXiv 2409.11546: colour alone predicts tissue class in a
popular data set). They are fitted on the training patches and judged like any run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ductal.data.cohort import PatchView
from ductal.errors import DataError

# Temporaries of 256 patches fit the processor's cache, and stay small beside a memory-mapped cohort.
CHUNK = 256
HISTOGRAM_BINS = 16

Pixels = npt.NDArray[np.uint8]
Patches = Pixels | PatchView
Features = npt.NDArray[np.float32]


class Control(ABC):
    """A model that must be beaten. Deterministic: the same patches give the same probabilities.

    Attributes:
        name: the row's name in tables and its folder's name below ``runs/``.
        says: one sentence for the report.
    """

    name: str
    says: str

    def __init__(self, seed: int = 42) -> None:
        self.seed = seed

    @abstractmethod
    def fit(self, pixels: Patches, y: npt.NDArray[np.integer[Any]]) -> Control:
        """Learn from training patches.

        Args:
            pixels: uint8 RGB, shape (n, 50, 50, 3); may be a memory map or a view of one.
            y: labels, shape (n,), IDC = 1.

        Raises:
            DataError: there is no patch, or not both classes where the model needs them.
        """

    @abstractmethod
    def predict(self, pixels: Patches) -> Features:
        """Probability of IDC, shape (n,), float32, for uint8 RGB patches of shape (n, 50, 50, 3)."""


class Majority(Control):
    """Predicts the training prevalence for every patch: accuracy 1 - prevalence, AUC 0.5."""

    name = "majority"
    says = "the share of IDC among the training patches, for every patch alike"

    def fit(self, pixels: Patches, y: npt.NDArray[np.integer[Any]]) -> Majority:  # noqa: ARG002
        if not len(y):
            raise DataError("There is no training patch, so a control has nothing to learn. Check the split.")
        self.prevalence = float(np.mean(y))
        return self

    def predict(self, pixels: Patches) -> Features:
        return np.full(len(pixels), self.prevalence, dtype=np.float32)


class _ColourControl(Control):
    """A scikit-learn classifier over features that know colours but no positions."""

    @abstractmethod
    def features(self, pixels: Patches) -> Features:
        """What the classifier sees, float32 (n, columns)."""

    @abstractmethod
    def estimator(self) -> Any:
        """A fresh scikit-learn classifier."""

    def fit(self, pixels: Patches, y: npt.NDArray[np.integer[Any]]) -> Control:
        if len(np.unique(y)) < 2:
            raise DataError(
                f"The control model {self.name} needs training patches of both classes. "
                f"Received: {len(y)} patches of {len(np.unique(y))} class(es). Take more patients."
            )
        self.model = self.estimator().fit(self.features(pixels), np.asarray(y))
        return self

    def predict(self, pixels: Patches) -> Features:
        if not len(pixels):
            return np.zeros(0, dtype=np.float32)
        return self.model.predict_proba(self.features(pixels))[:, 1].astype(np.float32)


class MeanColour(_ColourControl):
    """Logistic regression on the mean red, green and blue of a patch (standardised)."""

    name = "mean-colour"
    says = "logistic regression on the patch's mean red, green and blue"

    def features(self, pixels: Patches) -> Features:
        return mean_colour(pixels)

    def estimator(self) -> Any:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


class ColourHistogram(_ColourControl):
    """Gradient-boosted trees on a 16-bin histogram of each colour channel."""

    name = "colour-histogram"
    says = f"boosted trees on a {HISTOGRAM_BINS}-bin histogram of each colour channel"

    def features(self, pixels: Patches) -> Features:
        return colour_histogram(pixels)

    def estimator(self) -> Any:
        from sklearn.ensemble import HistGradientBoostingClassifier

        # No early stopping: its random validation share would ignore patients.
        return HistGradientBoostingClassifier(
            max_iter=100, max_leaf_nodes=15, early_stopping=False, random_state=self.seed
        )


CONTROLS: dict[str, type[Control]] = {kind.name: kind for kind in (Majority, MeanColour, ColourHistogram)}


def mean_colour(pixels: Patches) -> Features:
    """Mean of each channel, 0-255, shape (n, 3), float32, for uint8 patches of shape (n, h, w, 3)."""

    def mean(part: Pixels) -> npt.NDArray[np.float64]:
        n, height, breadth, _ = part.shape
        # Columns of pixels first, three channels interleaved: long contiguous sums, 15 times faster.
        columns = part.reshape(n, height, breadth * 3).sum(axis=1, dtype=np.uint32)
        return columns.reshape(n, breadth, 3).sum(axis=1) / (height * breadth)

    return _in_chunks(pixels, 3, mean)


def colour_histogram(pixels: Patches, bins: int = HISTOGRAM_BINS) -> Features:
    """Share of a patch's pixels in each intensity bin of red, then green, then blue.

    Args:
        pixels: uint8 RGB, shape (n, h, w, 3); may be a memory map.
        bins: bins a channel; a divisor of 256.

    Returns:
        Shape (n, 3 * bins), float32; each channel's bins sum to 1.
    """
    width = 256 // bins
    # An offset for each channel and patch lets one bincount fill all histograms of a chunk.
    column = np.arange(3) * bins

    def histogram(part: Pixels) -> npt.NDArray[np.float64]:
        n, height, breadth, _ = part.shape
        cells = (part // width).reshape(n, height * breadth, 3) + column
        cells += (np.arange(n) * 3 * bins)[:, None, None]
        counts = np.bincount(cells.ravel(), minlength=n * 3 * bins)
        return counts.reshape(n, 3 * bins) / (height * breadth)

    return _in_chunks(pixels, 3 * bins, histogram)


def _in_chunks(
    pixels: Patches, columns: int, features: Callable[[Pixels], npt.NDArray[np.float64]]
) -> Features:
    found = np.empty((len(pixels), columns), dtype=np.float32)
    for start in range(0, len(pixels), CHUNK):
        found[start : start + CHUNK] = features(np.asarray(pixels[start : start + CHUNK]))
    return found

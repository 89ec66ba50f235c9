"""(b) A head over what the patch model saw in a patch and in the rings of patches around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from ductal.context.heads import Slide, logistic_regression
from ductal.context.neighbourhood import ring_means
from ductal.errors import RunError
from ductal.evaluation.arrays import Floats

COMPONENTS = 32
RADIUS = 2  # rings: a neighbourhood of 5 x 5
STRENGTHS = (1e-4, 1e-3, 1e-2)
LOGIT_SCALE = 4.0  # brings logits to the size of standardised components


@dataclass(frozen=True, eq=False)
class Compression:
    """Embeddings as their largest principal components, fitted on some slides and applied to any."""

    pca: Any
    scale: Floats

    @classmethod
    def of(cls, slides: Sequence[Slide], components: int, seed: int) -> Compression:
        """Fit on the embeddings of `slides`. Raises RunError where they have none."""
        if any(slide.embeddings is None for slide in slides):
            raise RunError("This head needs embeddings, and the slides were gathered without them.")
        stacked = np.concatenate([slide.embeddings for slide in slides if slide.embeddings is not None])
        count = min(components, *stacked.shape)
        pca = PCA(count, svd_solver="randomized", random_state=seed).fit(stacked.astype(np.float64))
        return cls(pca, np.sqrt(np.maximum(pca.explained_variance_, 1e-12)))

    def apply(self, slide: Slide) -> Floats:
        """float64 (n, components + 1): components of variance 1 on the fitted slides, then the scaled logit."""
        found = self.pca.transform(np.asarray(slide.embeddings, np.float64)) / self.scale
        return np.concatenate([found, slide.logits[:, None] / LOGIT_SCALE], axis=1)


@dataclass(frozen=True)
class EmbeddingHead:
    """Logistic regression on embeddings and logits of a patch, of the 8 and of the 16 around it.

    Embeddings are the pooled features before the network's last layer, compressed to `components`. Of each ring the
    mean over the patches that are there is taken, and how many are: missing ones are masked, and no
    turn or flip of the slide changes anything.
    """

    name: str = "embeddings"
    track: str = "slide context"
    says: str = "logistic regression on embeddings and logits of a patch and of the two rings around it"
    settings: Sequence[float] = STRENGTHS
    folds: int | None = 3
    components: int = COMPONENTS
    radius: int = RADIUS
    seed: int = 0

    def fit(self, slides: Sequence[Slide], setting: float) -> _Fitted:
        """Fit with the penalty 1 / `setting`; every patient counts the same."""
        compression = Compression.of(slides, self.components, self.seed)
        features = np.concatenate([_features(compression.apply(slide), slide, self.radius) for slide in slides])
        scaler = StandardScaler().fit(features)
        intercept, coefficients = logistic_regression(scaler.transform(features), slides, setting)
        return _Fitted(compression, self.radius, scaler, intercept, coefficients)


@dataclass(frozen=True, eq=False)
class _Fitted:
    compression: Compression
    radius: int
    scaler: Any
    intercept: float
    coefficients: Floats

    def logits(self, slide: Slide) -> Floats:
        features = _features(self.compression.apply(slide), slide, self.radius)
        found: Floats = self.intercept + self.scaler.transform(features) @ self.coefficients
        return found


def _features(own: Floats, slide: Slide, radius: int) -> Floats:
    means, shares = ring_means(slide.grid, own, radius)
    return np.concatenate([own, *means, shares.T], axis=1)

"""Simulated slides: tumours are patches of a smooth random field, and the patch model's mistakes are independent."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from ductal.context.heads import Slide
from ductal.slides.grid import TileGrid


def field_slide(
    patient: str, rng: np.random.Generator, side: int = 18, *, smooth: float = 2.5, signal: float = 1.6
) -> Slide:
    """A slide of which a fifth of the places hold no patch; `smooth` 0 gives neighbours that know nothing.

    Looks at the truth are normal, `signal` apart, and logits those that make calibrated probabilities but for the
    prevalence; embeddings hold two noisy looks at
    the truth among noise.
    """
    noise = rng.normal(size=(side, side))
    field = gaussian_filter(noise, smooth, mode="wrap") if smooth else noise
    truth = field > np.quantile(field, 0.65)
    rows, columns = np.nonzero(rng.random((side, side)) < 0.8)
    labels = truth[rows, columns].astype(np.int8)
    looks = signal * (labels - 0.5) + rng.normal(size=labels.shape)
    embeddings = rng.normal(size=(len(labels), 6))
    embeddings[:, :2] += 1.2 * labels[:, None]
    grid = TileGrid(columns, rows, (side, side))
    return Slide(patient, grid, labels, signal * looks, embeddings.astype(np.float32), np.arange(len(labels)), "val")


def field_slides(count: int, seed: int = 5, **settings: float) -> list[Slide]:
    """Slides of different patients."""
    rng = np.random.default_rng(seed)
    return [field_slide(f"p{number}", rng, **settings) for number in range(count)]  # type: ignore[arg-type]

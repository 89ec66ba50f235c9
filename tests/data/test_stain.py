"""Stain densities: what was mixed is found, and the matrix is the one that training jitters."""

from __future__ import annotations

import numpy as np
import pytest

from ductal.data.cohort import PatchView
from ductal.data.stain import STAINS, stain_densities


def painted(haematoxylin: float, eosin: float) -> np.ndarray:
    """A patch of one colour that holds so much of each stain, uint8 (50, 50, 3)."""
    density = haematoxylin * STAINS[0] + eosin * STAINS[1]
    return np.broadcast_to(np.round(256 * np.exp(-density) - 1), (50, 50, 3)).astype(np.uint8)


@pytest.mark.parametrize(("haematoxylin", "eosin"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.4), (0.3, 0.6)])
def test_finds_what_was_mixed(haematoxylin: float, eosin: float) -> None:
    found = stain_densities(painted(haematoxylin, eosin)[None])
    assert found.dtype == np.float32
    assert found[0] == pytest.approx((haematoxylin, eosin), abs=0.01)  # of rounding to uint8


def test_a_patch_has_the_mean_of_its_pixels() -> None:
    half = painted(0.6, 0.0).copy()
    half[:25] = painted(0.0, 0.0)[:25]
    assert stain_densities(half[None])[0] == pytest.approx((0.3, 0.0), abs=0.01)


def test_reads_views_in_chunks_black_and_nothing() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)
    rows = np.arange(300)[::-1]
    assert (stain_densities(PatchView(pixels, rows)) == stain_densities(pixels)[::-1]).all()
    assert np.isfinite(stain_densities(np.zeros((1, 8, 8, 3), np.uint8))).all()
    assert stain_densities(pixels[:0]).shape == (0, 2)

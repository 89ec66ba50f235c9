"""Means over a patch's neighbours on the grid, where neighbours may be missing."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import convolve1d

from ductal.errors import DataError
from ductal.evaluation.arrays import Floats
from ductal.slides.grid import TileGrid


def window_means(grid: TileGrid, values: np.ndarray, window: int) -> Floats:
    """Mean of each patch and those of its neighbours that are there.

    What is missing (no patch at that place, one beyond the slide's edge, or one whose value is nan) is left out of
    the mean, not filled in: nothing is invented, and a patch without neighbours has itself as its mean.

    Args:
        grid: places of n patches of one slide.
        values: (n,) or (n, d); a patch with a nan counts as missing.
        window: side of the square window in patches, odd: 3 is the patch and the 8 around it.

    Returns:
        float64, shape of `values`; nan where nothing in the window is there.

    Raises:
        DataError: an even window, or values that are not one for each patch.
    """
    sums, counts = _window_sums(grid, values, window)
    with np.errstate(invalid="ignore", divide="ignore"):
        means: Floats = sums / counts.reshape(-1, *[1] * (values.ndim - 1))
    return means


def ring_means(grid: TileGrid, values: np.ndarray, radius: int) -> tuple[Floats, Floats]:
    """Mean over each of the square rings around a patch, from the nearest on.

    Rings do not change when a slide is turned or flipped, so nothing that is built on them does.

    Args:
        grid: as `window_means`.
        values: (n, d), finite.
        radius: how many rings; the r-th has 8 r places.

    Returns:
        (means, shares): float64 (radius, n, d), the patch's own values where a ring is empty; and float64
        (radius, n), the share of a ring's places that hold a patch.
    """
    means, shares = [], []
    inner, inside = values.astype(np.float64), np.ones(len(values))
    for ring in range(1, radius + 1):
        outer, within = _window_sums(grid, values, 2 * ring + 1)
        there = within - inside
        mean = (outer - inner) / np.maximum(there, 1)[:, None]
        means.append(np.where(there[:, None] > 0, mean, values))
        shares.append(there / (8 * ring))
        inner, inside = outer, within
    return np.array(means).reshape(radius, *values.shape), np.array(shares).reshape(radius, len(values))


def _window_sums(grid: TileGrid, values: np.ndarray, window: int) -> tuple[Floats, Floats]:
    """Sums, shape of `values`, over the window around each patch, and of how many patches, (n,)."""
    if window < 1 or window % 2 == 0:
        raise DataError(f"A window has an odd number of patches a side, such as 5. Received: {window}.")
    if len(values) != len(grid.rows):
        raise DataError(f"There must be one value for each patch. Received: {len(values)} for {len(grid.rows)}.")
    there = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    wide = there.reshape(-1, *[1] * (values.ndim - 1))
    sums = grid.raster(np.where(wide, values, 0.0).astype(np.float64), 0.0)
    counts = grid.raster(there.astype(np.float64), 0.0)
    ones = np.ones(window)
    for axis in (0, 1):
        sums = convolve1d(sums, ones, axis=axis, mode="constant")
        counts = convolve1d(counts, ones, axis=axis, mode="constant")
    return sums[grid.rows, grid.columns], np.rint(counts[grid.rows, grid.columns])

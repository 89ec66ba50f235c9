"""What virtual tissue is drawn with: smooth noise, scattered points, and ellipses stamped onto a canvas."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Field = NDArray[np.float32]
Values = NDArray[np.floating]

_STAMP_BLOCK = 1 << 21  # pixels stamped at once, to bound memory on large slides


class Points(NamedTuple):
    """Ellipses to stamp: centres x, y, half axes a, b (px), angle (rad) and strength (optical density)."""

    x: Values
    y: Values
    a: Values
    b: Values
    angle: Values
    strength: Values


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> Field:
    """Smooth Gaussian noise, float32 `shape`, about zero mean and unit deviation, features of `scale` px."""
    height, width = shape
    coarse = rng.standard_normal((int(height / scale) + 4, int(width / scale) + 4)).astype(np.float32)
    box = (1.0, 1.0, 1.0 + width / scale, 1.0 + height / scale)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC, box=box)
    return np.asarray(image, dtype=np.float32) * np.float32(1.25)


def scatter(rng: np.random.Generator, density: Field, spacing: float) -> tuple[Field, Field]:
    """Points on a jittered lattice of `spacing` px, each kept with the probability `density` at its place."""
    height, width = density.shape
    y, x = np.mgrid[0 : height / spacing, 0 : width / spacing].astype(np.float32)
    x = ((x + rng.uniform(0.02, 0.98, x.shape)) * spacing).astype(np.float32).ravel()
    y = ((y + rng.uniform(0.02, 0.98, y.shape)) * spacing).astype(np.float32).ravel()
    inside = (x < width - 0.5) & (y < height - 0.5)
    x, y = x[inside], y[inside]
    keep = rng.random(len(x)) < density[y.astype(int), x.astype(int)]
    return x[keep], y[keep]


def stamp(canvas: Field, points: Points) -> None:
    """Raise `canvas` to each point's strength inside its soft-edged ellipse, in place."""
    reach = np.ceil(np.maximum(points.a, points.b) + 0.5).astype(int)
    # Windows of similar size together: one large duct must not widen the window of every nucleus.
    size_class = np.ceil(2 * np.log2(reach))
    for size in np.unique(size_class):
        group = np.flatnonzero(size_class == size)
        extent = int(reach[group].max())
        offset = np.arange(-extent, extent + 1)
        dy, dx = (grid.ravel() for grid in np.meshgrid(offset, offset, indexing="ij"))
        block = max(1, _STAMP_BLOCK // len(dx))
        for start in range(0, len(group), block):
            _stamp_block(canvas, Points(*(c[group[start : start + block], None] for c in points)), dy, dx)


def _stamp_block(canvas: Field, p: Points, dy: NDArray, dx: NDArray) -> None:
    column, row = np.floor(p.x).astype(int) + dx, np.floor(p.y).astype(int) + dy
    u, v = (column + 0.5 - p.x).astype(np.float32), (row + 0.5 - p.y).astype(np.float32)
    cos, sin = np.cos(p.angle).astype(np.float32), np.sin(p.angle).astype(np.float32)
    major, minor = (u * cos + v * sin) / p.a.astype(np.float32), (v * cos - u * sin) / p.b.astype(np.float32)
    depth = (1 - np.sqrt(major * major + minor * minor)) * np.minimum(p.a, p.b).astype(np.float32)
    value = p.strength.astype(np.float32) * np.clip(depth + 0.5, 0, 1)
    seen = (value > 0) & (row >= 0) & (row < canvas.shape[0]) & (column >= 0) & (column < canvas.shape[1])
    np.maximum.at(canvas, (row[seen], column[seen]), value[seen])


def nuclei(
    rng: np.random.Generator,
    x: Field,
    y: Field,
    *,
    radius: float,
    spread: float,
    stretch: float,
    strength: float,
) -> Points:
    """Nuclei at (x, y): log-normal size of `spread`, axis ratio up to `stretch`, any direction."""
    size = radius * np.exp(spread * rng.standard_normal(len(x)))
    ratio = np.sqrt(rng.uniform(1, stretch, len(x)))
    tone = strength * np.exp(0.8 * spread * rng.standard_normal(len(x)))
    return Points(x, y, size * ratio, size / ratio, rng.uniform(0, np.pi, len(x)), tone)

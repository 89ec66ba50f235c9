"""Draw one virtual H&E slide: optical-density canvases of hematoxylin and eosin, then RGB.

The scale is that of the archive, about 4 um a pixel: a lymphocyte is 2 px wide, a carcinoma nucleus 2-5 px,
a fat cell about 15 px. A slide is drawn whole and cut afterwards, so neighbours continue each other.
Everything is a simplification meant for demonstrations and tests; nothing here is a model of disease.

Sources: Beer-Lambert stain mixing after Ruifrok & Johnston 2001, with the reference stain vectors of
Macenko et al. 2009; cellular (Voronoi) noise after Worley 1996.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from ductal.data.synthetic_cells import Field, Points, nuclei, scatter, smooth_noise, stamp

Mask = NDArray[np.bool_]

TILE = 50
_HEMATOXYLIN = np.array([0.5626, 0.7201, 0.4062])
_EOSIN = np.array([0.1300, 0.8300, 0.5400])


class Slide(NamedTuple):
    """A drawn slide: `pixels` (H, W, 3); `tiles` (n, 2) column and row; `labels` (n,), IDC = 1."""

    pixels: NDArray[np.uint8]
    tiles: NDArray[np.int64]
    labels: NDArray[np.int8]


@dataclass(frozen=True)
class _Ground:
    """What lies where on the slide, before any stain."""

    tissue: Field  # 0..1, soft edge
    tumour: Mask
    along: Field  # fibre coordinate, px: grows along the collagen fibres
    across: Field  # fibre coordinate, px: grows across them


def draw_slide(rng: np.random.Generator, n_tiles: int, positive_share: float) -> Slide:
    """Draw one slide with `n_tiles` tissue tiles, of which about `positive_share` are carcinoma."""
    tiles, tissue = _outline(rng, n_tiles)
    tumour, labels = _tumour(rng, tissue.shape, tiles, positive_share)
    angle = rng.uniform(0, np.pi)
    y, x = np.mgrid[0 : tissue.shape[0], 0 : tissue.shape[1]].astype(np.float32)
    bend = 22 * smooth_noise(rng, tissue.shape, 80) + 2.5 * smooth_noise(rng, tissue.shape, 16)
    ground = _Ground(
        tissue,
        tumour,
        along=(x * np.cos(angle) + y * np.sin(angle)).astype(np.float32),
        across=(-x * np.sin(angle) + y * np.cos(angle) + bend).astype(np.float32),
    )
    hematoxylin, eosin = _stroma(rng, ground)
    _glands(rng, ground, hematoxylin, eosin)
    _lymphocytes(rng, ground, hematoxylin)
    _carcinoma(rng, ground, hematoxylin, eosin)
    _fat(rng, ground, hematoxylin, eosin)
    return Slide(_develop(rng, tissue, hematoxylin, eosin), tiles, labels)


def _outline(rng: np.random.Generator, n_tiles: int) -> tuple[NDArray[np.int64], Field]:
    """Choose `n_tiles` tiles of an irregular, roughly elliptic piece of tissue, and its soft pixel mask."""
    aspect = rng.uniform(0.7, 1.4)
    columns = int(np.ceil(np.sqrt(1.4 * n_tiles * aspect)))
    rows = int(np.ceil(1.4 * n_tiles / columns))
    shape = (rows * TILE, columns * TILE)
    v = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
    u = np.linspace(-1, 1, shape[1], dtype=np.float32)[None, :]
    field = -(np.abs(u) ** 2.5 + np.abs(v) ** 2.5) + 0.22 * smooth_noise(rng, shape, 0.3 * min(shape))
    score = _by_tile(field).mean(axis=2)
    order = np.argsort(-score, axis=None, kind="stable")[:n_tiles]
    row, column = np.unravel_index(np.sort(order), score.shape)
    cut = score.ravel()[order[-1]]
    ragged = 0.05 * smooth_noise(rng, shape, 12) + 0.02 * smooth_noise(rng, shape, 4)
    # The margin keeps tissue in every chosen tile: archives hold no empty patches.
    tissue = ndimage.gaussian_filter((field + ragged > cut - 0.04).astype(np.float32), 0.7)
    return np.stack([column, row], axis=1).astype(np.int64), tissue


def _by_tile(field: NDArray) -> NDArray:
    """View a (rows*50, columns*50) field as (rows, columns, 2500)."""
    rows, columns = field.shape[0] // TILE, field.shape[1] // TILE
    return field.reshape(rows, TILE, columns, TILE).swapaxes(1, 2).reshape(rows, columns, TILE * TILE)


def _tumour(
    rng: np.random.Generator, shape: tuple[int, ...], tiles: NDArray[np.int64], share: float
) -> tuple[Mask, NDArray[np.int8]]:
    """Place contiguous carcinoma; label tiles at least half covered by it, with noise at its border."""
    field = smooth_noise(rng, shape, max(90.0, 0.3 * min(shape))) + 0.15 * smooth_noise(rng, shape, 22)
    # A tile is half covered exactly when the median of the field passes the cut.
    median = np.median(_by_tile(field), axis=2)[tiles[:, 1], tiles[:, 0]]
    positives = int(np.clip(round(share * len(tiles)), 1, len(tiles) - 1))
    ranked = np.sort(median)[::-1]
    tumour = field > (ranked[positives - 1] + ranked[positives]) / 2
    covered = _by_tile(tumour).mean(axis=2)[tiles[:, 1], tiles[:, 0]]
    border = np.flatnonzero((covered > 0.2) & (covered < 0.8))
    wrong = border[rng.random(len(border)) < min(0.3, 0.02 * len(tiles) / max(len(border), 1))]
    labels = (covered >= 0.5).astype(np.int8)
    noisy = labels.copy()
    noisy[wrong] = 1 - noisy[wrong]
    return tumour, noisy if 0 < noisy.sum() < len(noisy) else labels


def _fibres(rng: np.random.Generator, ground: _Ground, width: float, length: float) -> Field:
    """Noise drawn out along the fibres: features `width` px across and `length` px along."""
    grain = np.pad(rng.standard_normal((256, 64)).astype(np.float32), 2, mode="wrap")
    image = Image.fromarray(grain).resize((256, 1024), Image.Resampling.BICUBIC, box=(2, 2, 66, 258))
    row = np.floor(ground.across * (4 / width)).astype(np.int32) & 1023
    column = np.floor(ground.along * (4 / length)).astype(np.int32) & 255
    return np.asarray(image, dtype=np.float32)[row, column]


def _stroma(rng: np.random.Generator, ground: _Ground) -> tuple[Field, Field]:
    """Collagen with its fibres, clefts and fibroblasts: the first hematoxylin and eosin canvases."""
    shape = ground.tissue.shape
    fine, coarse = _fibres(rng, ground, 1.6, 14), _fibres(rng, ground, 5, 40)
    patchy = smooth_noise(rng, shape, 60)
    eosin = 0.62 + 0.11 * fine + 0.09 * coarse + 0.10 * patchy
    eosin *= 1 - 0.75 * np.clip(coarse + 0.8 * fine - rng.uniform(1.6, 2.2), 0, 1)
    hematoxylin = 0.06 + 0.03 * patchy + 0.02 * fine
    cellular = np.clip(0.28 + 0.22 * smooth_noise(rng, shape, 50), 0.02, 0.9) * rng.uniform(0.5, 1.3)
    x, y = scatter(rng, (cellular * (1 + 0.4 * ground.tumour)).astype(np.float32), 5.0)
    slope_y, slope_x = np.gradient(ground.across, axis=0), np.gradient(ground.across, axis=1)
    row, column = y.astype(int), x.astype(int)
    direction = np.arctan2(-slope_x[row, column], slope_y[row, column])
    direction += rng.normal(0, 0.25, len(x))
    half = rng.uniform(1.0, 2.2, len(x))
    stamp(hematoxylin, Points(x, y, half, 0.6 + 0 * half, direction, rng.uniform(0.45, 1.0, len(x))))
    return hematoxylin.astype(np.float32), np.maximum(eosin, 0.04).astype(np.float32)


def _glands(rng: np.random.Generator, ground: _Ground, hematoxylin: Field, eosin: Field) -> None:
    """Benign ducts and lobules: round lumina in even rings of small nuclei, some filled; not in carcinoma."""
    region = (smooth_noise(rng, ground.tissue.shape, 45) > rng.uniform(0.3, 1.2)) & ~ground.tumour
    cx, cy = scatter(rng, np.where(region, np.float32(0.75), np.float32(0.012)), 9.0)
    outside = ~ground.tumour[cy.astype(int), cx.astype(int)]
    cx, cy = cx[outside], cy[outside]
    radius = np.where(rng.random(len(cx)) < 0.15, rng.uniform(6, 11, len(cx)), rng.uniform(2.0, 3.8, len(cx)))
    ratio = np.sqrt(rng.uniform(1, 1.5, len(cx)))
    a, b, turn = radius * ratio, radius / ratio, rng.uniform(0, np.pi, len(cx))
    open_lumen = rng.random(len(cx)) < 0.7
    shade = np.zeros_like(eosin)
    stamp(shade, Points(cx, cy, a + 2.5, b + 2.5, turn, np.ones_like(a)))
    eosin *= 1 - 0.35 * shade
    hematoxylin *= 1 - 0.8 * shade
    hematoxylin += 0.12 * shade
    layers = np.where(rng.random(len(cx)) < 0.6, 2, 1)
    for layer in (0, 1):
        used = layers > layer
        _ring(
            rng, hematoxylin, (cx[used], cy[used], a[used] + 1.7 * layer, b[used] + 1.7 * layer, turn[used])
        )
    clear = np.zeros_like(eosin)
    inner = np.maximum(np.minimum(a, b) - 1.2, 0.5) / np.minimum(a, b)
    stamp(clear, Points(cx, cy, a * inner, b * inner, turn, open_lumen * rng.uniform(0.5, 1.0, len(cx))))
    eosin *= 1 - clear
    hematoxylin *= 1 - clear
    filled = np.zeros_like(eosin)
    stamp(filled, Points(cx, cy, a, b, turn, 0.95 * ~open_lumen))
    x, y = scatter(rng, filled, 2.3)
    stamp(
        hematoxylin, nuclei(rng, x, y, radius=0.9, spread=0.08, stretch=1.2, strength=rng.uniform(0.8, 1.05))
    )


def _ring(rng: np.random.Generator, canvas: Field, rings: tuple[NDArray, ...]) -> None:
    """Stamp evenly spaced small nuclei, pointing outwards, along each ellipse (x, y, a, b, turn)."""
    count = np.maximum(5, np.round(np.pi * (rings[2] + rings[3]) / 2.1)).astype(int)
    cx, cy, a, b, turn = (np.repeat(column, count) for column in rings)
    index = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    phase = 2 * np.pi * (index + rng.normal(0, 0.12, len(index))) / np.repeat(count, count)
    u, v = a * np.cos(phase), b * np.sin(phase)
    x, y = cx + u * np.cos(turn) - v * np.sin(turn), cy + u * np.sin(turn) + v * np.cos(turn)
    tone = rng.uniform(0.8, 1.1, len(x))
    stamp(canvas, Points(x, y, 1.1 + 0 * x, 0.75 + 0 * x, np.arctan2(y - cy, x - cx), tone))


def _lymphocytes(rng: np.random.Generator, ground: _Ground, hematoxylin: Field) -> None:
    """Dense aggregates of small, round, dark nuclei; mostly benign tissue, so that dark is not malignant."""
    field = smooth_noise(rng, ground.tissue.shape, 38) - 0.9 * ground.tumour
    density = np.clip((field - rng.uniform(0.35, 1.5)) * 2.0, 0.008, 0.9)
    x, y = scatter(rng, density.astype(np.float32), 2.3)
    stamp(
        hematoxylin,
        nuclei(rng, x, y, radius=0.88, spread=0.07, stretch=1.12, strength=rng.uniform(0.85, 1.1)),
    )


def _carcinoma(rng: np.random.Generator, ground: _Ground, hematoxylin: Field, eosin: Field) -> None:
    """Nests, cords or sheets of large, uneven, crowded nuclei in pale desmoplastic stroma."""
    shape = ground.tissue.shape
    corded = rng.uniform(0, 0.9)
    nests = (1 - corded) * smooth_noise(rng, shape, rng.uniform(5, 10)) + corded * _fibres(rng, ground, 5, 25)
    nests += 0.4 * smooth_noise(rng, shape, 70)
    nested = (nests > rng.uniform(-0.6, 0.6)) & ground.tumour
    inside = ndimage.gaussian_filter(nested.astype(np.float32), 0.6)
    soft = ndimage.gaussian_filter(ground.tumour.astype(np.float32), 4)
    eosin *= 1 - 0.06 * soft - 0.18 * inside
    hematoxylin *= 1 - 0.6 * inside
    hematoxylin += 0.03 * soft + 0.08 * inside
    x, y = scatter(rng, (0.85 * inside).astype(np.float32), rng.uniform(2.9, 3.7))
    kind = {"radius": rng.uniform(1.2, 1.6), "spread": rng.uniform(0.2, 0.3), "stretch": 2.2}
    stamp(hematoxylin, nuclei(rng, x, y, strength=rng.uniform(0.8, 1.05), **kind))


def _fat(rng: np.random.Generator, ground: _Ground, hematoxylin: Field, eosin: Field) -> None:
    """Fat cells: empty Voronoi cells with thin walls, in groups and singly; cleared in place."""
    shape, spacing = ground.tissue.shape, rng.uniform(12, 16)
    rows, columns = int(shape[0] / spacing) + 3, int(shape[1] / spacing) + 3
    jitter = rng.uniform(0.1, 0.9, (2, rows, columns)).astype(np.float32)
    field = smooth_noise(rng, shape, 80) - 0.6 * ground.tumour
    centre_y = ((np.arange(rows)[:, None] - 1 + jitter[0]) * spacing).astype(np.float32)
    centre_x = ((np.arange(columns)[None, :] - 1 + jitter[1]) * spacing).astype(np.float32)
    at = np.clip(centre_y, 0, shape[0] - 1).astype(int), np.clip(centre_x, 0, shape[1] - 1).astype(int)
    empty = field[at] + 0.35 * rng.standard_normal((rows, columns)) > rng.uniform(0.4, 1.4)
    y, x = np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)[None, :]
    own = (y / spacing).astype(np.int32) * columns + (x / spacing).astype(np.int32)
    first = np.full(shape, np.inf, np.float32)
    second, nearest = first.copy(), np.zeros(shape, np.int32)
    for step in (dy * columns + dx for dy in range(3) for dx in range(3)):
        cell = own + step
        distance = (y - centre_y.ravel()[cell]) ** 2 + (x - centre_x.ravel()[cell]) ** 2
        second = np.minimum(second, np.maximum(first, distance))
        nearest = np.where(distance < first, cell, nearest)
        first = np.minimum(first, distance)
    first, second = np.sqrt(first), np.sqrt(second)
    wall = np.clip(second - first - 0.8, 0, 1) * np.clip(0.6 * spacing - first, 0, 1)
    kept = 1 - 0.97 * wall * empty.ravel()[nearest]
    eosin *= kept
    hematoxylin *= kept


def _develop(rng: np.random.Generator, tissue: Field, hematoxylin: Field, eosin: Field) -> NDArray[np.uint8]:
    """Stain, section thickness, optics and scanner of one patient: densities to RGB, uint8 (H, W, 3)."""
    thickness = tissue * np.exp(0.06 * smooth_noise(rng, tissue.shape, 120))
    strengths = np.exp(rng.normal(0, 0.2, 2)) * (1.45, 0.95)
    vectors = np.stack([_HEMATOXYLIN, _EOSIN]) * np.exp(rng.normal(0, 0.06, (2, 3)))
    vectors *= (strengths / np.linalg.norm(vectors, axis=1))[:, None]
    density_h = ndimage.gaussian_filter(hematoxylin * thickness, 0.45)
    density_e = ndimage.gaussian_filter(eosin * thickness, 0.45)
    white = rng.uniform(238, 248) + rng.normal(0, 1.5, 3)
    pixels = np.empty((*tissue.shape, 3), np.uint8)
    for channel in range(3):
        density = density_h * np.float32(vectors[0, channel]) + density_e * np.float32(vectors[1, channel])
        grain = 1.5 * rng.standard_normal(tissue.shape, dtype=np.float32)
        pixels[..., channel] = np.clip(np.float32(white[channel]) * np.exp(-density) + grain + 0.5, 0, 255)
    return pixels

"""What is tissue, and which tiles a network must not judge: glass, pen, folds, tiles out of focus.

Every rule is a comparison of optical densities, natural logarithm of glass over pixel. Densities are whole numbers in
thousandths of one, looked up by pixel value, which is exact enough and several times faster than logarithms.
The order is that of `Gate`; the first rule that holds decides. The limits were set on patches of the IDC archive, so
that they hold for hardly any (docs/slides.md), and on drawn examples of what they are for.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
from scipy import ndimage

# Glass and tissue
GLASS_BRIGHTNESS, GLASS_CHROMA = 200, 20  # a pixel of glass is this bright in every channel, and this close to grey
GLASS_LEAST = 0.005  # share of an overview that must be glass for its colour to be taken from there
DEFAULT_GLASS = 243.0
TISSUE_DENSITY = 100  # thousandths, mean of the channels: a pixel 10 % darker than glass
FAINT_DENSITY = 50  # in the overview, where thin tissue is averaged with the glass around it
TISSUE_SHARE = 0.10  # of a tile's pixels; fat is mostly empty
# Pen
INK_SHARE = 0.25
INK_DENSITY = 250  # thinner, ink cannot be told from stain
BLACK_BRIGHTNESS, BLACK_CHROMA = 90, 25
# Folds
FOLD_SHARE = 0.20
FOLD_CELL = 5  # px: a fold is wider than 20 um, a nucleus is not
FOLD_RATIO, FOLD_DENSITY = 2.2, 1150  # times the slide's median tissue; and at least
# Focus
BLUR_RATIO = 0.20  # of `focus`; a blur of 1 px (4 um) and more falls below

_ROWS_AT_ONCE = 64  # tiles worked on at a time, so that they stay in the processor's cache


class Gate(IntEnum):
    """Why a tile is not judged; `tissue` is judged."""

    tissue = 0
    glass = 1
    pen = 2
    fold = 3
    blur = 4


@dataclass(frozen=True)
class Stain:
    """What glass and tissue look like on one slide.

    Attributes:
        glass: colour of empty glass, RGB.
        density: median density of tissue, thousandths; 0 where there is none.
    """

    glass: tuple[float, float, float]
    density: float

    @classmethod
    def of(cls, overview: np.ndarray) -> Stain:
        """From a picture of the whole slide, uint8 RGB (h, w, 3)."""
        low, high = overview.min(axis=2), overview.max(axis=2)
        empty = (low >= GLASS_BRIGHTNESS) & (high - low <= GLASS_CHROMA)
        glass = (DEFAULT_GLASS,) * 3
        if empty.mean() >= GLASS_LEAST:
            red, green, blue = np.median(overview[empty], axis=0)
            glass = (float(red), float(green), float(blue))
        density = _sum(densities(overview, glass)) / 3
        tissue = density[density >= TISSUE_DENSITY]
        return cls(glass, float(np.median(tissue)) if len(tissue) else 0.0)


def densities(pixels: np.ndarray, glass: tuple[float, float, float]) -> np.ndarray:
    """Optical densities in thousandths, int16 (3, ...), never negative, of uint8 RGB (..., 3)."""
    found = np.empty((3, *pixels.shape[:-1]), np.int16)
    for channel, bright in enumerate(glass):
        np.take(_table(bright), pixels[..., channel], out=found[channel], mode="clip")  # the other modes need a copy
    return found


@lru_cache(maxsize=64)
def _table(bright: float) -> np.ndarray:
    """Density of each pixel value, int16 (256,), where glass has the value `bright`."""
    return np.maximum(0, np.round(-1000 * np.log((np.arange(256) + 1.0) / (bright + 1.0)))).astype(np.int16)


def _sum(density: np.ndarray) -> np.ndarray:
    """Of the three channels, still int16: at most 16,635."""
    return density[0] + density[1] + density[2]


def may_hold_tissue(overview: np.ndarray, stain: Stain, edges: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Tiles that are not plainly empty in the overview, bool (rows, columns).

    Args:
        overview: uint8 RGB (h, w, 3).
        stain: of this slide.
        edges: of the tiles' rows, float (rows + 1,), and columns, float (columns + 1,), in pixels of the overview.
    """
    faint = _sum(densities(overview, stain.glass)) >= 3 * FAINT_DENSITY
    # One pixel around, since a pixel of the overview may lie on the border of two tiles.
    faint = ndimage.binary_dilation(faint, np.ones((3, 3), bool))
    counts = np.pad(faint.cumsum(axis=0, dtype=np.int64).cumsum(axis=1), ((1, 0), (1, 0)))
    (top, bottom), (left, right) = (_whole(edge, size) for edge, size in zip(edges, faint.shape, strict=True))
    inside = counts[bottom][:, right] - counts[top][:, right] - counts[bottom][:, left] + counts[top][:, left]
    return inside > 0


def _whole(edges: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """First and one past the last pixel of each interval, at least one pixel."""
    first = np.clip(np.floor(edges[:-1]).astype(np.int64), 0, size - 1)
    return first, np.clip(np.ceil(edges[1:]).astype(np.int64), first + 1, size)


def gate_tiles(tiles: np.ndarray, stain: Stain) -> tuple[np.ndarray, np.ndarray]:
    """Which tiles may be judged.

    Args:
        tiles: uint8 RGB (n, 50, 50, 3) at the model's spacing, so that focus means what the model sees.
        stain: of the slide they are from.

    Returns:
        Values of `Gate`, uint8 (n,); share of each tile's area that is tissue, float32 (n,).
    """
    gates, shares = np.empty(len(tiles), np.uint8), np.empty(len(tiles), np.float32)
    for start in range(0, len(tiles), _ROWS_AT_ONCE):
        part = slice(start, min(start + _ROWS_AT_ONCE, len(tiles)))
        gates[part], shares[part] = _gate(tiles[part], stain)
    return gates, shares


def _gate(tiles: np.ndarray, stain: Stain) -> tuple[np.ndarray, np.ndarray]:
    density = densities(tiles, stain.glass)
    total = _sum(density)
    share = (total >= 3 * TISSUE_DENSITY).mean(axis=(1, 2), dtype=np.float32)
    gates = np.full(len(tiles), Gate.glass, np.uint8)
    rows = np.flatnonzero(share >= TISSUE_SHARE)
    if not len(rows):
        return gates, share
    if len(rows) < len(tiles):
        tiles, density, total = tiles[rows], density[:, rows], total[rows]
    found = np.full(len(rows), Gate.tissue, np.uint8)
    found[focus(total) < BLUR_RATIO] = Gate.blur
    found[_fold_share(total, stain) >= FOLD_SHARE] = Gate.fold
    found[ink(tiles, density, total).mean(axis=(1, 2)) >= INK_SHARE] = Gate.pen
    gates[rows] = found
    return gates, share


def ink(tiles: np.ndarray, density: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Pixels in colours that haematoxylin and eosin cannot mix, bool (n, h, w).

    Both stains absorb green most. Blue and green ink absorb red more than green; red ink absorbs almost no red, and
    nearly as much blue as green (as does blood that fills a tile, which is no tumour either); black ink is dark grey.

    Args:
        tiles: uint8 RGB (n, h, w, 3).
        density: of the three channels, int16 (3, n, h, w), thousandths.
        total: their sum, int16 (n, h, w).
    """
    red, green, blue = density
    blue_or_green = 4 * red > 5 * green  # no overflow: densities are at most 5545
    red_ink = (4 * red < green) & (4 * blue > 3 * green) & (green > 1000)
    found = (total >= 3 * INK_DENSITY) & (blue_or_green | red_ink)
    dark = total > 2400
    if dark.any():
        some = tiles[dark].astype(np.int16)
        brightest, darkest = some.max(axis=-1), some.min(axis=-1)
        found[dark] |= (brightest < BLACK_BRIGHTNESS) & (brightest - darkest < BLACK_CHROMA)
    return found


def focus(total: np.ndarray) -> np.ndarray:
    """How sharp tiles are, float32 (n,): 1 for unrelated neighbours, 1/3 for one sharp edge, 1/9 for a smooth slope.

    The mean square of differences between pixels next to each other, over that between pixels 3 apart. It does not
    depend on the strength of the stain, nor on how much of a tile is empty.

    Args:
        total: density, int16 (n, h, w).
    """
    value = total.astype(np.float32)
    near, far = (
        np.square(value[:, step:] - value[:, :-step]).mean(axis=(1, 2))
        + np.square(value[:, :, step:] - value[:, :, :-step]).mean(axis=(1, 2))
        for step in (1, 3)
    )
    return (near / np.maximum(far, 1e-6)).astype(np.float32)


def _fold_share(total: np.ndarray, stain: Stain) -> np.ndarray:
    """Share of each tile's cells of 5 x 5 px that are as dense as tissue that lies double."""
    n, height, width = total.shape
    cells = total.reshape(n, height // FOLD_CELL, FOLD_CELL, width // FOLD_CELL, FOLD_CELL).mean(axis=(2, 4))
    limit = max(FOLD_RATIO * stain.density, FOLD_DENSITY)
    return (cells >= 3 * limit).mean(axis=(1, 2))

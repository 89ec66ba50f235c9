"""Find patches that are copies of each other in all but the bytes: re-encoded, brightened, flipped, turned.

The search is exhaustive: every patch of one side is compared with every patch of the other, in all eight
orientations. Two steps make that fast. A pair is a candidate when the cosine of its thumbnails (10 x 10
area means of grey, mean removed, unit length) reaches `THUMBNAIL_COSINE`; it is a duplicate when its detail
then correlates at two scales, which tissue of two patients does not (figures in docs/splits.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

MIN_GREY_STD = 8.0  # grey levels; below it there is no structure to compare
THUMBNAIL_COSINE = 0.98
MIDDLE_CORRELATION = 0.90  # of 2 x 2 px means, less their 10 x 10 px means
FINE_CORRELATION = 0.70  # of pixels, less their 5 x 5 px means

_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
_SIDE = 10
_QUERIES, _TARGETS, _CHUNK = 1024, 4096, 2048
# Two unit vectors with cosine >= c are at most this far apart; so are their products with any unit vector.
_REACH = float(np.sqrt(2 * (1 - THUMBNAIL_COSINE))) + 1e-4
_RAMP = (np.arange(_SIDE) - (_SIDE - 1) / 2).astype(np.float32)
_RAMP /= np.sqrt((_RAMP**2).sum() * _SIDE)


class Thumbnails(NamedTuple):
    """Unit-length grey thumbnails of the textured rows: `rows` int64 (n,), `images` float32 (n, 10, 10)."""

    rows: np.ndarray
    images: np.ndarray

    def of(self, mask: np.ndarray) -> Thumbnails:
        """Those whose row is true in `mask`, bool (N,)."""
        keep = mask[self.rows]
        return Thumbnails(self.rows[keep], self.images[keep])


def thumbnails(pixels: np.ndarray, rows: np.ndarray) -> Thumbnails:
    """Thumbnails of those of `rows` (ascending, int64) in `pixels` (uint8, (N, 50, 50, 3)) that are textured.

    Textured: the standard deviation of grey is at least `MIN_GREY_STD`.
    """
    kept, images = [np.empty(0, np.int64)], [np.empty((0, _SIDE, _SIDE), np.float32)]
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        grey = _grey(pixels, chunk)
        textured = grey.std(axis=(1, 2)) >= MIN_GREY_STD
        small = _area_means(grey[textured], _SIDE)
        small -= small.mean(axis=(1, 2), keepdims=True)
        length = np.sqrt((small**2).sum(axis=(1, 2), keepdims=True))
        kept.append(chunk[textured])
        images.append(small / np.maximum(length, 1e-6))
    return Thumbnails(np.concatenate(kept), np.concatenate(images))


def near_duplicates(
    pixels: np.ndarray,
    left: Thumbnails,
    right: Thumbnails,
    progress: Callable[[int, int], None] | None = None,
) -> list[tuple[int, int]]:
    """All pairs (row of `left`, row of `right`) that show the same tissue, sorted; see the module.

    `progress` is called with (blocks done, blocks in all).
    """
    if len(left.rows) > len(right.rows):
        return sorted((a, b) for b, a in near_duplicates(pixels, right, left, progress))
    found: set[tuple[int, int]] = set()
    for a, turn_a, b, turn_b in _candidates(left, right, progress):
        for start in range(0, len(a), _CHUNK):
            part = slice(start, start + _CHUNK)
            first = _turned(_grey(pixels, a[part]), turn_a[part])
            second = _turned(_grey(pixels, b[part]), turn_b[part])
            same = _same_detail(first, second)
            found.update(zip(a[part][same].tolist(), b[part][same].tolist(), strict=True))
    return sorted(found)


def _candidates(
    left: Thumbnails, right: Thumbnails, progress: Callable[[int, int], None] | None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Blocks of candidates: left rows, their orientations, right rows, their orientations.

    Each patch of the right is stored in its canonical orientation only: grey rises along x, and along y,
    and more along x. What matches it has nearly that orientation (within `_REACH`), so of the eight
    orientations of a left patch only those can match, about three; and its slope along x, by which both
    sides are sorted, differs by no more than `_REACH`.
    """
    margins = np.stack([_margin(turned) for turned in _eight(right.images)])
    canonical = margins.argmax(axis=0)
    targets = _turned(right.images, canonical)
    order = np.argsort(_slope(targets))
    target_rows, target_turns = right.rows[order], canonical[order]
    targets = targets[order].reshape(-1, _SIDE * _SIDE)
    slopes = _slope(targets.reshape(-1, _SIDE, _SIDE))

    possible = [np.flatnonzero(_margin(turned) >= -_REACH) for turned in _eight(left.images)]
    which = np.concatenate(possible)
    turns = np.repeat(np.arange(8), [len(rows) for rows in possible])
    query_slopes = np.concatenate(
        [_slope(turned[rows]) for turned, rows in zip(_eight(left.images), possible, strict=True)]
    )
    order = np.argsort(query_slopes)
    which, turns, query_slopes = which[order], turns[order], query_slopes[order]

    blocks = range(0, len(which), _QUERIES)
    for done, start in enumerate(blocks, start=1):
        block = slice(start, start + _QUERIES)
        queries = _turned(left.images[which[block]], turns[block]).reshape(-1, _SIDE * _SIDE)
        low = np.searchsorted(slopes, query_slopes[block][0] - _REACH)
        high = np.searchsorted(slopes, query_slopes[block][-1] + _REACH, side="right")
        for at in range(low, high, _TARGETS):
            cosine = queries @ targets[at : min(at + _TARGETS, high)].T
            if cosine.max() >= THUMBNAIL_COSINE:
                i, j = np.nonzero(cosine >= THUMBNAIL_COSINE)
                yield left.rows[which[block][i]], turns[block][i], target_rows[at + j], target_turns[at + j]
        if progress is not None:
            progress(done, len(blocks))


def _same_detail(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Whether the detail of grey images (n, 50, 50), which the thumbnails do not show, agrees: bool (n,)."""
    middle = _correlation(_detail(_area_means(first, 25), 5), _detail(_area_means(second, 25), 5))
    fine = _correlation(_detail(first, 10), _detail(second, 10))
    return (middle >= MIDDLE_CORRELATION) & (fine >= FINE_CORRELATION)


def _detail(images: np.ndarray, cells: int) -> np.ndarray:
    """The images less the means of their `cells` x `cells` cells."""
    size = images.shape[1] // cells
    return images - _area_means(images, cells).repeat(size, axis=1).repeat(size, axis=2)


def _correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    power = (first**2).sum(axis=(1, 2)) * (second**2).sum(axis=(1, 2))
    return (first * second).sum(axis=(1, 2)) / np.sqrt(np.maximum(power, 1e-12))


def _grey(pixels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return pixels[rows].astype(np.float32) @ _GREY


def _area_means(images: np.ndarray, side: int) -> np.ndarray:
    size = images.shape[1] // side
    return images.reshape(-1, side, size, side, size).mean(axis=(2, 4))


def _eight(images: np.ndarray) -> Iterator[np.ndarray]:
    """The images (n, s, s) in the eight orientations of a square; number k is turned k // 2 times, then
    mirrored if k is odd.
    """
    for turn in range(8):
        turned = np.rot90(images, turn // 2, axes=(1, 2))
        yield turned[:, :, ::-1] if turn % 2 else turned


def _turned(images: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Each image (n, s, s) in its own one of the eight orientations, `turns` (n,)."""
    out = np.empty_like(images)
    for turn in np.unique(turns):
        here = turns == turn
        rotated = np.rot90(images[here], turn // 2, axes=(1, 2))
        out[here] = rotated[:, :, ::-1] if turn % 2 else rotated
    return out


def _slope(images: np.ndarray) -> np.ndarray:
    """Product with a unit ramp along x, (n,)."""
    return images.sum(axis=1) @ _RAMP


def _margin(images: np.ndarray) -> np.ndarray:
    """How far thumbnails are inside the canonical orientation, (n,); negative: outside.

    Divided so that two thumbnails at distance d have margins that differ by d at most.
    """
    along_x, along_y = _slope(images), images.sum(axis=2) @ _RAMP
    return np.minimum(np.minimum(along_x, along_y), (along_x - along_y) / np.sqrt(2))

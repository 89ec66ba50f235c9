"""Where the tiles of a slide lie, and how they are read: large rectangles, ahead of the network, in full batches."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ductal.inference.predictor import PATCH_SHAPE
from ductal.machine import available_cores
from ductal.slides.reader import Box, Slide

TILE = PATCH_SHAPE[0]
# Side of what is read at once, in pixels of the level: 36 MB decoded, whatever the slide's size.
LARGEST_BLOCK_PX = 3072

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Tiling:
    """Tiles of 50 x 50 px at the model's spacing, side by side from the slide's upper left corner.

    Attributes:
        slide: what is tiled.
        spacing_um: um per pixel of the model.
    """

    slide: Slide
    spacing_um: float

    @property
    def side_px(self) -> float:
        """Side of a tile in full-resolution pixels, which need not be a whole number."""
        return TILE * self.spacing_um / self.slide.mpp

    @property
    def tile_um(self) -> float:
        """Side of a tile in um."""
        return TILE * self.spacing_um

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns); the last ones may reach over the edge, where they are white."""
        width, height = self.slide.size
        return (max(1, math.ceil(height / self.side_px - 1e-6)), max(1, math.ceil(width / self.side_px - 1e-6)))

    @property
    def level(self) -> int:
        """The pyramid's level that is read."""
        return self.slide.level_for(self.spacing_um)

    def boxes(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """x, y, width, height in full-resolution pixels, float64 (n, 4), cut off at the slide's edge."""
        width, height = self.slide.size
        left, top = columns * self.side_px, rows * self.side_px
        right, bottom = np.minimum(left + self.side_px, width), np.minimum(top + self.side_px, height)
        return np.stack([left, top, right - left, bottom - top], axis=1)

    def blocks(self, wanted: np.ndarray) -> list[tuple[int, int, int, int]]:
        """(top, left, bottom, right) in tiles: rectangles that hold all `wanted` ones, bool (rows, columns)."""
        level_px = self.side_px / self.slide.source.downsamples[self.level]
        step = max(1, int(LARGEST_BLOCK_PX / level_px))
        found = []
        for top in range(0, wanted.shape[0], step):
            for left in range(0, wanted.shape[1], step):
                part = wanted[top : top + step, left : left + step]
                if part.any():
                    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
                    upper, lower = int(rows[0]), int(rows[-1]) + 1
                    found.append((top + upper, left + int(columns[0]), top + lower, left + int(columns[-1]) + 1))
        return found

    def read(self, block: tuple[int, int, int, int]) -> np.ndarray:
        """The tiles of a block, uint8 (rows, columns, 50, 50, 3). Raises DataError where the file is damaged."""
        top, left, bottom, right = block
        rows, columns, side = bottom - top, right - left, self.side_px
        box = Box(left * side, top * side, columns * side, rows * side)
        pixels = self.slide.read(box, self.level, columns * TILE, rows * TILE)
        return pixels.reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2)


def read_ahead(work: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
    """`work` of each item in their order, done by threads while the caller is busy; a few results ahead, no more.

    Close the iterator (`contextlib.closing`) to stop the threads early.
    """
    threads = max(1, available_cores() // 2)
    ahead: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, "slide") as pool:
        try:
            for item in items:
                ahead.append(pool.submit(work, item))
                if len(ahead) > threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def in_chunks(parts: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Arrays (m, ...) of any lengths, joined and cut into arrays of `size` (the last may be shorter)."""
    held: list[np.ndarray] = []
    count = 0
    for part in parts:
        while len(part):
            taken, part = part[: size - count], part[size - count :]
            held.append(taken)
            count += len(taken)
            if count == size:
                yield np.concatenate(held)
                held, count = [], 0
    if held:
        yield np.concatenate(held)

"""From a slide to a probability, or a reason for none, for each of its tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit

from ductal.errors import DataError
from ductal.inference.predictor import PATCH_SHAPE, Predictor
from ductal.slides.grid import TileGrid
from ductal.slides.tiling import Tiling, in_chunks, read_ahead
from ductal.slides.tissue import Gate, Stain, gate_tiles, may_hold_tissue

# What may change calibrated logits, float32 (n,), knowing where the tiles lie; the same shape comes back.
Refine = Callable[[TileGrid, np.ndarray], np.ndarray]
Progress = Callable[[int, int], None]

BATCH = 64
CHUNK = 16 * BATCH  # tiles handed to the network at once, 8 MB


@dataclass(frozen=True)
class Judged:
    """What was found, all of shape (rows, columns) of the tiling.

    Attributes:
        gates: uint8, values of `Gate`.
        shares: float32, share of each tile's area that is tissue; 0 for glass.
        probs: float32, calibrated probability of IDC; nan for every gate but `tissue`.
    """

    gates: np.ndarray
    shares: np.ndarray
    probs: np.ndarray


class _Block(NamedTuple):
    """Gates and tissue shares of a rectangle of tiles, and the pixels of those to be judged."""

    place: tuple[slice, slice]
    gates: np.ndarray
    shares: np.ndarray
    tiles: np.ndarray


def unchanged(grid: TileGrid, logits: np.ndarray) -> np.ndarray:  # noqa: ARG001
    """The `Refine` of the track "patch-only"."""
    return logits


def judge(
    tiling: Tiling,
    overview: np.ndarray,
    predictor: Predictor,
    *,
    refine: Refine = unchanged,
    progress: Progress | None = None,
) -> Judged:
    """Gate every tile of a slide, and predict those that are tissue.

    Rectangles are read and gated by threads while the network runs; memory does not depend on the slide's size.

    Args:
        tiling: of an open slide.
        overview: uint8 RGB (h, w, 3) of the whole slide, where its empty parts are looked for.
        predictor: of the run.
        refine: sees all logits at once, before they become probabilities.
        progress: called with (tiles done, tiles in all); glass is not counted.

    Raises:
        DataError: the slide is damaged, or no tile can be judged.
    """
    stain = Stain.of(overview)
    rows, columns = tiling.shape
    width, height = tiling.slide.size
    edges = (
        np.arange(rows + 1) * tiling.side_px * overview.shape[0] / height,
        np.arange(columns + 1) * tiling.side_px * overview.shape[1] / width,
    )
    wanted = may_hold_tissue(overview, stain, edges)
    gates = np.full(tiling.shape, Gate.glass, np.uint8)
    shares = np.zeros(tiling.shape, np.float32)
    order: list[np.ndarray] = []  # places of the tiles, as they are predicted
    probs: list[np.ndarray] = []

    def tiles() -> Iterator[np.ndarray]:
        look = partial(_look_at, tiling, stain, wanted)
        with closing(read_ahead(look, tiling.blocks(wanted))) as found:
            for block in found:
                gates[block.place], shares[block.place] = block.gates, block.shares
                corner = [block.place[0].start, block.place[1].start]
                order.append(np.argwhere(block.gates == Gate.tissue) + corner)
                yield block.tiles

    predicted, total = 0, int(wanted.sum())
    for chunk in in_chunks(tiles(), CHUNK):
        probs.append(predictor.predict(chunk, batch_size=BATCH))
        predicted += len(chunk)
        if progress:
            gated = int(np.isin(gates[wanted], (Gate.pen, Gate.fold, Gate.blur)).sum())
            progress(min(predicted + gated, total), total)
    if not predicted:
        raise DataError(f"No tissue can be judged on {tiling.slide.path}: {_counted(gates)}. Is it an H&E slide?")
    if progress:
        progress(total, total)
    places = np.concatenate(order)
    grid = TileGrid(places[:, 1], places[:, 0], tiling.shape)
    refined = refine(grid, logit(np.concatenate(probs)).astype(np.float32))
    return Judged(gates, shares, grid.raster(expit(refined.astype(np.float64)).astype(np.float32)).astype(np.float32))


def _look_at(tiling: Tiling, stain: Stain, wanted: np.ndarray, block: tuple[int, int, int, int]) -> _Block:
    place = (slice(block[0], block[2]), slice(block[1], block[3]))
    here = wanted[place]
    pixels = tiling.read(block)[here]
    gates, shares = np.full(here.shape, Gate.glass, np.uint8), np.zeros(here.shape, np.float32)
    gates[here], shares[here] = gate_tiles(pixels, stain)
    tissue = gates[here] == Gate.tissue
    return _Block(place, gates, shares, pixels[tissue] if tissue.any() else np.empty((0, *PATCH_SHAPE), np.uint8))


def _counted(gates: np.ndarray) -> str:
    counts = {gate.name: int((gates == gate).sum()) for gate in Gate}
    return ", ".join(f"{count:,} tiles of {name}" for name, count in counts.items() if count)

"""Slides written for the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

MPP = 0.5  # of the slides here, at a model's spacing of 4: a tile has 400 px
SIDE = 400
COLUMNS, ROWS = 6, 5
SQUARE = [(2, 1), (3, 1), (2, 2), (3, 2)]  # (column, row) of the tiles that are tumour
TISSUE = [(column, row) for column in range(1, 5) for row in range(1, 4)]


def tissue_pixels(rng: np.random.Generator, strength: float) -> np.ndarray:
    """Texture in the colours of H&E, uint8 (50, 50, 3), at the model's spacing."""
    noise = rng.uniform(0.6, 1.4, (50, 50, 1))
    return np.clip(243 * np.exp(-strength * noise * [0.5, 1.0, 0.45]), 0, 255).astype(np.uint8)


def save_tiff(path: Path, pixels: np.ndarray, mpp: float | None = MPP, levels: tuple[int, ...] = (1, 4)) -> Path:
    """A tiled pyramid as a scanner writes it, from pixels of the full resolution."""
    with tifffile.TiffWriter(path) as file:
        for down in levels:
            size = (pixels.shape[1] // down, pixels.shape[0] // down)
            level = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
            resolution = {"resolution": (1e4 / mpp / down,) * 2, "resolutionunit": "CENTIMETER"} if mpp else {}
            file.write(
                level, tile=(256, 256), photometric="rgb", compression="zlib", metadata=None,
                subfiletype=1 if down > 1 else 0, **resolution,
            )  # fmt: skip
    return path

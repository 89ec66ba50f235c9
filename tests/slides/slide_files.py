"""Slides written for the tests, and a run whose answers on them are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from ductal.inference import ir_cache

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


def make_square_pixels() -> np.ndarray:
    """Glass, pale tissue, and a square of dark tissue at 4 um, uint8 (250, 300, 3)."""
    rng = np.random.default_rng(0)
    pixels = np.full((ROWS * 50, COLUMNS * 50, 3), 243, np.uint8)
    for column, row in TISSUE:
        tile = tissue_pixels(rng, 1.5 if (column, row) in SQUARE else 0.4)
        pixels[row * 50 : row * 50 + 50, column * 50 : column * 50 + 50] = tile
    return pixels


def save_square(path: Path, pixels: np.ndarray) -> Path:
    """Those pixels as a slide of 2400 x 2000 px with a square of tumour from (800, 400) to (1600, 1200)."""
    return save_tiff(path, pixels.repeat(8, axis=0).repeat(8, axis=1))


def make_known_run(folder: Path) -> Path:
    """A run that calls a tile tumour where it is dark on the whole; made for OpenVINO, without TensorFlow."""
    openvino = pytest.importorskip("openvino")
    from openvino import opset13 as ops

    tiles = ops.parameter([-1, 50, 50, 3], np.uint8)
    mean = ops.reduce_mean(ops.convert(tiles, "f32"), np.array([1, 2, 3]), keep_dims=False)
    logit = ops.add(ops.multiply(mean, np.float32(-20 / 255)), np.float32(11))  # 0 at a mean brightness of 140
    probs = ops.unsqueeze(ops.sigmoid(logit), np.array(1))
    (folder / "openvino").mkdir(parents=True)
    openvino.save_model(openvino.Model([probs], [tiles]), folder / "openvino" / "model.xml", compress_to_fp16=False)
    (folder / "model.keras").write_bytes(b"stands for the model that was converted")
    ir_cache.seal(folder / "model.keras", folder / "openvino")
    (folder / "calibration.json").write_text(json.dumps({"threshold": 0.5, "temperature": 1.0}))
    return folder

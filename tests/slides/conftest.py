"""A run whose answer is known, and a slide on which it is: dark violet tiles are tumour."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from ductal.data.synthetic_tissue import draw_slide
from ductal.inference import ir_cache

sys.path.insert(0, str(Path(__file__).parent))
from slide_files import COLUMNS, ROWS, SQUARE, TISSUE, save_tiff, tissue_pixels


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing costs more than all the rest; a fixture of a module is made before this one, and has its picture."""
    monkeypatch.setattr("ductal.slides.heatmap.draw_heatmap", lambda path, *_: path.write_bytes(b"a picture"))


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calls a tile tumour where it is dark on the whole; made for OpenVINO, so that TensorFlow is not imported."""
    openvino = pytest.importorskip("openvino")
    from openvino import opset13 as ops

    tiles = ops.parameter([-1, 50, 50, 3], np.uint8)
    mean = ops.reduce_mean(ops.convert(tiles, "f32"), np.array([1, 2, 3]), keep_dims=False)
    logit = ops.add(ops.multiply(mean, np.float32(-20 / 255)), np.float32(11))  # 0 at a mean brightness of 140
    probs = ops.unsqueeze(ops.sigmoid(logit), np.array(1))
    folder = tmp_path_factory.mktemp("runs") / "dark-is-tumour"
    (folder / "openvino").mkdir(parents=True)
    openvino.save_model(openvino.Model([probs], [tiles]), folder / "openvino" / "model.xml", compress_to_fp16=False)
    (folder / "model.keras").write_bytes(b"stands for the model that was converted")
    ir_cache.seal(folder / "model.keras", folder / "openvino")
    (folder / "calibration.json").write_text(json.dumps({"threshold": 0.5, "temperature": 1.0}))
    return folder


@pytest.fixture(scope="session")
def square_pixels() -> np.ndarray:
    """The picture of a slide at 4 um, uint8 (250, 300, 3): glass, pale tissue, and a square of dark tissue."""
    rng = np.random.default_rng(0)
    pixels = np.full((ROWS * 50, COLUMNS * 50, 3), 243, np.uint8)
    for column, row in TISSUE:
        tile = tissue_pixels(rng, 1.5 if (column, row) in SQUARE else 0.4)
        pixels[row * 50 : row * 50 + 50, column * 50 : column * 50 + 50] = tile
    return pixels


@pytest.fixture(scope="session")
def square(square_pixels: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of 2400 x 2000 px with a square of tumour from (800, 400) to (1600, 1200)."""
    full = square_pixels.repeat(8, axis=0).repeat(8, axis=1)
    return save_tiff(tmp_path_factory.mktemp("slides") / "square.tif", full)


@pytest.fixture(scope="session")
def painted() -> np.ndarray:
    """Tiles of drawn tissue, uint8 (n, 50, 50, 3), from the middle of several slides."""
    found = []
    for seed in range(4):
        slide = draw_slide(np.random.default_rng(seed), 40, 0.4)
        middle = slide.tiles[np.argsort(np.abs(slide.tiles - slide.tiles.mean(axis=0)).sum(axis=1))[:16]]
        found += [slide.pixels[y * 50 : y * 50 + 50, x * 50 : x * 50 + 50] for x, y in middle.tolist()]
    return np.stack(found)

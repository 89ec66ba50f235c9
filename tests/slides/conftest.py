"""A run whose answer is known, and a slide on which it is: dark violet tiles are tumour."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from ductal.data.synthetic_tissue import draw_slide

sys.path.insert(0, str(Path(__file__).parent))
from slide_files import make_known_run, make_square_pixels, save_square


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing costs more than all the rest; a fixture of a module is made before this one, and has its picture."""
    monkeypatch.setattr("ductal.slides.heatmap.draw_heatmap", lambda path, *_: path.write_bytes(b"a picture"))


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calls a tile tumour where it is dark on the whole; made for OpenVINO, so that TensorFlow is not imported."""
    return make_known_run(tmp_path_factory.mktemp("runs") / "dark-is-tumour")


@pytest.fixture(scope="session")
def square_pixels() -> np.ndarray:
    """The picture of a slide at 4 um, uint8 (250, 300, 3): glass, pale tissue, and a square of dark tissue."""
    return make_square_pixels()


@pytest.fixture(scope="session")
def square(square_pixels: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of 2400 x 2000 px with a square of tumour from (800, 400) to (1600, 1200)."""
    return save_square(tmp_path_factory.mktemp("slides") / "square.tif", square_pixels)


@pytest.fixture(scope="session")
def painted() -> np.ndarray:
    """Tiles of drawn tissue, uint8 (n, 50, 50, 3), from the middle of several slides."""
    found = []
    for seed in range(4):
        slide = draw_slide(np.random.default_rng(seed), 40, 0.4)
        middle = slide.tiles[np.argsort(np.abs(slide.tiles - slide.tiles.mean(axis=0)).sum(axis=1))[:16]]
        found += [slide.pixels[y * 50 : y * 50 + 50, x * 50 : x * 50 + 50] for x, y in middle.tolist()]
    return np.stack(found)

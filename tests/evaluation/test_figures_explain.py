"""The figure of explanations: one readable PNG for any number of patches and maps."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ductal.errors import RunError
from ductal.evaluation.figures_explain import explanations

RNG = np.random.default_rng(5)
PATCHES = RNG.integers(0, 256, (24, 50, 50, 3), dtype=np.uint8)
MAPS = RNG.random((24, 50, 50)).astype(np.float32)


@pytest.fixture(autouse=True)
def _no_warning() -> Iterator[None]:
    """A layout that collapses or a glyph that lacks shows as a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("count", [1, 2, 4, 24])
@pytest.mark.parametrize("names", [("Grad-CAM",), ("Grad-CAM", "Occlusion")])
def test_explanations(count: int, names: tuple[str, ...], tmp_path: Path) -> None:
    maps = {name: MAPS[:count].copy() for name in names}
    maps[names[-1]][0] = 0
    agreement = np.where(np.arange(count) % 2, 0.5, np.nan)
    probs = RNG.random(count)
    path = explanations(PATCHES[:count], maps, probs, probs > 0.5, tmp_path / "f.png", agreement=agreement)
    with Image.open(path) as image:
        assert (image.format, image.width) == ("PNG", 1350)
        pixels = np.asarray(image.convert("RGB"))
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (edge == 255).all()


def test_nothing_to_draw(tmp_path: Path) -> None:
    for patches, maps in ((PATCHES[:0], {"a": MAPS[:0]}), (PATCHES, {})):
        with pytest.raises(RunError, match="no patch, or no map"):
            explanations(patches, maps, [], [], tmp_path / "f.png")
    assert list(tmp_path.iterdir()) == []

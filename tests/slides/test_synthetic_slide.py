"""The synthetic slide: read by OpenSlide, the same picture at every level, its layout known."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ductal.errors import DataError
from ductal.slides.analyse import analyse_slide
from ductal.slides.reader import Box, open_slide
from ductal.slides.synthetic_slide import GLASS, write_synthetic_slide


def test_levels_show_the_same_picture(tmp_path: Path) -> None:
    written = write_synthetic_slide(tmp_path / "a.tif", 6144, 5120, cell_px=1024, seed=3)
    assert written.cells.shape == (5, 6)
    with open_slide(written.path) as slide:
        assert slide.vendor == "generic-tiff"
        assert slide.size == (6144, 5120)
        assert slide.mpp == pytest.approx(0.25, rel=1e-4)
        assert len(slide.source.sizes) == 4
        box = Box(0, 0, 6144, 5120)
        pictures = [slide.read(box, level, 96, 80).astype(int) for level in range(4)]
    for picture in pictures[1:]:
        assert np.abs(picture - pictures[0]).mean() < 6
    means = np.asarray(Image.fromarray(pictures[1].astype(np.uint8)).resize((6, 5), Image.Resampling.BOX)).astype(int)
    glass = written.cells == 0
    assert np.abs(means[glass] - GLASS).max() < 4
    assert (means[~glass][:, 1] < 235).all()


def test_equal_seeds_give_equal_files(tmp_path: Path) -> None:
    files = [
        write_synthetic_slide(tmp_path / f"{name}.tif", 1500, 1300, cell_px=512, seed=seed).path.read_bytes()
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert files[0] == files[1]
    assert files[0] != files[2]


def test_memory_does_not_grow_with_the_slide(tmp_path: Path) -> None:
    peaks = []
    for width in (4096, 32768):
        tracemalloc.start()
        write_synthetic_slide(tmp_path / f"{width}.tif", width, 4096, cell_px=1024, seed=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_it_can_be_analysed(run: Path, tmp_path: Path) -> None:
    written = write_synthetic_slide(tmp_path / "a.tif", 8192, 8192, cell_px=2048, seed=5)
    result = analyse_slide(run, written.path, tmp_path / "out")
    found = result.summary["found"]
    cell_mm2 = (2048 * 0.25 / 1000) ** 2
    assert found["tissue_area_mm2"] == pytest.approx((written.cells > 0).sum() * cell_mm2, rel=0.3)
    assert found["tiles"]["tissue"] > 0.8 * (written.cells > 0).sum() * cell_mm2 / 0.04


@pytest.mark.parametrize("wrong", [{"width": 0}, {"cell_px": 300}, {"spacing_um": 5.0}, {"levels": 0}])
def test_wrong_numbers(wrong: dict, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="A synthetic slide needs"):
        write_synthetic_slide(tmp_path / "a.tif", **{"width": 500, "height": 500, **wrong})
    assert list(tmp_path.iterdir()) == []

"""Slides are read at the right place and spacing, and bad files are told in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from slide_files import save_tiff

from ductal.errors import DataError
from ductal.slides import reader, sources
from ductal.slides.reader import Box, open_slide

RNG = np.random.default_rng(3)


def smooth(height: int, width: int) -> np.ndarray:
    coarse = RNG.integers(0, 256, (height // 32 + 1, width // 32 + 1, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return smooth(1024, 1536)


@pytest.fixture(scope="module", params=["scan.tif", "plain.png", "plain.tif"])
def path(request: pytest.FixtureRequest, pixels: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / request.param
    if request.param == "scan.tif":
        return save_tiff(path, pixels, 0.5)
    Image.fromarray(pixels).save(path, dpi=(25400 / 0.5,) * 2)
    return path


def test_pixels_come_from_where_they_are_asked_for(path: Path, pixels: np.ndarray) -> None:
    with open_slide(path) as slide:
        assert slide.size == (1536, 1024)
        assert slide.mpp == pytest.approx(0.5, abs=1e-4)
        assert slide.mpp_in_file == slide.mpp
        np.testing.assert_array_equal(slide.read(Box(100, 40, 64, 32), 0, 64, 32), pixels[40:72, 100:164])
        edge = slide.read(Box(1500, 1000, 72, 48), 0, 72, 48)
        np.testing.assert_array_equal(edge[:24, :36], pixels[1000:, 1500:])
        assert (edge[24:] == 255).all()
        assert (edge[:, 36:] == 255).all()
        # 7.3 times coarser, from the finest level and from the one a reader would take
        box = Box(73, 146, 730, 365)
        area = np.asarray(Image.fromarray(pixels).resize((100, 50), Image.Resampling.BOX, box=(73, 146, 803, 511)))
        for level in (0, slide.level_for(0.5 * 7.3)):
            assert np.abs(slide.read(box, level, 100, 50).astype(int) - area).mean() < 2


def test_the_overview_is_the_whole_slide(path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = np.asarray(Image.fromarray(pixels).resize((300, 200), Image.Resampling.BOX)).astype(int)
    for stripe in (1 << 30, 40_000):
        monkeypatch.setattr(reader, "_STRIPE_PX", stripe)
        with open_slide(path) as slide:
            found = slide.overview(300)
            assert found.shape == (200, 300, 3)
            assert np.abs(found - expected).mean() < 1.5
            assert slide.overview(10_000).shape == (1024, 1536, 3)


def test_the_level_is_the_coarsest_that_is_fine_enough(tmp_path: Path) -> None:
    with open_slide(save_tiff(tmp_path / "a.tif", smooth(2048, 2048), 0.25, (1, 4, 16))) as slide:
        assert [round(value) for value in slide.source.downsamples] == [1, 4, 16]
        spacings = (0.2, 0.25, 0.99, 3.5, 3.85, 4.0, 50)
        assert [slide.level_for(spacing) for spacing in spacings] == [0, 0, 1, 1, 2, 2, 2]


def test_spacing_from_the_user_where_the_file_has_none(tmp_path: Path) -> None:
    for name in ("a.png", "b.tif"):
        path = tmp_path / name
        if name == "a.png":
            Image.fromarray(smooth(64, 64)).save(path, dpi=(72, 72))  # a screen's
        else:
            save_tiff(path, smooth(512, 512), None)
        with pytest.raises(DataError, match=r"does not say how large its pixels are.*--mpp"):
            open_slide(path)
        with open_slide(path, 0.4) as slide:
            assert (slide.mpp, slide.mpp_in_file) == (0.4, None)


def test_the_file_is_right_about_its_spacing(path: Path) -> None:
    with open_slide(path, 0.9) as slide:
        assert slide.mpp == pytest.approx(0.5, abs=1e-4)


def test_transparent_pixels_are_glass(tmp_path: Path) -> None:
    image = np.zeros((60, 60, 4), np.uint8)
    image[:30] = (90, 40, 90, 255)
    Image.fromarray(image).save(tmp_path / "a.png")
    with open_slide(tmp_path / "a.png", 1.0) as slide:
        found = slide.read(Box(0, 0, 60, 60), 0, 60, 60)
    assert (found[:30] == (90, 40, 90)).all()
    assert (found[30:] == 255).all()


def test_bad_files_get_one_clear_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.svs").write_text("not an image")
    (tmp_path / "empty.png").write_bytes(b"")
    Image.fromarray(smooth(64, 64)[..., 0]).save(tmp_path / "grey.png")
    whole = save_tiff(tmp_path / "whole.tif", smooth(1024, 1024)).read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) // 2])
    for name, message in (
        ("text.svs", "not a slide that can be read"),
        ("empty.png", "not a slide or image that can be read"),
        ("grey.png", "not a colour image"),
        ("cut.tif", "cut short|not a slide"),
        ("nowhere.svs", "is no file"),
    ):
        with pytest.raises(DataError, match=message):
            open_slide(tmp_path / name, 0.5)
    Image.fromarray(smooth(64, 96)).save(tmp_path / "large.png")
    monkeypatch.setattr(sources, "LARGEST_PLAIN_PX", 1000)
    with pytest.raises(DataError, match=r"96 x 64 px and no tiles.*pyramidal TIFF"):
        open_slide(tmp_path / "large.png", 0.5)


def test_without_openslide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_openslide", lambda: None)
    (tmp_path / "a.svs").write_text("x")
    with pytest.raises(DataError, match="needs OpenSlide, which is not installed"):
        open_slide(tmp_path / "a.svs")


def test_oblong_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(smooth(64, 64)).save(tmp_path / "a.png", dpi=(25400, 50800))
    with pytest.raises(DataError, match=r"1 x 0\.5 um, which are not square"):
        open_slide(tmp_path / "a.png")

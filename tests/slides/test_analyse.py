"""A slide with a known square of tumour, end to end: every file says the same, and it is whole or absent."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from slide_files import ROWS, SIDE, SQUARE, TISSUE, save_tiff

import ductal
from ductal.context.model import ContextModel
from ductal.errors import DataError, RunError, StorageError
from ductal.slides import judging, outputs
from ductal.slides.analyse import SlideAnalyser, analyse_slide
from ductal.slides.grid import TileGrid

FILES = {
    "README.txt", "heatmap.png", "probabilities.ome.tif", "regions.geojson", "summary.json", "tiles.csv",
    "tiles.parquet",
}  # fmt: skip
REAL = Path(__file__).resolve().parents[3] / "shared" / "slides" / "cmu_small_region.svs"


@pytest.fixture(scope="module")
def result(run: Path, square: Path, tmp_path_factory: pytest.TempPathFactory) -> ductal.slides.analyse.SlideResult:
    return ductal.analyse_slide(run, square, tmp_path_factory.mktemp("out") / "square")


def nothing_left(folder: Path) -> bool:
    return not any(folder.rglob("*")) if folder.exists() else True


def test_the_folder(result: ductal.slides.analyse.SlideResult) -> None:
    assert {path.name for path in result.folder.iterdir()} == FILES
    assert [path.name for path in result.folder.parent.iterdir()] == ["square"]
    readme = (result.folder / "README.txt").read_text()
    assert all(name in readme for name in FILES - {"README.txt"})
    assert not result.reused


def test_the_tables(result: ductal.slides.analyse.SlideResult) -> None:
    table = pd.read_parquet(result.folder / "tiles.parquet")
    assert sorted(zip(table["column"], table["row"], strict=True)) == sorted(TISSUE)
    np.testing.assert_allclose(table["x"], table["column"] * SIDE, atol=0.1)
    np.testing.assert_allclose(table["y"], table["row"] * SIDE, atol=0.1)
    np.testing.assert_allclose(table[["w", "h"]], SIDE, atol=0.1)
    assert sorted(zip(*table.loc[table["tumour"], ["column", "row"]].to_numpy().T, strict=True)) == sorted(SQUARE)
    assert (table["tumour"] == (table["probability"] >= 0.5)).all()
    assert (table["gate"] == "tissue").all()
    csv = pd.read_csv(result.folder / "tiles.csv")
    pd.testing.assert_frame_equal(csv, table, check_dtype=False, rtol=1e-4)


def test_the_summary(result: ductal.slides.analyse.SlideResult, run: Path) -> None:
    summary = json.loads((result.folder / "summary.json").read_text())
    assert summary == result.summary
    found = summary["found"]
    assert found["tumour_area_mm2"] == pytest.approx(4 * 0.04, rel=1e-3)
    assert found["tissue_area_mm2"] == pytest.approx(12 * 0.04, rel=0.01)
    assert found["tumour_share_of_tissue"] == pytest.approx(1 / 3, abs=0.01)
    assert found["tiles"] == {"tissue": 12, "glass": 18, "pen": 0, "fold": 0, "blur": 0}
    assert found["tumour_tiles"] == 4
    assert 0.5 < found["mean_confidence"] <= 1
    assert [flag["code"] for flag in summary["flags"]] == ["model_spacing_assumed"]
    assert summary["track"] == "patch-only"
    assert summary["run"]["name"] == run.name
    assert set(summary["run"]["sha256"]) == {"model.keras", "calibration.json"}
    assert summary["spacing"]["tile_um"] == 200
    assert summary["spacing"]["read_from_um"] == pytest.approx(2.0, rel=1e-3)


def test_the_regions_and_the_grid_agree(result: ductal.slides.analyse.SlideResult) -> None:
    collection = json.loads((result.folder / "regions.geojson").read_text())
    (feature,) = collection["features"]
    ring = feature["geometry"]["coordinates"][0]
    np.testing.assert_allclose(sorted(ring[:-1]), [[800, 400], [800, 1200], [1600, 400], [1600, 1200]], atol=0.1)
    with tifffile.TiffFile(result.folder / "probabilities.ome.tif") as file:
        grid, description = file.asarray(), file.ome_metadata or ""
    assert grid.dtype == np.float32
    assert grid.shape == (ROWS, 6)
    assert sorted((column, row) for row, column in np.argwhere(grid >= 0.5).tolist()) == sorted(SQUARE)
    assert np.isnan(grid).sum() == 18
    assert 'PhysicalSizeX="200.0"' in description
    assert 'PhysicalSizeXUnit="µm"' in description
    table = pd.read_parquet(result.folder / "tiles.parquet")
    np.testing.assert_array_equal(grid[table["row"], table["column"]], table["probability"])
    mean = table.loc[table["tumour"], "probability"].mean()
    assert feature["properties"]["measurements"]["mean_probability"] == pytest.approx(mean, abs=1e-3)


def test_the_picture(result: ductal.slides.analyse.SlideResult) -> None:
    pixels = np.asarray(Image.open(result.folder / "heatmap.png").convert("RGB")).astype(int)
    assert pixels.shape[1] >= 1000
    outline = np.abs(pixels - [0, 229, 255]).max(axis=-1) < 40
    assert outline.any(axis=0).sum() > 200  # in both panels
    red = (pixels[..., 0] > 150) & (pixels[..., 1] < 130) & (pixels[..., 2] < 130)
    assert red.sum() > 5000


def test_the_same_again_is_not_computed(
    result: ductal.slides.analyse.SlideResult, run: Path, square: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SlideAnalyser, "predictor", property(lambda _: pytest.fail("computed again")))
    assert analyse_slide(run, square, result.folder).reused


@pytest.mark.parametrize("change", [{"threshold": 0.99}, {"model_mpp": 5.0}, {"overwrite": True}, {"d4": True}])
def test_what_differs_is_computed_anew(change: dict, run: Path, square: Path, tmp_path: Path) -> None:
    analyse_slide(run, square, tmp_path / "a")
    again = analyse_slide(run, square, tmp_path / "a", **change)
    assert not again.reused
    if "threshold" in change:
        assert again.summary["found"]["tumour_tiles"] == 0
        assert json.loads((tmp_path / "a" / "regions.geojson").read_text())["features"] == []


@pytest.mark.parametrize("um", [0.0, -1.0, 100.0])
def test_a_spacing_that_cannot_be_is_refused(run: Path, um: float) -> None:
    with pytest.raises(DataError, match="spacing must be"):
        SlideAnalyser(run, model_mpp=um)


def test_another_model_is_another_result(run: Path, square: Path, tmp_path: Path) -> None:
    copy = tmp_path / "runs" / run.name
    shutil.copytree(run, copy)
    first = analyse_slide(copy, square, tmp_path / "a").summary["identity"]
    (copy / "calibration.json").write_text('{"threshold": 0.5, "temperature": 1.1, "spacing_um": 3.9}')
    again = analyse_slide(copy, square, tmp_path / "a")
    assert not again.reused
    assert again.summary["identity"] != first
    assert again.summary["spacing"]["model_um"] == 3.9
    assert again.summary["flags"] == []


def test_neighbours_refine_the_call_where_the_run_has_a_context(run: Path, square: Path, tmp_path: Path) -> None:
    copy = tmp_path / "runs" / run.name
    shutil.copytree(run, copy)
    plain = analyse_slide(copy, square, tmp_path / "a")
    assert plain.summary["track"] == "patch-only"
    model = ContextModel(window=3, intercept=0.5, own=0.0, neighbourhood=1.0, threshold=0.3)
    model.save(copy)
    refined = analyse_slide(copy, square, tmp_path / "a")
    assert (refined.reused, refined.summary["track"]) == (False, "slide context")
    after = pd.read_parquet(refined.folder / "tiles.parquet")
    again = analyse_slide(copy, square, tmp_path / "b", context=False)
    before = pd.read_parquet(again.folder / "tiles.parquet")
    judged = before["probability"].notna().to_numpy()
    rows, columns = (before[name].to_numpy()[judged] for name in ("row", "column"))
    grid = TileGrid(columns, rows, (int(rows.max()) + 1, int(columns.max()) + 1))
    probs = before["probability"].to_numpy(np.float64)[judged]
    expected = 1 / (1 + np.exp(-model.refine(grid, np.log(probs / (1 - probs)))))
    found = after["probability"].to_numpy(np.float64)[judged]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert (after["tumour"].to_numpy()[judged] == (expected >= 0.3)).all()
    assert analyse_slide(copy, square, tmp_path / "a").reused
    with pytest.raises(RunError, match="D4 averaging"):
        analyse_slide(copy, square, tmp_path / "c", d4=True)


def test_batches_are_full_across_rectangles(
    run: Path, square: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ductal.slides.tiling.LARGEST_BLOCK_PX", 250)  # two tiles of the level that is read
    monkeypatch.setattr(judging, "CHUNK", 5)
    sizes, told = [], []
    analyser = SlideAnalyser(run)
    predict = analyser.predictor.predict

    def counted(tiles: np.ndarray, **options: int) -> np.ndarray:
        sizes.append(len(tiles))
        return predict(tiles, **options)

    monkeypatch.setattr(analyser.predictor, "predict", counted)
    result = analyser.analyse(square, tmp_path / "a", progress=lambda done, total: told.append((done, total)))
    assert sizes == [5, 5, 2]
    assert told[-1][0] == told[-1][1]
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert result.summary["found"]["tumour_tiles"] == 4


def test_bad_slides_leave_nothing(run: Path, tmp_path: Path, square_pixels: np.ndarray) -> None:
    glass = np.full((400, 400, 3), 243, np.uint8)
    Image.fromarray(glass).save(tmp_path / "glass.png")
    Image.fromarray(glass[:1, :1]).save(tmp_path / "one.png")
    (tmp_path / "text.svs").write_text("x" * 5000)
    Image.fromarray(square_pixels).save(tmp_path / "square.png")
    for name, mpp, message in (
        ("glass.png", 1.0, "No tissue can be judged"),
        ("one.png", 1.0, "No tissue can be judged"),
        ("text.svs", 1.0, "not a slide that"),
        ("square.png", None, "--mpp"),
        ("square.png", 7.0, "not in this image"),
        ("square.png", 500.0, "0.05 to 20"),
        ("nowhere.svs", 1.0, "is no file"),
    ):
        with pytest.raises(DataError, match=message):
            analyse_slide(run, tmp_path / name, tmp_path / "out" / "a", mpp=mpp)
        assert nothing_left(tmp_path / "out"), name


def test_the_same_slide_gives_the_same_files(
    result: ductal.slides.analyse.SlideResult, run: Path, square: Path, tmp_path: Path
) -> None:
    again = analyse_slide(run, square, tmp_path / "again")
    for name in FILES - {"heatmap.png"}:  # which is not drawn here
        assert (again.folder / name).read_bytes() == (result.folder / name).read_bytes(), name


def test_something_else_is_not_replaced(run: Path, square: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(DataError, match="no result of ductal slide"):
        analyse_slide(run, square, tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


def test_wrong_settings(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 to 1"):
        SlideAnalyser(run, threshold=50)
    with pytest.raises(DataError, match=r"0\.05 to 20"):
        SlideAnalyser(run, model_mpp=0.001)
    with pytest.raises(RunError, match="not a finished run"):
        SlideAnalyser(tmp_path)


def test_a_failing_write_keeps_the_earlier_result(
    run: Path, square: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = analyse_slide(run, square, tmp_path / "a").summary

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outputs, "write_grid", full)
    with pytest.raises(StorageError, match="Nothing half-written"):
        analyse_slide(run, square, tmp_path / "a", overwrite=True)
    assert json.loads((tmp_path / "a" / "summary.json").read_text()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("a small disk needs root")
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=False)


def test_a_full_disk(run: Path, square: Path, small_disk: Path) -> None:
    with pytest.raises(StorageError, match="Could not write"):
        analyse_slide(run, square, small_disk / "a")
    assert nothing_left(small_disk)


@pytest.mark.skipif(not REAL.exists(), reason="the real slide (../shared/slides) is not on this machine")
def test_a_real_slide(run: Path, tmp_path: Path) -> None:
    result = analyse_slide(run, REAL, tmp_path / "real")
    assert result.summary["slide"]["format"] == "aperio"
    assert result.summary["spacing"]["slide_um"] == pytest.approx(0.499)
    assert result.summary["found"]["tiles"]["tissue"] > 20
    assert result.summary["found"]["tissue_area_mm2"] == pytest.approx(0.55, abs=0.1)
    assert {path.name for path in result.folder.iterdir()} == FILES


@pytest.mark.skipif(not REAL.exists(), reason="the real slide (../shared/slides) is not on this machine")
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95, 0.999])
def test_a_real_slide_that_is_cut_short(share: float, run: Path, tmp_path: Path) -> None:
    content = REAL.read_bytes()
    (tmp_path / "cut.svs").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=r"cut\.svs"):
        analyse_slide(run, tmp_path / "cut.svs", tmp_path / "out" / "a")
    assert nothing_left(tmp_path / "out")


def test_a_scan_without_a_pyramid_is_read_and_flagged(run: Path, square_pixels: np.ndarray, tmp_path: Path) -> None:
    full = square_pixels.repeat(8, axis=0).repeat(8, axis=1)
    result = analyse_slide(run, save_tiff(tmp_path / "a.tif", full, levels=(1,)), tmp_path / "out")
    assert "no_pyramid" in [flag["code"] for flag in result.summary["flags"]]
    assert result.summary["found"]["tumour_tiles"] == 4

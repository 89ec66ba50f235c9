"""Predicting files: folders, zips and cohorts give one table, and unusable images are told."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ductal.data.archive import MAX_ENTRY_BYTES
from ductal.data.cohort import Cohort
from ductal.data.quality import inspect
from ductal.errors import DataError, RunError
from ductal.inference import predict_files
from ductal.inference.predict_files import Contents, predict_source
from ductal.inference.predictor import Predictor

RNG = np.random.default_rng(6)
GENUINE = "8863_idx5_x1351_y1101_class0.png"


def png(shape: tuple[int, int] = (50, 50)) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


# In the order in which they are listed: sorted paths.
FILES = {
    f"8863/0/{GENUINE}": png(),
    "a.png": png(),
    "broken.png": b"not an image",
    "notes.txt": b"left alone",
    "odd.png": png((50, 42)),
    "z/other.PNG": png(),
}
IMAGES = [name for name in FILES if not name.endswith("txt")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((50, 50, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 128, offset=-1.0, dtype="float32")(inputs)
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(10)(x))
    folder = tmp_path_factory.mktemp("runs") / "small"
    folder.mkdir()
    keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x)).save(folder / "model.keras")
    (folder / "calibration.json").write_text(json.dumps({"threshold": 0.5, "temperature": 1.0}))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(content)
    return tmp_path / "images"


def expected(run: Path, name: str) -> float:
    pixels = np.asarray(Image.open(io.BytesIO(FILES[name])))[None]
    return float(Predictor.from_run(run).predict(pixels)[0])


def check(table: pd.DataFrame, run: Path) -> None:
    assert table["file"].tolist() == IMAGES
    rows = table.set_index("file")
    for name in (IMAGES[0], "a.png", "z/other.PNG"):
        assert rows.loc[name, "probability"] == pytest.approx(expected(run, name), abs=1e-5)
        assert rows.loc[name, "cancer"] == (expected(run, name) >= 0.5)
        assert rows.loc[name, "problem"] == ""
    assert rows.loc["broken.png", "problem"].startswith("undecodable: ")
    assert rows.loc["odd.png", "problem"] == "size: 42 x 50 px"
    for name in ("broken.png", "odd.png"):
        assert np.isnan(rows.loc[name, "probability"])
        assert pd.isna(rows.loc[name, "cancer"])
    assert rows.iloc[0][["patient", "x", "y"]].tolist() == ["8863", 1351, 1101]
    assert rows.loc["a.png", "patient"] == ""
    assert pd.isna(rows.loc["a.png", "x"])


def test_folder(run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict_files, "CHUNK", 2)
    told: list[tuple[int, int]] = []
    table = predict_source(run, folder, tmp_path / "out.csv", progress=lambda *step: told.append(step))
    check(table, run)
    assert told == [(2, 5), (4, 5), (5, 5)]
    written = pd.read_csv(tmp_path / "out.csv", dtype={"patient": str})
    assert written.columns.tolist() == ["file", "patient", "x", "y", "probability", "cancer", "problem"]
    assert written["cancer"].isna().tolist() == [False, False, True, True, False]
    np.testing.assert_allclose(written["probability"], table["probability"], rtol=1e-5)


def test_zip(run: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
    table = predict_source(run, tmp_path / "images.zip", tmp_path / "out.csv")
    check(table.sort_values("file", ignore_index=True), run)


def test_one_image(run: Path, folder: Path, tmp_path: Path) -> None:
    table = predict_source(run, folder / IMAGES[0], tmp_path / "out.csv")
    assert table["file"].tolist() == [GENUINE]
    assert table["probability"][0] == pytest.approx(expected(run, IMAGES[0]), abs=1e-5)


def test_files_are_read_one_at_a_time_and_within_bounds(
    run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (folder / "a.png").open("r+b") as handle:
        handle.truncate(MAX_ENTRY_BYTES + 1)  # more zeros than any patch has
    table = predict_source(run, folder, tmp_path / "out.csv").set_index("file")
    assert table.loc["a.png", "problem"] == "undecodable: file: over 16 MiB"
    assert table.loc[IMAGES[0], "problem"] == ""
    done: list[str] = []

    def contents() -> Contents:
        for name in IMAGES:
            done.append("read")
            yield FILES[name], ""

    def told(content: bytes) -> Any:
        done.append("decoded")
        return inspect(content)

    monkeypatch.setattr(predict_files, "inspect", told)
    patches, problems = predict_files._decode(contents(), len(IMAGES))
    assert len(patches) == len(problems) == len(IMAGES)
    assert done == ["read", "decoded"] * len(IMAGES)


def test_cohort(run: Path, tiny_cohort: Cohort, tmp_path: Path) -> None:
    table = predict_source(run, tiny_cohort.folder, tmp_path / "out.csv", d4=True)
    assert table["file"].tolist() == tiny_cohort.table["patch_id"].tolist()
    assert table["patient"].tolist() == tiny_cohort.table["patient"].tolist()
    assert table["x"].tolist() == tiny_cohort.table["x"].tolist()
    probs = Predictor.from_run(run, d4=True).predict(tiny_cohort.pixels)
    np.testing.assert_allclose(table["probability"], probs, atol=1e-6)
    assert (table["cancer"] == (probs >= 0.5)).all()


def test_nothing_there(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("x")
    for source in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(DataError, match="There are no images in"):
            predict_source(run, source, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_no_run(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a finished run"):
        predict_source(tmp_path, folder, tmp_path / "out.csv")

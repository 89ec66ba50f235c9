"""Slides of a run's patients: which, with what probabilities, drawn with or without tissue; and the command."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from ductal.cli import app
from ductal.context.model import ContextModel
from ductal.context.study import fit_context
from ductal.data.cohort import Cohort
from ductal.data.split import Split
from ductal.data.store import prepare
from ductal.data.synthetic import make_synthetic
from ductal.errors import BusyError, DataError, HeldOutError, LeakError, RunError
from ductal.evaluation.arrays import expit, logit
from ductal.inference.embeddings import embed_run
from ductal.inference.engines import load_keras
from ductal.locks import locked
from ductal.slides.grid import TileGrid
from ductal.slides.rebuild import rebuild

PARTS = {"train": ["90001"], "val": ["90002", "90003", "90004", "90005"], "test": ["90006"]}
VIOLET = (150, 0, 255)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Complete synthetic slides of 60 patches; the seventh patient is in no part of the split."""
    folder = tmp_path_factory.mktemp("slides")
    archive = make_synthetic(folder / "slides.zip", patients=7, patches_per_patient=60, seed=4)
    return prepare(archive, folder / "cohort", workers=1)


@pytest.fixture(scope="module")
def finished(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose network calls dark patches cancer, and that predicted its validation patients."""
    inputs = keras.Input((50, 50, 3), dtype="uint8")
    x = keras.layers.Rescaling(-1 / 64, offset=2.5, dtype="float32")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(1, kernel_initializer="ones", name="logit")(x)
    model = keras.Model(inputs, keras.layers.Activation("sigmoid")(x), name="dark")
    folder = tmp_path_factory.mktemp("runs") / "dark"
    folder.mkdir()
    model.save(folder / "model.keras")
    (folder / "calibration.json").write_text(json.dumps({"threshold": 0.5, "temperature": 1.0}))
    (folder / "run.json").write_text(json.dumps({"cohort_folder": str(cohort.folder), "precision": "float32"}))
    (folder / "metrics.json").write_text("{}")
    Split(name="own", parts=PARTS).save(folder / "split.json")  # type: ignore[arg-type]
    (folder / "predictions").mkdir()
    rows = np.flatnonzero(cohort.table["patient"].isin(PARTS["val"]).to_numpy())
    probs = np.random.default_rng(0).random(len(rows)).astype(np.float32) * 0.5 + 0.5 * cohort.labels[rows]
    table = cohort.table.iloc[rows][["patch_id", "patient", "label"]].assign(prob=probs.astype(np.float32) * 0.98)
    table.sample(frac=1, random_state=1).to_parquet(folder / "predictions" / "val.parquet", index=False)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, to write into."""
    import shutil

    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture(scope="module")
def split(finished: Path) -> Split:
    return Split.load(finished / "split.json")


def test_predicted_patients_are_rebuilt_from_what_the_run_saved(
    cohort: Cohort, finished: Path, split: Split, tmp_path: Path
) -> None:
    table = rebuild(finished, cohort, split, tmp_path / "out", spacing_um=4.0)
    assert table["patient"].tolist() == PARTS["val"]
    assert set(table["track"]) == {"patch-only"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "rebuilt.csv", *(f"{name}.{kind}" for name in PARTS["val"] for kind in ("png", "csv"))
    }  # fmt: skip
    saved = pd.read_parquet(finished / "predictions" / "val.parquet").set_index("patch_id")
    each = pd.read_csv(tmp_path / "out" / "90003.csv")
    np.testing.assert_allclose(each["probability"], saved.loc[each["patch_id"], "prob"], rtol=1e-5)
    idc = int(cohort.labels[cohort.table["patient"] == "90003"].sum())
    assert table.set_index("patient").loc["90003", "tumour_mm2"] == pytest.approx(idc * 0.04)


def test_other_patients_are_predicted_and_trained_ones_are_marked(
    cohort: Cohort, finished: Path, split: Split, tmp_path: Path
) -> None:
    table = rebuild(finished, cohort, split, tmp_path / "out", patients=["90007", "90001"], tissue=False)
    assert table["role"].tolist() == ["in no part of the run's split", "trained on: figures mean nothing"]
    mine = (cohort.table["patient"] == "90007").to_numpy()
    expected = expit(2.5 * 3 - cohort.pixels[mine].astype(np.float64).mean(axis=(1, 2)).sum(axis=1) / 64)
    each = pd.read_csv(tmp_path / "out" / "90007.csv").set_index("patch_id")
    found = each.loc[cohort.table["patch_id"][mine], "probability"]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_test_patients_stay_closed_until_the_final_evaluation(
    cohort: Cohort, finished: Path, split: Split, tmp_path: Path
) -> None:
    with pytest.raises(HeldOutError, match="90006"):
        rebuild(finished, cohort, split, tmp_path / "out", patients=["90002", "90006"])
    assert not (tmp_path / "out").exists()


def test_without_tissue_no_pixel_of_it_is_in_the_picture(
    cohort: Cohort, finished: Path, split: Split, tmp_path: Path
) -> None:
    violet = np.broadcast_to(np.array(VIOLET, np.uint8), cohort.pixels.shape)
    coloured = Cohort(cohort.folder, cohort.info, cohort.table, violet, cohort.quarantine)
    seen = []
    for tissue in (True, False):
        rebuild(finished, coloured, split, tmp_path / "out", patients=["90002"], tissue=tissue)
        picture = np.asarray(Image.open(tmp_path / "out" / "90002.png").convert("RGB")).astype(int)
        seen.append(int((np.abs(picture - VIOLET).sum(axis=2) < 30).sum()))
    assert seen[0] > 1000
    assert seen[1] == 0


@pytest.mark.parametrize(("changes", "error"), [({"patients": ["1"]}, DataError), ({"spacing_um": 0.0}, DataError),
                                                ({"context": True}, RunError)])  # fmt: skip
def test_mistakes_are_told_and_leave_nothing(
    cohort: Cohort, finished: Path, split: Split, tmp_path: Path, changes: dict, error: type[Exception]
) -> None:
    with pytest.raises(error):
        rebuild(finished, cohort, split, tmp_path / "out", **changes)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_else_is_not_replaced(
    cohort: Cohort, finished: Path, split: Split, tmp_path: Path
) -> None:
    rebuild(finished, cohort, split, tmp_path / "out", patients=["90002"], tissue=False)
    (tmp_path / "out" / "letter.txt").touch()
    with pytest.raises(DataError, match=r"letter\.txt.*not replaced"):
        rebuild(finished, cohort, split, tmp_path / "out", patients=["90002"], tissue=False)
    with pytest.raises(DataError, match=r"is a file.*not replaced"):
        rebuild(finished, cohort, split, tmp_path / "out" / "letter.txt")


def test_rebuilt_and_scanned_slides_in_one_folder_leave_each_other_alone(
    cohort: Cohort, run: Path, split: Split, tmp_path: Path
) -> None:
    scan = tmp_path / "scan.png"
    density = np.random.default_rng(0).uniform(0.6, 1.8, (200, 200, 1)) * [0.5, 1.0, 0.45]
    Image.fromarray((243 * np.exp(-density)).astype(np.uint8)).save(scan)
    out = tmp_path / "both"
    done = CliRunner().invoke(app, ["slide", str(run), str(scan), "--mpp", "4", "--out", str(out)])
    assert done.exit_code == 0, done.output
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    asked = ["rebuild", str(run), "90002", "--no-tissue", "--out", str(out)]
    assert CliRunner().invoke(app, asked).exit_code == DataError.exit_code
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    rebuild(run, cohort, split, tmp_path / "rebuilt", patients=["90002"], tissue=False)
    done = CliRunner().invoke(app, ["slide", str(run), str(scan), "--mpp", "4", "--out", str(tmp_path / "rebuilt")])
    assert done.exit_code == 0, done.output
    assert {"90002.csv", "90002.png", "rebuilt.csv"} < {path.name for path in (tmp_path / "rebuilt").iterdir()}


def test_context_is_the_default_once_it_is_fitted(cohort: Cohort, run: Path, split: Split, tmp_path: Path) -> None:
    """On a slide it was not fitted on by the model, on others by what was fitted without them."""
    found = fit_context(run, cohort, split, patients=PARTS["val"], heads=("smoothing",))
    table = rebuild(run, cohort, split, tmp_path / "out", patients=["90002", "90007"], tissue=False)
    assert set(table["track"]) == {"slide context"}
    assert table["role"].tolist() == [
        "validation patient; context fitted on other slides", "in no part of the run's split"
    ]  # fmt: skip
    own = pd.read_csv(tmp_path / "out" / "90002.csv").set_index("patch_id")
    held = found.predictions.set_index("patch_id").loc[own.index]
    np.testing.assert_allclose(own["probability"], held["smoothing_prob"], rtol=1e-4)
    assert (own["called"] == (held["smoothing_prob"] >= held["smoothing_threshold"])).all()
    rebuild(run, cohort, split, tmp_path / "plain", patients=["90007"], context=False, tissue=False)
    plain, refined = (pd.read_csv(tmp_path / name / "90007.csv") for name in ("plain", "out"))
    grid = TileGrid(plain["column"].to_numpy(), plain["row"].to_numpy(), (99, 99))
    expected = expit(ContextModel.load(run).refine(grid, logit(plain["probability"])))
    np.testing.assert_allclose(refined["probability"], expected, rtol=1e-3)


def test_context_of_another_network_is_refused(cohort: Cohort, run: Path, split: Split, tmp_path: Path) -> None:
    ContextModel(3, 0.0, 0.5, 0.5, model="another").save(run)
    with pytest.raises(RunError, match="another network"):
        rebuild(run, cohort, split, tmp_path / "out")


def test_context_takes_whole_slides_that_were_not_trained_on(
    cohort: Cohort, run: Path, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = fit_context(run, cohort, split, heads=("smoothing",))
    assert found.model.patients == (*PARTS["val"], "90007")
    assert found.left_out == {"90001": "trained on", "90006": "test patient"}
    assert {path.name for path in (run / "context").iterdir()} == {
        "models.csv", "slides.csv", "report.json", "report.md", "context.png", "predictions.parquet"
    }  # fmt: skip
    assert ContextModel.load(run) == found.model
    told = (run / "context" / "report.md").read_text()
    assert "SYNTHETIC" in told
    assert "| smoothing | slide context |" in told
    with pytest.raises(LeakError, match="trained on 90001"):
        fit_context(run, cohort, split, patients=["90001", "90002"])
    with pytest.raises(DataError, match="--with-test"):
        fit_context(run, cohort, split, patients=["90006"])
    with pytest.raises(RunError, match="takes 3 complete slides"):
        fit_context(run, cohort, split, patients=["90002", "90003"])
    with pytest.raises(RunError, match="no context head"):
        fit_context(run, cohort, split, heads=("attention",))
    monkeypatch.setattr("ductal.locks.PATIENCE_SECONDS", 0.0)
    with locked(run), pytest.raises(BusyError):
        fit_context(run, cohort, split, heads=("smoothing",))


def test_a_sample_of_a_slide_has_no_context(cohort: Cohort, run: Path, split: Split) -> None:
    scattered = cohort.table.assign(x=cohort.table["x"] * 3)
    apart = Cohort(cohort.folder, cohort.info, scattered, cohort.pixels, cohort.quarantine)
    with pytest.raises(RunError, match="6 a sample of a slide"):
        fit_context(run, apart, split)


def test_embeddings_are_what_the_last_layer_reads(cohort: Cohort, finished: Path) -> None:
    rows = np.array([5, 3, 8])
    found = embed_run(finished, cohort.pixels, rows, batch_size=2)
    np.testing.assert_allclose(found, 2.5 - cohort.pixels[rows].mean(axis=(1, 2)) / 64, atol=1e-4)
    logits = logit(load_keras(finished / "model.keras").predict(cohort.pixels[rows], verbose=0)[:, 0])
    np.testing.assert_allclose(found.sum(axis=1), logits, atol=1e-3)


def test_commands(run: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["context", str(run), "--heads", "smoothing"])
    assert done.exit_code == 0, done.output
    assert "Leave-one-slide-out: smoothing" in done.output
    assert "slide context" in done.output
    done = CliRunner().invoke(app, ["rebuild", str(run), "90002", "--no-tissue", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "1 slides, " in done.output
    assert "track: slide context" in done.output
    assert CliRunner().invoke(app, ["context", str(run), "90001"]).exit_code == LeakError.exit_code
    assert CliRunner().invoke(app, ["rebuild", str(tmp_path)]).exit_code == RunError.exit_code

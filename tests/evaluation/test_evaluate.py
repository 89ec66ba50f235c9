"""The final evaluation, with a stand-in for the network: what is written, and thresholds chosen anew."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_runs as fake
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from ductal.cli import app
from ductal.data.audit import audit_split
from ductal.data.cohort import Cohort
from ductal.data.split import Part, Split
from ductal.data.splitting import make_split
from ductal.errors import RunError, StorageError
from ductal.evaluation.decision import ThresholdRule
from ductal.evaluation.evaluate import evaluate
from ductal.evaluation.runs import load_run
from ductal.locks import locked
from ductal.record import describe_data, to_json

CALIBRATION = {
    "temperature": 1.0, "bias": 0.0, "calibration": {"fit": "temperature", "patches": 40, "patients": 2},
    "threshold": 0.5, "threshold_rule": "the first one", "abstention": {"max_error": 0.05, "low": 0.4, "high": 0.6},
    "labels": {"0": "not_cancer", "1": "cancer"}, "patch_size": 50, "spacing_um": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def split(tiny_cohort: Cohort) -> Split:
    return make_split(tiny_cohort, "random", seed=1)


@pytest.fixture(scope="module")
def data(tiny_cohort: Cohort, split: Split) -> dict[str, Any]:
    return describe_data(tiny_cohort, split, audit_split(tiny_cohort, split))


@pytest.fixture
def run(
    tiny_cohort: Cohort, split: Split, data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A run folder whose network sees the labels through noise."""
    noise = np.random.default_rng(3).normal(0, 0.9, len(tiny_cohort.labels))
    scores = (1 / (1 + np.exp(-(2.0 * tiny_cohort.labels - 1 + noise)))).astype(np.float32)

    def predictor(*_: Any, d4: bool = False, **__: Any) -> SimpleNamespace:
        return SimpleNamespace(
            d4=d4, threshold=0.5, engine=SimpleNamespace(name="stand-in"), predict=lambda _, rows, **__: scores[rows]
        )

    monkeypatch.setattr("ductal.evaluation.evaluate.Predictor.from_run", predictor)
    # Figures take most of the time, and have tests of their own.
    for drawing in ("findings._draw", "figures_training.curves", "figures_failures.errors_by_distance",
                    "figures_failures.errors_by_stain"):  # fmt: skip
        monkeypatch.setattr(f"ductal.evaluation.{drawing}", lambda *_: None)
    folder = tmp_path / "runs" / "vgg16-full"
    folder.mkdir(parents=True)
    record = {
        "name": "vgg16-full", "recipe": {"name": "vgg16-full", "title": "for tests"}, "seed": 1, "test_opened": 0,
        "timings": {}, **data,
    }  # fmt: skip
    (folder / "run.json").write_text(to_json(record))
    (folder / "calibration.json").write_text(json.dumps(CALIBRATION))
    fake.history(("all", 3)).to_csv(folder / "history.csv", index=False)
    split.save(folder / "split.json")
    return folder


def read(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name).read_text())
    return found


def test_everything_is_written_and_the_threshold_stays(run: Path, tiny_cohort: Cohort, split: Split) -> None:
    metrics = evaluate(run, tiny_cohort, split)
    assert metrics["test"]["threshold"] == 0.5
    assert read(run, "calibration.json") == CALIBRATION
    for name in ("MODEL_CARD.md", "CHECKLIST.md", "report.html", "metrics.json", "failures/suspects.csv"):
        assert (run / name).stat().st_size > 0
    assert read(run, "run.json")["test_opened"] == 1


@pytest.mark.parametrize("at", ["val.parquet", "test.parquet", "calibration.json", "metrics.json"])
def test_an_evaluation_that_is_cut_off_leaves_no_figures(
    run: Path, tiny_cohort: Cohort, split: Split, at: str
) -> None:
    """Neither those of before beside a new threshold, nor half a table; and it can be repeated."""
    evaluate(run, tiny_cohort, split)
    with pytest.MonkeyPatch.context() as patch:
        _cut_off(patch, at)
        with pytest.raises(KeyboardInterrupt):
            evaluate(run, tiny_cohort, split, threshold_rule="cost:5")
    for name in ("metrics.json", "report.html", "MODEL_CARD.md", "CHECKLIST.md", "failures/patients.csv"):
        assert not (run / name).exists()
    with pytest.raises(RunError, match="not evaluated, or not to the end"):
        load_run(run)
    parts: tuple[Part, ...] = ("val", "test")
    for part in parts:
        rows = split.rows(tiny_cohort, part, final_evaluation=True)
        assert len(pd.read_parquet(run / "predictions" / f"{part}.parquet")) == len(rows)
    evaluate(run, tiny_cohort, split)
    assert load_run(run).metrics["test"]["threshold"] == read(run, "calibration.json")["threshold"]
    assert (run / "report.html").is_file()


def test_findings_that_are_cut_off_are_not_those_of_before(run: Path, tiny_cohort: Cohort, split: Split) -> None:
    evaluate(run, tiny_cohort, split)
    with pytest.MonkeyPatch.context() as patch:
        _cut_off(patch, "stain.csv")
        with pytest.raises(KeyboardInterrupt):
            evaluate(run, tiny_cohort, split, threshold_rule="cost:5")
    found = load_run(run)
    assert found.metrics["test"]["threshold"] == found.calibration["threshold"] != 0.5
    assert {path.name for path in (run / "failures").iterdir()} == {"patients.csv", "distance.csv"}
    assert not (run / "report.html").exists()


def _cut_off(patch: pytest.MonkeyPatch, at: str) -> None:
    """Interrupt whoever puts a file of this name in its place."""
    replace = Path.replace

    def interrupted(self: Path, target: Path) -> Path:
        if Path(target).name == at:
            raise KeyboardInterrupt
        return replace(self, target)

    patch.setattr(Path, "replace", interrupted)


@pytest.mark.parametrize("table", ["to_parquet", "to_csv"])
def test_a_full_disk_leaves_no_half_table(run: Path, tiny_cohort: Cohort, split: Split, table: str) -> None:
    def half(_: pd.DataFrame, path: Path, **__: Any) -> None:
        path.write_bytes(b"PAR1 half")
        raise OSError(errno.ENOSPC, "No space left on device")

    evaluate(run, tiny_cohort, split)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pd.DataFrame, table, half)
        with pytest.raises(StorageError, match="No space left"):
            evaluate(run, tiny_cohort, split)
    assert not [path for path in run.rglob("*") if path.is_file() and b"half" in path.read_bytes()]
    assert len(pd.read_parquet(run / "predictions" / "val.parquet"))


DAMAGE: dict[str, tuple[str, Any]] = {
    "no fingerprint": ("run.json", lambda run: run["cohort"].pop("fingerprint")),
    "no split": ("run.json", lambda run: run.pop("split")),
    "a count of words": ("run.json", lambda run: run.update(test_opened="once")),
    "no timings": ("run.json", lambda run: run.pop("timings")),
    "limits of words": ("calibration.json", lambda settings: settings.update(abstention={"low": "a", "high": "b"})),
    "an unknown fit": ("calibration.json", lambda settings: settings["calibration"].update(fit="spline")),
    "no history": ("history.csv", None),
    "a history of words": ("history.csv", "epoch,stage,val_loss\n1,all,low\n"),
    "an empty history": ("history.csv", "epoch,stage,val_loss\n"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_run_is_refused_before_its_test_patients_are_opened(
    run: Path, tiny_cohort: Cohort, split: Split, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    name, change = DAMAGE[what]
    if callable(change):
        content = read(run, name)
        change(content)
        (run / name).write_text(json.dumps(content))
    elif change is None:
        (run / name).unlink()
    else:
        (run / name).write_text(change)
    before = {path.name: path.read_bytes() for path in run.iterdir()}

    def opened(*_: Any, **__: Any) -> np.ndarray:
        raise AssertionError("a patient was looked at")

    monkeypatch.setattr(Split, "rows", opened)
    with pytest.raises(RunError, match=name):
        evaluate(run, tiny_cohort, split)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_run_that_is_being_written_is_left_alone(
    run: Path, tiny_cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ductal.locks.PATIENCE_SECONDS", 0.0)
    monkeypatch.chdir(run)  # where it is called "."
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    command = ["evaluate", ".", "--cohort", str(tiny_cohort.folder)]
    with locked(run):
        refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 11
    assert "is being written by another ductal command" in refused.output
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    assert CliRunner().invoke(app, command).exit_code == 0
    assert read(run, "run.json")["test_opened"] == 1
    assert [path.name for path in run.parent.iterdir()] == [run.name]


@pytest.mark.parametrize("rule", ["sensitivity=0.95", "cost:5", "balanced_accuracy"])
def test_a_threshold_is_chosen_anew_on_validation_patients(
    run: Path, tiny_cohort: Cohort, split: Split, rule: str
) -> None:
    evaluate(run, tiny_cohort, split)
    metrics = evaluate(run, tiny_cohort, split, threshold_rule=rule)
    settings = read(run, "calibration.json")
    val = pd.read_parquet(run / "predictions" / "val.parquet")
    assert settings["threshold"] == ThresholdRule.parse(rule).choose(val["label"], val["prob"])
    assert settings["threshold_rule"] == ThresholdRule.parse(rule).says
    assert settings["earlier_thresholds"] == [{"threshold": 0.5, "threshold_rule": "the first one"}]
    kept = ("temperature", "bias", "calibration", "labels", "patch_size")
    assert [settings[name] for name in kept] == [CALIBRATION[name] for name in kept]
    for part in ("val", "test"):
        assert metrics[part]["threshold"] == read(run, "metrics.json")[part]["threshold"] == settings["threshold"]
    assert read(run, "run.json")["test_opened"] == 2  # another look
    for name in ("report.html", "MODEL_CARD.md"):
        text = (run / name).read_text()
        assert ThresholdRule.parse(rule).says in text
        assert "0.500 (the first one)" in text


def test_labels_of_test_patients_do_not_move_the_threshold(
    run: Path, tiny_cohort: Cohort, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(run, tiny_cohort, split, threshold_rule="sensitivity:0.9")
    before = read(run, "calibration.json")["threshold"]
    opened: list[str] = []
    rows = Split.rows

    def watched(self: Split, cohort: Cohort, part: Any, **more: Any) -> np.ndarray:
        opened.append(part)
        return rows(self, cohort, part, **more)

    def stop(*_: Any) -> None:
        raise InterruptedError

    monkeypatch.setattr(Split, "rows", watched)
    monkeypatch.setattr("ductal.evaluation.evaluate._evaluate_parts", stop)
    with pytest.raises(InterruptedError):
        evaluate(run, tiny_cohort, split, threshold_rule="cost:5")
    assert opened == ["val"]
    assert read(run, "calibration.json")["threshold"] == before  # a failure leaves the run as it was


def test_rules_that_cannot_be_are_refused(run: Path, tiny_cohort: Cohort, split: Split) -> None:
    with pytest.raises(RunError, match="no threshold rule"):
        evaluate(run, tiny_cohort, split, threshold_rule="best")
    # Averaging over flips belongs to what a run was calibrated with: it is no option of the evaluation.
    assert CliRunner().invoke(app, ["evaluate", str(run), "--threshold-rule", "cost:5", "--d4"]).exit_code == 2
    assert read(run, "calibration.json") == CALIBRATION
    assert read(run, "run.json")["test_opened"] == 0


def test_fast_is_written_down(run: Path, tiny_cohort: Cohort, split: Split) -> None:
    evaluate(run, tiny_cohort, split)
    exact = read(run, "metrics.json")
    evaluate(run, tiny_cohort, split, fast=True)
    fast = read(run, "metrics.json")
    assert (exact["exact"], fast["exact"]) == (True, False)
    assert fast["val"]["at_0.5"]["roc_auc"] == pytest.approx(exact["val"]["at_0.5"]["roc_auc"], abs=0.02)


def test_from_the_command_line(run: Path) -> None:
    done = CliRunner().invoke(app, ["evaluate", str(run), "--threshold-rule", "sensitivity=0.95"])
    assert done.exit_code == 0, done.output
    assert "0.95" in read(run, "calibration.json")["threshold_rule"]
    refused = CliRunner().invoke(app, ["evaluate", str(run), "--threshold-rule", "best"])
    assert refused.exit_code == 9
    assert "balanced_accuracy, sensitivity, cost" in refused.output


def test_doubts_that_neighbours_share_are_apart(run: Path, tiny_cohort: Cohort, split: Split) -> None:
    evaluate(run, tiny_cohort, split)
    shared = pd.read_csv(run / "failures" / "suspects.csv")
    alone = pd.read_csv(run / "failures" / "suspects_alone.csv")
    assert shared["agreeing"].notna().all()
    assert "agreeing" not in alone
    assert not set(shared["patch_id"]) & set(alone["patch_id"])

"""A run folder is read whole, or refused with a reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import fake_runs as fake
import pandas as pd
import pytest

from ductal.errors import RunError
from ductal.evaluation.compare import leaderboard
from ductal.evaluation.model_card import write_model_card
from ductal.evaluation.report import write_run_report
from ductal.evaluation.runs import load_run


@pytest.mark.parametrize("missing", ["run.json", "metrics.json", "history.csv", "predictions"])
def test_an_incomplete_run_is_refused(tmp_path: Path, missing: str) -> None:
    folder = fake.make_run(tmp_path / "run")
    path = folder / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(RunError):
        load_run(folder)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="There is no run folder"):
        load_run(tmp_path / "absent")
    folder = fake.make_run(tmp_path / "run")
    for broken in ("[]", "{", "{}"):
        (folder / "run.json").write_text(broken)
        with pytest.raises(RunError):
            load_run(folder)
    with pytest.raises(RunError, match="no run to compare"):
        leaderboard([])


@pytest.mark.parametrize("point", ["at_threshold", "at_0.5", "per_patient"])
def test_damaged_metrics_are_refused(tmp_path: Path, point: str) -> None:
    folder = fake.make_run(tmp_path / "run")
    metrics = json.loads((folder / "metrics.json").read_text())
    for damaged in (None, {"roc_auc": "high"}, 3):
        metrics["test"][point] = damaged
        (folder / "metrics.json").write_text(json.dumps(metrics))
        with pytest.raises(RunError, match=f"test\\.{point}"):
            leaderboard([folder])


@pytest.mark.parametrize("column", ["patch_id", "patient"])
def test_predictions_without_names_are_refused(tmp_path: Path, column: str) -> None:
    folder = fake.make_run(tmp_path / "run")
    path = folder / "predictions" / "test.parquet"
    honest = pd.read_parquet(path)
    changed = [honest.assign(**{column: values}) for values in (1, None)]
    for damaged in [*changed, honest.iloc[:0], pd.concat([honest, honest.iloc[:1]])]:
        damaged.to_parquet(path, index=False)
        with pytest.raises(RunError, match=r"test\.parquet cannot be read"):
            leaderboard([folder])


@pytest.mark.parametrize(
    "content", ["", "patient,n\nq,3\n", "patient,n,errors\nq,3,many\n", "patient,n,errors\nq,inf,1\n", "\0\xff"]
)
def test_damaged_tables_of_failures_are_refused(tmp_path: Path, content: str) -> None:
    folder = fake.make_run(tmp_path / "run")
    (folder / "failures").mkdir()
    (folder / "failures" / "patients.csv").write_text(content, encoding="latin-1")
    for reader in (write_run_report, write_model_card):
        with pytest.raises(RunError, match=r"patients\.csv cannot be read"):
            reader(folder)


def test_predictions_carry_their_threshold(tmp_path: Path) -> None:
    run = load_run(fake.make_run(tmp_path / "run"))
    table = run.predictions("test")
    assert (table["threshold"] == run.metrics["test"]["threshold"]).all()
    assert (table["fold"] == 0).all()
    assert not run.pooled

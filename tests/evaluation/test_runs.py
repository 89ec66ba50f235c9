"""A run folder is read whole, or refused with a reason."""

from __future__ import annotations

import shutil
from pathlib import Path

import fake_runs as fake
import pytest

from ductal.errors import RunError
from ductal.evaluation.compare import leaderboard
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


def test_predictions_carry_their_threshold(tmp_path: Path) -> None:
    run = load_run(fake.make_run(tmp_path / "run"))
    table = run.predictions("test")
    assert (table["threshold"] == run.metrics["test"]["threshold"]).all()
    assert (table["fold"] == 0).all()
    assert not run.pooled

"""The folder of a study: one command at a time, one study, and a cohort and split that only that study changes."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from rich.console import Console
from small_studies import computed, tuning

from ductal.data.cohort import Cohort
from ductal.errors import BusyError, RunError
from ductal.experiment import Plan, run_experiment
from ductal.experiment_data import split_audited
from ductal.tune.search import tune
from ductal.tune.study import Tuning


def test_a_refused_command_changes_nothing(tiny_zip: Path, tmp_path: Path) -> None:
    """Whatever was asked for otherwise: the cohort and the split of the study stay, so that its test patients do."""

    source = Path(shutil.copy(tiny_zip, tmp_path))

    def settings(trials: int = 1, **changes: Any) -> Tuning:
        made = tuning(source, tmp_path / "out", trials)
        return replace(made, data=replace(made.data, **changes))

    def there() -> dict[str, bytes]:
        files = (path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name != "study.db")
        return {str(path): path.read_bytes() for path in files}

    tune(settings(), run=computed)
    before = there()
    assert {"split.json", "patches.npy", "source.json"} <= {Path(name).name for name in before}
    for other, changes in {
        "split": {"ratios": (0.5, 0.25, 0.25)},
        "cohort, selection, split": {"patients": 9},
        "selection": {"limit_per_class": 3},
        "seed": {"seed": 6},
    }.items():
        with pytest.raises(RunError, match=f"made with other settings: {other}"):
            tune(settings(**changes), run=computed)
        assert there() == before, other
    os.utime(source, ns=(1, 1))  # prepared again, and the same cohort
    assert len(tune(settings(2), run=computed).trials) == 2
    again = there()
    split, pixels = str(tmp_path / "out" / "split.json"), str(tmp_path / "out" / "cohort" / "patches.npy")
    assert (again[split], again[pixels]) == (before[split], before[pixels])
    assert [path.name for path in (tmp_path / "out").glob(".*")] == []


def test_one_command_works_in_a_folder(
    tiny_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ductal.locks.PATIENCE_SECONDS", 0.1)

    def run(*arguments: Any) -> float:
        with pytest.raises(BusyError, match="is being written by another ductal command"):
            tune(tuning(tiny_cohort.folder, tmp_path, 1), run=computed)
        with pytest.raises(BusyError):
            run_experiment(Plan(source=tiny_cohort.folder, out=tmp_path))
        return computed(*arguments)

    assert len(tune(tuning(tiny_cohort.folder, tmp_path, 1), run=run).trials) == 1


def test_a_folder_holds_one_study(tiny_cohort: Cohort, tmp_path: Path) -> None:
    """Another name, or the same name in another database: its trials would be written over those that are there."""
    tune(tuning(tiny_cohort.folder, tmp_path / "out", 2), run=computed)
    before = (tmp_path / "out" / "best.toml").read_bytes()
    elsewhere = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    for changes in ({"study": "B"}, {"storage": elsewhere}, {"study": "B", "storage": elsewhere}):
        with pytest.raises(RunError, match=r"has the trials of the study ductal.*Name another --out"):
            tune(tuning(tiny_cohort.folder, tmp_path / "out", 3, **changes), run=computed)
    assert optuna.get_all_study_names(f"sqlite:///{tmp_path / 'out' / 'study.db'}") == ["ductal"]
    assert (tmp_path / "out" / "best.toml").read_bytes() == before
    # Two in one database, with a folder each.
    here = f"sqlite:///{tmp_path / 'out' / 'study.db'}"
    assert len(tune(tuning(tiny_cohort.folder, tmp_path / "B", 1, study="B", storage=here), run=computed).trials) == 1
    assert len(tune(tuning(tiny_cohort.folder, tmp_path / "out", 3), run=computed).trials) == 3


def test_a_run_on_another_split_than_the_study_is_noted(tiny_cohort: Cohort, tmp_path: Path) -> None:
    """Its test patients may be among those that trained or chose what was found."""
    tune(tuning(tiny_cohort.folder, tmp_path, 1), run=computed)
    said = Console(width=300, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    plan = Plan(tiny_cohort.folder, recipes=(str(tmp_path / "best.toml"), "vgg16-frozen"))
    split_audited(replace(plan, split_file=tmp_path / "split.json"), tiny_cohort, said)
    assert "tuned on another split" not in said.export_text(clear=False)
    split_audited(plan, tiny_cohort, said)
    assert said.export_text().count(f"Note: {tmp_path / 'best.toml'} was tuned on another split") == 1

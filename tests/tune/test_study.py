"""Studies: as many trials as were asked for, whatever happens to the process that runs them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState
from rich.console import Console
from small_studies import CRASHES_FROM, STEPS, computed, figure, settled, tuning

from ductal.data.cohort import Cohort
from ductal.data.split import Split
from ductal.errors import FeaturesError, HeldOutError, RunError, StorageError
from ductal.tracking.options import Tracking
from ductal.training.recipe import Recipe
from ductal.training.recipe_file import load_recipe
from ductal.tune import running
from ductal.tune import study as study_module
from ductal.tune.search import tune
from ductal.tune.storage import open_study, pruner_of
from ductal.tune.study import Tuning
from ductal.tune.trial import Bench, Report
from ductal.tune.trials import was_interrupted


@pytest.mark.usefixtures("with_plots")
def test_a_study_finds_better_settings(tiny_cohort: Cohort, tmp_path: Path) -> None:
    style = dict(matplotlib.rcParams)
    found = tune(tuning(tiny_cohort.folder, tmp_path, 30), run=computed)
    assert dict(matplotlib.rcParams) == style  # Optuna's own is for its plots alone
    assert found.best is not None
    assert found.first is not None
    assert found.first.number == 0  # the recipe itself goes first
    assert found.first.value == pytest.approx(figure(load_recipe("vgg16-frozen")))
    assert found.best.value > found.first.value
    tuned = load_recipe(tmp_path / "best.toml")
    assert (tuned.name, figure(tuned)) == ("vgg16-frozen-tuned", found.best.value)
    head = (tmp_path / "best.toml").read_text()
    assert f"fingerprint {tiny_cohort.info.fingerprint}" in head
    assert f"# val_auc {found.best.value:.4f} on the validation patients" in head
    assert "SYNTHETIC" in head
    table = pd.read_csv(tmp_path / "trials.csv")
    assert len(table) == 30
    assert set(table["state"]) <= {"complete", "failed"}
    for name in ("history", "importances", "slice", "contour", "parallel", "intermediate"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 10_000
    report = (tmp_path / "report.html").read_text()
    assert 'src="http' not in report  # nothing is loaded from elsewhere
    assert 'href="http' not in report
    assert report.count("data:image/png;base64,") == 6
    assert "partly the luckiest" in report


@pytest.mark.parametrize(
    ("name", "value"),
    [("gpus", 1), ("deterministic", True), ("tracking", Tracking()), ("fresh", True), ("profile", "quick")],
)
def test_what_trials_would_not_heed_is_refused(name: str, value: Any, tiny_cohort: Cohort, tmp_path: Path) -> None:
    asked = tuning(tiny_cohort.folder, tmp_path / "out", 1)
    with pytest.raises(RunError, match=rf"Plan\.{name} has no effect on the trials of a study"):
        tune(replace(asked, data=replace(asked.data, **{name: value})), run=computed)
    assert not (tmp_path / "out").exists()


def test_a_study_has_one_recipe(tiny_cohort: Cohort, tmp_path: Path) -> None:
    asked = tuning(tiny_cohort.folder, tmp_path / "out", 1)
    two = ("vgg16-frozen", "vgg16-top4")
    with pytest.raises(RunError, match=r"one recipe. Received: vgg16-frozen, vgg16-top4"):
        tune(replace(asked, data=replace(asked.data, recipes=two)), run=computed)
    assert not (tmp_path / "out").exists()


def test_trials_that_fail_are_told_and_counted(tiny_cohort: Cohort, tmp_path: Path) -> None:
    console = Console(width=300, record=True, quiet=False, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    found = tune(tuning(tiny_cohort.folder, tmp_path, 12), console, computed)
    failed = found.trials[found.trials["state"] == "failed"]
    assert 0 < len(failed) < 12
    assert (failed["head.dropout"] > CRASHES_FROM).all()
    assert failed["problem"].str.contains("was killed by signal 9").all()
    assert "failed: The training of vgg16-frozen was killed by signal 9" in console.export_text()


def test_a_trial_whose_features_do_not_fit_has_failed(tiny_cohort: Cohort, tmp_path: Path) -> None:
    """Others may need fewer; the same command would take that trial first again, and never get past it."""

    def run(bench: Bench, recipe: Recipe, folder: Path, report: Report) -> float:
        if folder.name == "0001":
            raise FeaturesError("The disk has no room for the features of the encoder.")
        return computed(bench, recipe, folder, report)

    found = tune(tuning(tiny_cohort.folder, tmp_path, 3), run=run)
    assert found.trials["state"][1] == "failed"
    assert found.trials["problem"][1] == "The disk has no room for the features of the encoder."
    assert len(found.trials) == 3


def test_if_all_trials_fail_the_reason_is_told(tiny_cohort: Cohort, tmp_path: Path) -> None:
    def crash(*_: Any) -> float:
        raise RunError("the disk is made of cheese")

    with pytest.raises(RunError, match=r"No trial has finished with a figure.*The last: the disk is made of cheese"):
        tune(tuning(tiny_cohort.folder, tmp_path, 2), run=crash)
    assert "the disk is made of cheese" in (tmp_path / "report.html").read_text()
    assert not (tmp_path / "best.toml").exists()


def test_hopeless_trials_are_pruned(tiny_cohort: Cohort, tmp_path: Path) -> None:
    begun: list[int] = []

    def counted(bench: Bench, recipe: Recipe, folder: Path, report: Report) -> float:
        def told(step: int, value: float) -> None:
            begun.append(step)
            report(step, value)

        return computed(bench, recipe, folder, told)

    found = tune(tuning(tiny_cohort.folder, tmp_path, 20, pruner="median"), run=counted)
    pruned = found.trials[found.trials["state"] == "pruned"]
    assert len(pruned) >= 3
    assert (pruned["steps"] < STEPS).all()
    trained = found.trials[found.trials["state"] != "failed"]
    assert len(begun) == trained["steps"].sum() < STEPS * len(trained)


@pytest.mark.parametrize("kind", ["median", "hyperband", "none"])
def test_rules_of_pruning_leave_the_best(kind: Any) -> None:
    study = optuna.create_study(
        direction="maximize", pruner=pruner_of(kind, 27), sampler=optuna.samplers.RandomSampler(1)
    )
    pruned = 0
    for number in range(30):
        trial = study.ask()
        value = 1.0 if number == 20 else trial.suggest_float("x", 0.0, 0.9)
        for step in range(1, 28):
            trial.report(value, step)
            if trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                pruned += 1
                break
        else:
            study.tell(trial, value)
    assert study.best_trial.number == 20
    assert (pruned > 5) == (kind != "none")


def test_no_trial_begins_after_the_timeout(tiny_cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="No trial has finished"):
        tune(tuning(tiny_cohort.folder, tmp_path, 50, timeout_minutes=0.0), run=computed)
    assert settled(tmp_path) == []


def test_a_study_has_one_kind_of_trial(tiny_cohort: Cohort, tmp_path: Path) -> None:
    tune(tuning(tiny_cohort.folder, tmp_path, 1), run=computed)
    with pytest.raises(RunError, match="made with other settings: inner_folds, metric"):
        tune(tuning(tiny_cohort.folder, tmp_path, 2, metric="val_loss", inner_folds=3), run=computed)


def test_databases_that_cannot_be_used(tiny_cohort: Cohort, tmp_path: Path) -> None:
    for url in ("nonsense", "oracle://a/b", "postgresql+psycopg://ductal:secret@127.0.0.1:1/none"):
        with pytest.raises(StorageError, match="The database of the study cannot be used") as caught:
            tune(tuning(tiny_cohort.folder, tmp_path, 1, storage=url), run=computed)
        assert "secret" not in str(caught.value)


def test_low_is_good_for_a_loss(tiny_cohort: Cohort, tmp_path: Path) -> None:
    def loss(bench: Bench, recipe: Recipe, folder: Path, report: Report) -> float:
        return -computed(bench, recipe, folder, lambda step, value: report(step, -value))

    found = tune(tuning(tiny_cohort.folder, tmp_path, 12, metric="val_loss"), run=loss)
    assert found.best is not None
    assert found.best.value == found.trials["value"].min()


def test_test_patients_are_not_given_to_trials(
    tiny_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only are they closed: nothing that a trial gets says who they are, and no row of theirs is asked for."""
    seen: list[Split] = []
    parts = []
    honest = Split.rows

    def watched(self: Split, cohort: Cohort, part: Any, **options: Any) -> Any:
        parts.append(part)
        return honest(self, cohort, part, **options)

    monkeypatch.setattr(Split, "rows", watched)

    def run(bench: Bench, recipe: Recipe, folder: Path, report: Report) -> float:
        seen.extend(part.split for part in bench.patients.choosing)
        with pytest.raises(HeldOutError):
            seen[0].rows(bench.patients.cohort, "test")
        parts.remove("test")
        return computed(bench, recipe, folder, report)

    tune(tuning(tiny_cohort.folder, tmp_path / "plain", 2), run=run)
    monkeypatch.setattr("ductal.tune.search.judge_once", lambda study: None)  # noqa: ARG005
    tune(tuning(tiny_cohort.folder, tmp_path / "nested", 2, inner_folds=2), run=run)
    assert len(seen) == 2 + 2 * 2
    whole = Split.load(tmp_path / "plain" / "split.json")
    closed = set(whole.parts["test"])
    assert closed
    assert "test" not in parts
    for split in seen:
        assert not split.parts["test"]
        assert not closed.intersection(split.parts["train"], split.parts["val"])
    judges = set(whole.parts["val"])
    for split in seen[2:]:
        assert not judges.intersection(split.parts["train"] + split.parts["val"])


def test_more_trials_are_added_to_a_finished_study(tiny_cohort: Cohort, tmp_path: Path) -> None:
    tune(tuning(tiny_cohort.folder, tmp_path, 3), run=computed)
    assert len(tune(tuning(tiny_cohort.folder, tmp_path, 5), run=computed).trials) == 5
    assert len(tune(tuning(tiny_cohort.folder, tmp_path, 5), run=computed).trials) == 5


def test_a_study_whose_maker_was_killed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ductal.tune.storage._SECONDS_TO_SETTLE", 0.1)
    url = f"sqlite:///{tmp_path / 'study.db'}"
    optuna.create_study(study_name="ductal", storage=url, direction="maximize")
    made = open_study(
        url, "ductal", {"a": 1}, direction="maximize", seed=1, pruner=pruner_of("none", 3), first={"x": 1.0}
    )
    assert made.user_attrs["settings"] == {"a": 1}
    assert [trial.state for trial in made.trials] == [TrialState.WAITING]


def test_a_place_is_taken_once(tiny_cohort: Cohort, tmp_path: Path) -> None:
    """Another worker begins the last trial between this one's look and its own trial."""
    settings: Tuning = tuning(tiny_cohort.folder, tmp_path, 3)
    varied = study_module.what_varies(settings)
    study = study_module.prepare_study(settings, *varied, Console(quiet=True), computed)
    others = [study.optuna.ask() for _ in range(3)]
    for trial in others:
        trial.set_user_attr("worker", {"host": "elsewhere", "process": 1})
    running._one_trial(study, lambda: None)
    assert len(study.trials()) == 4
    assert was_interrupted(study.trials()[3])
    for trial in others:
        study.space.suggest(trial)
        study.optuna.tell(trial, 0.5)
    assert len(tune(settings, run=computed).trials) == 3

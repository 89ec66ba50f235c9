"""Nested studies: inner folds choose, the validation patients judge the best trial and the shipped recipe once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from small_studies import computed, figure, tuning

from ductal.data.cohort import Cohort
from ductal.data.split import Split
from ductal.record import predictions_of, save_predictions
from ductal.training.recipe import Recipe
from ductal.tune import judge
from ductal.tune.patients import Audited
from ductal.tune.search import tune
from ductal.tune.trial import Bench


def predicted(bench: Bench, recipe: Recipe, part: Audited, folder: Path) -> float:
    """In place of `train_part`: probabilities that are the better, the better the recipe is."""
    cohort = bench.patients.cohort
    rows = part.split.rows(cohort, "val")
    noise = np.random.default_rng(1).random(len(rows))
    share = figure(recipe)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.keras").touch()
    probs = share * cohort.labels[rows] / 2 + (1 - share) * noise
    save_predictions(folder, "val", predictions_of(cohort, rows, probs))
    return share


def test_validation_patients_judge_once(tiny_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Split]] = []

    def watched(bench: Bench, recipe: Recipe, part: Audited, folder: Path) -> float:
        asked.append((folder.name, part.split))
        return predicted(bench, recipe, part, folder)

    monkeypatch.setattr(judge, "train_part", watched)
    settings = tuning(tiny_cohort.folder, tmp_path, 15, inner_folds=2)
    found = tune(settings, run=computed)
    assert [name for name, _ in asked] == ["best", "shipped"]
    whole = Split.load(tmp_path / "split.json")
    for _, split in asked:
        assert split.parts == whole.parts | {"test": []}
    assert found.best is not None
    assert found.chosen_on is None
    last = found.judged[-1]
    assert (last.trial, last.patients) == (found.best.number, len(whole.parts["val"]))
    assert last.shipped is not None
    assert last.gain is not None
    assert last.gain[0] == pytest.approx(last.best[0] - last.shipped[0])
    assert last.gain[0] >= 0
    tune(settings, run=computed)
    assert len(asked) == 2
    report = (tmp_path / "report.html").read_text()
    assert "The validation patients had no part in choosing the trial." in report
    assert "inner folds of the training patients" in (tmp_path / "best.toml").read_text()


def test_the_first_of_two_judgements_is_kept(
    tiny_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers end together: while this one trains, the other writes down what it has found."""
    storage = f"sqlite:///{tmp_path / 'shared.db'}"

    def train(*arguments: Any) -> float:
        shared = optuna.load_study(study_name="ductal", storage=storage)
        shared.set_user_attr(judge.JUDGED, [{**first, "trial": shared.best_trial.number}])
        return predicted(*arguments)

    first = {"best": [0.5, None, None], "shipped": None, "gain": None, "patients": 1, "patches": 1}
    monkeypatch.setattr(judge, "train_part", train)
    settings = tuning(tiny_cohort.folder, tmp_path / "out", 2, inner_folds=2, storage=storage)
    assert [each.patients for each in tune(settings, run=computed).judged] == [1]


def test_a_study_that_finds_nothing_better_says_so(
    tiny_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "train_part", predicted)
    found = tune(tuning(tiny_cohort.folder, tmp_path, 1, inner_folds=2), run=computed)
    assert found.judged[-1].shipped is None
    assert "That is the recipe vgg16-frozen as it was: no trial is better." in (tmp_path / "report.html").read_text()


def test_plain_studies_compare_and_correct(tiny_cohort: Cohort, tmp_path: Path) -> None:
    """Where the predictions of all trials are there, the report says what the choice among them adds."""

    def run(bench: Bench, recipe: Recipe, folder: Path, report: Any) -> float:
        predicted(bench, recipe, bench.patients.outer, folder)
        folder.joinpath("model.keras").unlink()
        report(1, figure(recipe))
        return figure(recipe)

    settings = tuning(tiny_cohort.folder, tmp_path, 6)
    changed = {"ratios": (0.1, 0.85, 0.05)}
    settings = type(settings)(**{**vars(settings), "data": type(settings.data)(**{**vars(settings.data), **changed})})
    found = tune(settings, run=run)
    assert found.chosen_on is not None
    assert found.optimism is not None
    assert found.optimism.trials == 6
    assert found.optimism.patients >= 10
    assert "Tsamardinos" in (tmp_path / "report.html").read_text()

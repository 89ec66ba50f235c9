"""The best trial against the recipe it began from, on the same patients, with intervals over patients."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from optuna.trial import TrialState

from ductal.console import say
from ductal.evaluation.bootstrap import MIN_PATIENTS, Resampling, patients_of
from ductal.evaluation.differences import Patches, Scored, difference, resampled
from ductal.tune.optimism import Optimism, selection_optimism
from ductal.tune.study import Study, best_trial, first_trial, recipe_of
from ductal.tune.trial import delete_network, train_part

JUDGED = "judged"  # user attribute of a study: what the validation patients said, once for each best trial
FOLDER = "judged"


@dataclass(frozen=True)
class Comparison:
    """ROC AUC of the best trial and of the recipe it began from: (value, low, high), bounds None with few patients.

    Attributes:
        trial: number of the best trial.
        best: its figure.
        shipped: the recipe's; None where the study has none, or the recipe is the best trial itself.
        gain: best less shipped, with the p value of a permutation test over patients as the last entry.
        patients, patches: what it was measured on.
    """

    trial: int
    best: tuple[float, float | None, float | None]
    shipped: tuple[float, float | None, float | None] | None
    gain: tuple[float, float | None, float | None, float] | None
    patients: int
    patches: int


def judge_once(study: Study) -> None:
    """Train the best trial's recipe and the shipped one on all training patients, and measure both on validation.

    Only for studies that chose on inner folds. The result is kept with the study, so that it is not repeated. Workers
    that end together all train, and what the first has found is kept.
    """
    best = best_trial(study)
    judged: list[dict[str, Any]] = list(study.optuna.user_attrs.get(JUDGED, []))
    if not study.tuning.inner_folds or best is None or (judged and judged[-1]["trial"] == best.number):
        return
    first = first_trial(study)
    say(study.console, "The validation patients, which have chosen nothing until now, judge the best trial")
    tables = {}
    for name, trial in {"best": best, "shipped": first}.items():
        if trial is not None and (name == "best" or trial.number != best.number):
            folder = study.folder / FOLDER / name
            train_part(study.bench, recipe_of(study, trial), study.bench.patients.outer, folder)
            delete_network(folder)
            tables[name] = _predictions(folder)
    found = compare(best.number, tables["best"], tables.get("shipped"))
    judged = list(study.optuna.user_attrs.get(JUDGED, []))  # anew: another worker may have judged meanwhile
    if not judged or judged[-1]["trial"] != best.number:
        study.optuna.set_user_attr(JUDGED, [*judged, found.__dict__])


def judgements(study: Study) -> list[Comparison]:
    """What the validation patients said of the best trials of a study with inner folds, oldest first."""
    return [Comparison(**found) for found in study.optuna.user_attrs.get(JUDGED, [])]


def compare_trials(study: Study) -> Comparison | None:
    """The comparison on the validation patients that chose; None where their predictions are on another machine."""
    best = best_trial(study)
    if study.tuning.inner_folds or best is None:
        return None
    first = first_trial(study)
    tables = {trial.number: _predictions(study.trial_folder(trial.number)) for trial in (best, first) if trial}
    if tables[best.number] is None:
        return None
    shipped = tables[first.number] if first is not None and first.number != best.number else None
    return compare(best.number, tables[best.number], shipped)


def optimism_of(study: Study) -> Optimism | None:
    """What the choice among the complete trials adds; None where it cannot be said.

    That is with inner folds, where other patients judge; for other metrics; where patients are unknown or few; and
    where predictions of a trial are on another machine.
    """
    if study.tuning.inner_folds or study.tuning.metric != "val_auc":
        return None
    complete = [trial for trial in study.trials() if trial.state == TrialState.COMPLETE]
    tables = [_predictions(study.trial_folder(trial.number)) for trial in complete]
    known = [table for table in tables if table is not None]
    if len(known) < max(2, len(tables)):
        return None
    patient = known[0]["patient"].to_numpy(dtype=str)
    if (patient == "").any() or np.unique(patient).size < MIN_PATIENTS:
        return None
    return selection_optimism(known[0]["label"], [table["prob"].to_numpy() for table in known], patient)


def compare(trial: int, best: pd.DataFrame | None, shipped: pd.DataFrame | None) -> Comparison:
    """Compare predictions of the same patches, columns patient, label and prob; see `Comparison`."""
    assert best is not None
    names, group = np.unique(best["patient"].to_numpy(dtype=str), return_inverse=True)
    patches = Patches(best["label"].to_numpy().astype(bool), group, len(names))
    # Without patients there are no draws to make: every patch would count as one of the same patient.
    draws = Resampling(len(names))
    rests_on = patients_of(patches.truth, group, len(names))["roc_auc"]

    def scored(table: pd.DataFrame) -> Scored:
        probs = table["prob"].to_numpy(np.float64)
        return Scored(probs, probs >= 0.5)

    def figure(table: pd.DataFrame) -> tuple[float, float | None, float | None]:
        values = resampled(patches, scored(table), draws)["roc_auc"]
        return (float(values[0]), *(draws.interval(values, patches=len(group), rests_on=rests_on) or (None, None)))

    gain = None
    if shipped is not None:
        found = difference(patches, scored(best), scored(shipped), draws)["roc_auc"]
        gain = (found.value, *(found.interval or (None, None)), found.p)
    return Comparison(trial, figure(best), None if shipped is None else figure(shipped), gain, len(names), len(group))


def _predictions(folder: Path) -> pd.DataFrame | None:
    path = folder / "predictions" / "val.parquet"
    return pd.read_parquet(path) if path.is_file() else None

"""A study: trials of one recipe until there are enough, by one worker or many, and what came of them."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import TrialPruned, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState
from rich.console import Console

from ductal.console import say
from ductal.errors import DuctalError, RunError, StorageError, WeightsError
from ductal.experiment import FEATURES, Plan, load_recipes
from ductal.training.recipe import Monitor, Recipe
from ductal.tune.patients import Patients, open_patients
from ductal.tune.space import Space, load_space
from ductal.tune.storage import (
    Pruning,
    fail_orphans,
    open_study,
    pruner_of,
    requeue,
    storage_url,
    worker_here,
)
from ductal.tune.trial import Bench, RunTrial, better, run_trial
from ductal.tune.trials import DRAWN, PROBLEM, WORKER, is_settled, is_taken, was_interrupted

TRIALS = "trials"
_WAIT_SECONDS = 2.0  # between looks at trials that other workers are busy with
_PROBLEM_LENGTH = 1000  # characters of a reason that a database must hold


@dataclass(frozen=True)
class Tuning:
    """What `tune` shall do.

    Attributes:
        data: source, split, selection, seed and folder, as for `ductal.experiment.run_experiment`; its one recipe
            is the one that varies.
        space: path of a search space, or the name of a shipped one; None takes the one of the recipe's name.
        trials: how many a study has when it is done, whoever ran them; failed ones count.
        metric: of history.csv, on validation patients, at the epoch whose weights are kept.
        pruner: which rule ends hopeless trials.
        inner_folds: choose on so many folds of the training patients; None chooses on the validation patients.
        storage: SQLAlchemy address of a database; None is a SQLite file in the folder.
        study: its name in the database.
        timeout_minutes: no trial begins after so long.
    """

    data: Plan
    space: str | None = None
    trials: int = 40
    metric: Monitor = "val_auc"
    pruner: Pruning = "median"
    inner_folds: int | None = None
    storage: str | None = None
    study: str = "ductal"
    timeout_minutes: float | None = None


@dataclass(frozen=True)
class Study:
    """A study as one worker sees it."""

    tuning: Tuning
    recipe: Recipe
    space: Space
    bench: Bench
    optuna: optuna.Study
    console: Console
    run: RunTrial = field(default=run_trial)

    @property
    def folder(self) -> Path:
        """Where everything is written."""
        return self.tuning.data.out

    def trial_folder(self, number: int) -> Path:
        """What a trial leaves behind."""
        return self.folder / TRIALS / f"{number:04d}"

    def trials(self) -> list[FrozenTrial]:
        """As the database has them now."""
        return self.optuna.get_trials(deepcopy=False)


class _FailedError(Exception):
    """A trial that is over for a reason of its own."""


class _NoPlaceError(Exception):
    """Another worker has begun the last trial a moment earlier."""


def prepare_study(tuning: Tuning, console: Console, run: RunTrial = run_trial) -> Study:
    """Read and check everything, open the patients, then make or join the study.

    Raises:
        DuctalError: any of its kinds, before a trial has begun.
    """
    data = tuning.data
    recipe = load_recipes(data.recipes, "full", data.max_epochs)[0]
    space = load_space(tuning.space or recipe.name)
    space.check(recipe)
    patients = open_patients(data, console, tuning.inner_folds)
    first = space.labels_of(recipe)
    if first is None:
        say(console, f"Note: the recipe {recipe.name} itself lies outside the space, so it is no trial of the study")
    steps = len(patients.inner) or sum(stage.epochs for stage in recipe.stages)
    study = open_study(
        storage_url(data.out, tuning.storage),
        tuning.study,
        settings_of(tuning, recipe, space, patients),
        direction="minimize" if better(tuning.metric) is min else "maximize",
        seed=data.seed,
        pruner=pruner_of(tuning.pruner, steps),
        first=first,
    )
    bench = Bench(patients, tuning.metric, data.seed, data.out / FEATURES, data.weights_file)
    return Study(tuning, recipe, space, bench, study, console, run)


def settings_of(tuning: Tuning, recipe: Recipe, space: Space, patients: Patients) -> dict[str, Any]:
    """What all trials of a study must share, whichever worker runs them."""
    weights_file = tuning.data.weights_file
    return {
        "recipe": recipe.model_dump(mode="json"),
        "space": space.as_json(),
        "metric": tuning.metric,
        "pruner": tuning.pruner,
        "inner_folds": tuning.inner_folds,
        "cohort": patients.cohort.info.fingerprint,
        "selection": patients.cohort.info.selection,
        "split": patients.identity,
        "seed": tuning.data.seed,
        "weights_file": weights_file.name if weights_file else None,
    }


def run_trials(study: Study) -> None:
    """Run trials until the study has as many as were asked for, or the time is over.

    Trials that another worker is busy with are waited for: should it die, they are taken over.

    Raises:
        KeyboardInterrupt: the trial under way is queued again first. StorageError, WeightsError: trials cannot run.
    """
    tuning = study.tuning
    limit = tuning.timeout_minutes
    deadline = None if limit is None else time.monotonic() + 60 * limit
    while True:
        fail_orphans(study.optuna)
        trials = study.trials()
        if sum(map(is_settled, trials)) >= tuning.trials:
            return
        if deadline is not None and time.monotonic() >= deadline:
            say(study.console, f"No further trial after {limit:g} minutes; the same command goes on from here.")
            return
        if sum(map(is_taken, trials)) >= tuning.trials:
            time.sleep(_WAIT_SECONDS)
            continue
        _one_trial(study)


def _one_trial(study: Study) -> None:
    begun: list[Trial] = []
    over = False  # as far as this worker goes

    def objective(trial: Trial) -> float:
        nonlocal over
        begun.append(trial)
        try:
            value = _objective(study, trial)
        except UpdateFinishedTrialError:
            over = True
            raise
        over = True
        return value

    try:
        study.optuna.optimize(objective, n_trials=1, catch=(_FailedError, _NoPlaceError), callbacks=[_tell(study)])
    except BaseException as error:
        ended = study.trials()[begun[0].number] if begun else None
        if ended is None or not was_interrupted(ended):
            raise
        if over and isinstance(error, ValueError | UpdateFinishedTrialError):
            say(study.console, f"trial {ended.number}: silent for too long, so another worker has taken it")
            return
        requeue(study.optuna, ended)
        raise


def _objective(study: Study, trial: Trial) -> float:
    trial.set_user_attr(WORKER, worker_here())
    ahead = sum(is_taken(other) for other in study.trials() if other.number < trial.number)
    if ahead >= study.tuning.trials:
        raise _NoPlaceError
    values = study.space.suggest(trial)
    trial.set_user_attr(DRAWN, True)

    def report(step: int, best: float) -> None:
        trial.report(best, step)
        if trial.should_prune():
            raise TrialPruned

    folder = study.trial_folder(trial.number)
    try:
        recipe = study.space.apply(study.recipe, values)
        value = study.run(study.bench, recipe, folder, report)
        if not math.isfinite(value):
            raise RunError(f"{study.tuning.metric} is {value}: the training diverged.")
        return value
    except (StorageError, WeightsError):
        raise  # every other trial would meet the same
    except DuctalError as error:
        trial.set_user_attr(PROBLEM, str(error)[:_PROBLEM_LENGTH])
        raise _FailedError from error


def _tell(study: Study) -> Callable[[optuna.Study, FrozenTrial], None]:
    """One line for every trial."""

    def tell(_: optuna.Study, trial: FrozenTrial) -> None:
        if not is_settled(trial):
            return
        seconds = trial.duration.total_seconds() if trial.duration else 0.0
        if trial.state == TrialState.COMPLETE:
            best = best_trial(study)
            assert best is not None
            rank = "the best so far" if best.number == trial.number else f"best {best.value:.4f}, trial {best.number}"
            outcome = f"{study.tuning.metric} {trial.value:.4f} ({rank})"
        elif trial.state == TrialState.PRUNED:
            outcome = f"pruned after step {trial.last_step} at {trial.intermediate_values[trial.last_step or 0]:.4f}"
        else:
            outcome = f"failed: {trial.user_attrs[PROBLEM]}"
        settled = sum(map(is_settled, study.trials()))
        drawn = ", ".join(f"{key} {_short(value)}" for key, value in trial.params.items())
        place = f"{settled}/{study.tuning.trials}  trial {trial.number}"
        say(study.console, f"{place}: {outcome}; {seconds:.0f} s; {drawn}")

    return tell


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def best_trial(study: Study) -> FrozenTrial | None:
    """The complete trial with the best value, the first of equal ones; None while there is none."""
    complete = [trial for trial in study.trials() if trial.state == TrialState.COMPLETE]
    choose: Any = better(study.tuning.metric)
    return choose(complete, key=lambda trial: trial.value) if complete else None


def recipe_of(study: Study, trial: FrozenTrial) -> Recipe:
    """The recipe that a trial trained."""
    return study.space.apply(study.recipe, study.space.values(trial.params))


def first_trial(study: Study) -> FrozenTrial | None:
    """The complete trial of the recipe itself; None where it lies outside the space or has no result."""
    labels = study.space.labels_of(study.recipe)
    same = [trial for trial in study.trials() if trial.state == TrialState.COMPLETE and trial.params == labels]
    return same[0] if same else None


def close_study(study: Study) -> None:
    """Delete what only the trials needed."""
    shutil.rmtree(study.bench.features, ignore_errors=True)

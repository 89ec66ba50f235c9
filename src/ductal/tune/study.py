"""A study: the trials of one recipe, what they have in common, and which was best."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from ductal.console import say
from ductal.errors import RunError
from ductal.experiment import FEATURES, Plan, load_recipes
from ductal.files import sweep
from ductal.training.checkpoint import checkpoint_folder
from ductal.training.recipe import Monitor, Recipe
from ductal.tune.folder import claim, refuse_another
from ductal.tune.patients import opened_patients
from ductal.tune.space import Space, load_space
from ductal.tune.storage import Pruning, find_study, open_study, pruner_of, refuse_others, storage_url
from ductal.tune.trial import Bench, RunTrial, better, places_of, run_trial
from ductal.tune.trials import was_interrupted

TRIALS = "trials"


@dataclass(frozen=True)
class Tuning:
    """What `tune` shall do.

    Attributes:
        data: source, split, selection, seed and folder, as for `ductal.experiment.run_experiment`; its one recipe
            is the one that varies. Its gpus, deterministic, tracking, fresh and profile "quick" are refused.
        space: path of a search space, or the name of a shipped one; None takes the one of the recipe's name.
        trials: how many a study has when it is done, whoever ran them; failed ones count.
        metric: of history.csv, on validation patients, at the epoch whose weights are kept.
        pruner: which rule ends hopeless trials.
        inner_folds: choose on so many folds of the training patients; None chooses on the validation patients.
        storage: SQLAlchemy address of a database; None is a SQLite file in the folder.
        study: its name in the database.
        timeout_minutes: no trial begins after so long.
        at_once: how many trials may run at once; each is drawn knowing only those so many places before it, so that
            its draws do not depend on which of its neighbours ended first. None is 1.

    Raises:
        RunError: hyperband with several trials at once. It writes its rungs into the study it looks at, which is then
            a copy with the trials that this one may know.
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
    at_once: int | None = None

    def __post_init__(self) -> None:
        if self.pruner == "hyperband" and self.window > 1:
            raise RunError(
                f"The pruner hyperband cannot work with {self.window} trials at once. Use --pruner median, or "
                "--at-once 1."
            )

    @property
    def window(self) -> int:
        """`at_once` as a number."""
        return self.at_once or 1


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


def what_varies(tuning: Tuning) -> tuple[Recipe, Space]:
    """The recipe of a study, and its space, checked before anything is written.

    Raises:
        RunError: the plan asks for what trials would not heed. RecipeError: a mistake in one of the two.
    """
    _refuse_unused(tuning.data)
    recipe = load_recipes(tuning.data.recipes, "full", tuning.data.max_epochs)[0]
    space = load_space(tuning.space or recipe.name)
    space.check(recipe)
    return recipe, space


def prepare_study(
    tuning: Tuning, recipe: Recipe, space: Space, console: Console, run: RunTrial = run_trial
) -> Study:
    """Open the patients, make or join the study, and write down who is where; for the only writer of the folder.

    What a study refuses leaves the cohort and the split in its folder as they were.

    Raises:
        DuctalError: any of its kinds, before a trial has begun.
    """
    data, url = tuning.data, storage_url(tuning.data.out, tuning.storage)
    settings = settings_of(tuning, recipe, space)
    known = find_study(url, tuning.study)
    refuse_another(data.out, tuning.study, known)
    if known is not None:  # told before a cohort is prepared, which takes long
        refuse_others(known, settings, url, unknown=("cohort", "selection", "split"))
    first = space.labels_of(recipe)
    if first is None:
        say(console, f"Note: the recipe {recipe.name} itself lies outside the space, so it is no trial of the study")
    steps = tuning.inner_folds or sum(stage.epochs for stage in recipe.stages)
    with opened_patients(data, console, tuning.inner_folds) as opened:
        study = open_study(
            url,
            tuning.study,
            settings | opened.patients.settings,
            direction="minimize" if better(tuning.metric) is min else "maximize",
            seed=data.seed,
            pruner=pruner_of(tuning.pruner, steps, tuning.window),
            at_once=tuning.window,
            first=first,
        )
        claim(data.out, study)
        patients = opened.keep()
    bench = Bench(patients, tuning.metric, data.seed, data.out / FEATURES, data.weights_file)
    return Study(tuning, recipe, space, bench, study, console, run)


def _refuse_unused(data: Plan) -> None:
    """Raises RunError for a field of the plan that says how `run_experiment` trains, and trials would not heed."""
    asked = [name for name in ("gpus", "deterministic", "tracking", "fresh") if getattr(data, name)]
    if data.profile == "quick":
        asked.append("profile")
    if asked:
        raise RunError(
            f"Plan.{asked[0]} has no effect on the trials of a study. Leave it out, and use it when the recipe that "
            "was found is trained."
        )
    if len(data.recipes) != 1:
        raise RunError(f"A study varies one recipe. Received: {', '.join(data.recipes) or 'none'}.")


def settings_of(tuning: Tuning, recipe: Recipe, space: Space) -> dict[str, Any]:
    """What all trials of a study must share, whichever worker runs them, beside their patients."""
    weights_file = tuning.data.weights_file
    return {
        "recipe": recipe.model_dump(mode="json"),
        "space": space.as_json(),
        "metric": tuning.metric,
        "pruner": tuning.pruner,
        "inner_folds": tuning.inner_folds,
        "seed": tuning.data.seed,
        "weights_file": weights_file.name if weights_file else None,
    } | ({"at_once": tuning.window} if tuning.window > 1 else {})


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
    """Delete what only the trials needed, and what those have left that were killed: others have repeated them."""
    shutil.rmtree(study.bench.features, ignore_errors=True)
    for trial in filter(was_interrupted, study.trials()):
        for place in places_of(study.bench, study.trial_folder(trial.number)):
            sweep(place)
            shutil.rmtree(checkpoint_folder(place), ignore_errors=True)

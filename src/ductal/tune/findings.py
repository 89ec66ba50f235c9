"""All that a study has found, as its report and its files say it."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from optuna.trial import FrozenTrial

from ductal.training.recipe import Recipe
from ductal.tune.judge import Comparison, compare_trials, judgements, optimism_of
from ductal.tune.optimism import Optimism
from ductal.tune.study import Study, best_trial, first_trial, recipe_of
from ductal.tune.trials import table_of

SUFFIX = "-tuned"


@dataclass(frozen=True)
class Findings:
    """All that a report says of a study.

    Attributes:
        trials: see `ductal.tune.trials.table_of`.
        best, first: the best trial, and that of the recipe itself.
        recipe: the best trial's.
        chosen_on: comparison of these two on the validation patients that chose.
        judged: comparisons on validation patients that chose nothing, one for each time they were asked.
        optimism: what the choice adds to the best trial's figure.
    """

    trials: pd.DataFrame
    best: FrozenTrial | None
    first: FrozenTrial | None
    recipe: Recipe | None
    chosen_on: Comparison | None
    judged: list[Comparison]
    optimism: Optimism | None


def findings_of(study: Study) -> Findings:
    """Take a study as it is now."""
    best = best_trial(study)
    return Findings(
        table_of(study.trials()),
        best,
        first_trial(study),
        None if best is None else tuned_recipe(study, best),
        compare_trials(study),
        judgements(study),
        optimism_of(study),
    )


def tuned_recipe(study: Study, trial: FrozenTrial) -> Recipe:
    """The recipe of a trial under a name of its own."""
    recipe = recipe_of(study, trial)
    return recipe.model_copy(update={"name": recipe.name + SUFFIX, "title": f"{recipe.title} (tuned)"})


def chosen_by(study: Study) -> str:
    """On whom the trials were compared."""
    folds = study.tuning.inner_folds
    return f"as the mean of {folds} inner folds of the training patients" if folds else "on the validation patients"


def figure_words(figure: tuple[float, float | None, float | None], sign: str = "") -> str:
    """0.951 (0.921 to 0.972), without the brackets where there is no interval."""
    value, low, high = figure
    bounds = "" if low is None or high is None else f" ({low:{sign}.3f} to {high:{sign}.3f})"
    return f"{value:{sign}.3f}{bounds}"

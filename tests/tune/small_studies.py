"""Studies whose trials are computed, not trained: a figure that follows from the recipe, in milliseconds.

Run as a script it is one worker: ``python small_studies.py COHORT OUT TRIALS [SECONDS A TRIAL [STORAGE]]``.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import optuna
from rich.console import Console

from ductal.errors import DuctalError
from ductal.experiment import Plan
from ductal.training.recipe import Recipe
from ductal.tune import results
from ductal.tune.search import tune
from ductal.tune.study import Tuning
from ductal.tune.trial import Bench, Report
from ductal.tune.trials import is_settled

STEPS = 6
CRASHES_FROM = 0.65  # dropout from which the training is said to crash


def figure(recipe: Recipe) -> float:
    """Best at a learning rate of 2e-3 and a dropout of 0.2."""
    far = abs(math.log10(recipe.stages[0].learning_rate / 2e-3)) / 2 + abs(recipe.head.dropout - 0.2)
    return 0.95 - 0.2 * far


def computed(bench: Bench, recipe: Recipe, folder: Path, report: Report) -> float:  # noqa: ARG001
    """In place of `run_trial`: the figure is approached in `STEPS` epochs."""
    if recipe.head.dropout > CRASHES_FROM:
        raise DuctalError(f"The training of {recipe.name} was killed by signal 9 (SIGKILL).")
    folder.mkdir(parents=True)
    for step in range(1, STEPS + 1):
        report(step, figure(recipe) - 0.3 / step**2)
    return figure(recipe)


def slowly(seconds: float) -> Any:
    """`computed`, taking so long."""

    def run(bench: Bench, recipe: Recipe, folder: Path, report: Report) -> float:
        time.sleep(seconds)
        return computed(bench, recipe, folder, report)

    return run


def tuning(cohort: Path, out: Path, trials: int, **changes: Any) -> Tuning:
    """A study on the validation patients of a prepared cohort."""
    data = Plan(source=cohort, out=out, recipes=("vgg16-frozen",), seed=5)
    return Tuning(data, trials=trials, **{"pruner": "none"} | changes)


def database(out: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="ductal", storage=f"sqlite:///{out / 'study.db'}").trials


def settled(out: Path) -> list[dict[str, Any]]:
    """The parameters of the trials that count, in order."""
    return [trial.params for trial in database(out) if is_settled(trial)]


if __name__ == "__main__":
    results.draw_plots = lambda *_: {}
    cohort, out, trials, seconds, *storage = sys.argv[1:]
    settings = {"storage": storage[0]} if storage else {}
    tune(tuning(Path(cohort), Path(out), int(trials), **settings), Console(width=300), slowly(float(seconds)))

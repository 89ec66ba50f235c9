"""Optuna's plots of a study as PNG files."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import optuna
from matplotlib.figure import Figure
from optuna.trial import TrialState
from optuna.visualization import matplotlib as drawn

from ductal.evaluation.drawing import WIDTH, save
from ductal.tune.storage import without_experimental_warnings

SHOWN_PARAMETERS, CONTOUR_PARAMETERS = 5, 3  # the most important ones; more would be too small to read
LEAST_TRIALS = 2
# Width and height, in units of the project's figures; where it is not given, half as high as wide.
SIZES = {"slice": (1.4, 0.4), "contour": (1.3, 1.0), "parallel": (1.4, 0.6)}
SHARED_SCALE = ("slice", "contour")  # one colour scale beside several axes, which a tight layout would draw over them

# Name of the file, what it shows, and what to look for.
SAYS: dict[str, tuple[str, str]] = {
    "history": (
        "Value of every complete trial, and the best until then",
        "A line that still rises at the end wants more trials; one that has been flat for long does not.",
    ),
    "intermediate": (
        "Best value of every trial, step by step",
        "Lines that end early were pruned. Were any of them still rising faster than the others?",
    ),
    "importances": (
        "How much of the differences between trials each parameter explains",
        "PED-ANOVA: parameters near 0 can be left out of the space. With few trials the order is rough.",
    ),
    "slice": (
        "Value against each of the most important parameters",
        "Good trials at the edge of a range ask for a wider one.",
    ),
    "contour": (
        "Value over pairs of the most important parameters",
        "Interpolated between trials: believe it only where there are dots.",
    ),
    "parallel": (
        "Every complete trial as a line through its parameters",
        "Dark lines are the good trials: where they come together, that value matters.",
    ),
}


def draw_plots(study: optuna.Study, folder: Path, metric: str) -> dict[str, Path]:
    """Draw what the trials allow into `folder`; returns the files by their names in `SAYS`.

    Raises:
        StorageError: the disk refused.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < LEAST_TRIALS:
        return {}
    plots: dict[str, Callable[[], Any]] = {
        "history": lambda: drawn.plot_optimization_history(study, target_name=metric),
        "intermediate": lambda: drawn.plot_intermediate_values(study),
    }
    order = _most_important(study)
    if order:
        shown, pairs = order[:SHOWN_PARAMETERS], order[:CONTOUR_PARAMETERS]
        plots |= {
            "importances": lambda: drawn.plot_param_importances(study, target_name=metric),
            "slice": lambda: drawn.plot_slice(study, params=shown, target_name=metric),
            "parallel": lambda: drawn.plot_parallel_coordinate(study, params=shown, target_name=metric),
        }
        if len(pairs) > 1:
            plots["contour"] = lambda: drawn.plot_contour(study, params=pairs, target_name=metric)
    return {name: _save(plots[name], name, folder) for name in SAYS if name in plots}


def _most_important(study: optuna.Study) -> list[str]:
    """Parameters that differ between complete trials, the most important first; [] where nothing can be said."""
    with without_experimental_warnings():
        try:
            found = optuna.importance.get_param_importances(study)
        except (ValueError, RuntimeError):  # all trials are alike
            return []
    values = {key: {trial.params.get(key) for trial in study.get_trials(deepcopy=False)} for key in found}
    return [key for key in found if len(values[key]) > 1]


def _save(plot: Callable[[], Any], name: str, folder: Path) -> Path:
    with without_experimental_warnings(), warnings.catch_warnings(), plt.rc_context():  # Optuna sets a style for all
        warnings.simplefilter("ignore", UserWarning)  # contours of few trials
        axes = np.atleast_1d(np.asarray(plot(), dtype=object)).ravel()[0]
        figure: Figure = axes.figure
        if name == "intermediate" and axes.get_legend():  # a line for every trial, higher than the figure
            axes.get_legend().remove()
        width, height = SIZES.get(name, (1.0, 0.5))
        figure.set_size_inches(WIDTH * width, WIDTH * height)
        try:
            if name not in SHARED_SCALE:
                figure.tight_layout()
            return save(figure, folder / f"{name}.png")
        finally:
            plt.close(figure)

"""What workers do with a trial in the tests: a figure that follows from the recipe, after a while.

Run as a script it is a driver: ``python trial_work.py ADDRESS COHORT OUT TRIALS``.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import zlib
from pathlib import Path

import ray
from rich.console import Console
from small_studies import computed, tuning

from ductal.cluster.trials import tune_on
from ductal.training.recipe import Recipe
from ductal.tune import results
from ductal.tune.trial import Bench, Report

AT_ONCE = 2
SHIPPED_DROPOUT = 0.3  # of vgg16-frozen


def uneven(bench: Bench, recipe: Recipe, folder: Path, report: Report) -> float:
    """`computed`; who begins first does not end first. The folder `nodes` beside the study says who took which."""
    assert bench.patients.cohort.pixels.shape[1:] == (50, 50, 3)
    nodes = folder.parents[1] / "nodes"
    nodes.mkdir(exist_ok=True)
    (nodes / folder.name).write_text(ray.get_runtime_context().get_node_id())
    time.sleep(0.1 + zlib.crc32(repr(recipe.head.dropout).encode()) % 10 / 20)
    try:
        return computed(bench, recipe, folder, report)
    finally:
        (nodes / folder.name).unlink()


def deadly(bench: Bench, recipe: Recipe, folder: Path, report: Report) -> float:
    """Every recipe but the shipped one ends its worker."""
    if recipe.head.dropout != SHIPPED_DROPOUT:
        os.kill(os.getpid(), signal.SIGKILL)
    return computed(bench, recipe, folder, report)


if __name__ == "__main__":
    results.draw_plots = lambda *_: {}
    address, cohort, out, trials = sys.argv[1:]
    settings = tuning(Path(cohort), Path(out), int(trials), pruner="median", at_once=AT_ONCE)
    tune_on(address, settings, Console(width=300), run=uneven)

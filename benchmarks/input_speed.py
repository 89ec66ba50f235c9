"""Whether the input side holds training back: images/s of the feed alone, against forward and backward passes alone.

    python benchmarks/input_speed.py COHORT [--recipes a,b,...]

COHORT is a prepared cohort. Prints one JSON line a recipe; a ratio well above 1 means that the feed, which works
while the network computes, never makes it wait.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from ductal.console import quiet_tensorflow
from ductal.data.cohort import Cohort
from ductal.training.recipe import DEFAULT_RECIPES
from ductal.training.recipe_file import load_recipe


def feed_rate(recipe_name: str, cohort: Cohort) -> float:
    """Images per second of one pass over at least 20,000 patches (repeated where there are fewer)."""
    from ductal.training.pipeline import TrainingFeed

    recipe = load_recipe(recipe_name)
    rows = np.resize(np.arange(len(cohort.pixels)), max(20_000, len(cohort.pixels)))
    feed = TrainingFeed(
        cohort.pixels, rows, cohort.labels[rows], np.ones(len(rows), np.float32),
        augment=recipe.augment, batch_size=recipe.batch_size, seed=0,
    )  # fmt: skip
    started = 0.0
    seen = 0
    for number, (patches, *_) in enumerate(feed.dataset()):
        if number == 10:  # the first batches pay for tracing and cold files
            started, seen = time.perf_counter(), 0
        seen += len(patches)
    return seen / (time.perf_counter() - started)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--recipes", default=",".join(DEFAULT_RECIPES))
    options = parser.parse_args()
    quiet_tensorflow()
    from ductal.training.precision import choose_precision

    cohort = Cohort.open(options.cohort)
    for name in options.recipes.split(","):
        choice = choose_precision(load_recipe(name))
        feed, step = feed_rate(name, cohort), choice.images_per_second[choice.label]
        result = {"recipe": name, "feed": round(feed), "step": round(step, 1), "ratio": round(feed / step, 1)}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()

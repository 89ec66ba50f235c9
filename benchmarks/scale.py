"""Time and memory as the cohort grows 1x, 4x, 16x, up to the full 277,524 patches (synthetic).

    python benchmarks/scale.py FOLDER [--steps N]

For each size: prepare the archive, then train VGG16 for N steps on batches drawn from the whole cohort. Memory of
training is the peak of what the process owns (RssAnon): pages of the memory map are the system's cache, which it
takes back when it wants. Writes FOLDER/scale.json and FOLDER/scale.png. Needs about 5 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from prepare_full import PATCHES, MemoryWatch, make_archive

from ductal.console import quiet_tensorflow
from ductal.data.cohort import Cohort
from ductal.data.store import prepare

FACTORS = (16, 4, 1)  # the full archive divided by these


def own_memory_mb() -> float:
    """Anonymous resident memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def train_steps(cohort_folder: Path, steps: int) -> dict[str, float]:
    """Train `vgg16-full` for `steps` batches drawn from all patches; gathers all of them once more, timed."""
    quiet_tensorflow()
    from ductal.training.network import Normalisation, build_network, set_trainable
    from ductal.training.optimizers import make_optimizer
    from ductal.training.pipeline import TrainingFeed
    from ductal.training.recipe_file import load_recipe

    cohort = Cohort.open(cohort_folder)
    recipe = load_recipe("vgg16-full").model_copy(update={"weights": "random", "precision": "mixed_bfloat16"})
    rows = np.arange(len(cohort.pixels))
    feed = TrainingFeed(
        cohort.pixels, rows, cohort.labels, np.ones(len(rows), np.float32),
        augment=recipe.augment, batch_size=recipe.batch_size, seed=0,
    )  # fmt: skip
    network = build_network(recipe, Normalisation.of(cohort.pixels, rows))
    set_trainable(network, recipe.stages[0], recipe)
    network.model.compile(make_optimizer(recipe.stages[0]), "binary_crossentropy", jit_compile=False)
    peak, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            peak[0] = max(peak[0], own_memory_mb())

    threading.Thread(target=watch, daemon=True).start()
    network.model.fit(feed.dataset(), steps_per_epoch=2, verbose=0)
    started = time.perf_counter()
    network.model.fit(feed.dataset(), steps_per_epoch=steps, verbose=0)
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    seen = sum(len(batch[0]) for batch in feed.dataset())
    ended.set()
    return {
        "train_images_per_second": steps * recipe.batch_size / seconds,
        "feed_images_per_second": seen / (time.perf_counter() - started),
        "training_memory_mb": peak[0],
    }


def measure(folder: Path, patches: int, steps: int) -> dict[str, Any]:
    """One size."""
    archive, out = folder / f"full_{patches}.zip", folder / "cohort"
    if not archive.exists():
        make_archive(archive, patches)
    watch = MemoryWatch()
    watch.start()
    started = time.perf_counter()
    cohort = prepare(archive, out)
    seconds = time.perf_counter() - started
    watch.ended.set()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        trained = pool.apply(train_steps, (out, steps))
    shutil.rmtree(out)
    return {
        "patches": len(cohort), "prepare_seconds": seconds, "prepare_memory_mb": watch.total_mb, **trained,
    }  # fmt: skip


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Time of preparing and of a pass of the feed; memory of preparing and training."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    patches = np.array([one["patches"] for one in results])
    passes = patches / np.array([one["feed_images_per_second"] for one in results])
    left.plot(patches, [one["prepare_seconds"] for one in results], "o-", label="prepare")
    left.plot(patches, passes, "s-", label="one pass of the training input")
    left.set(xlabel="patches", ylabel="seconds", title="Time", ylim=(0, None), xlim=(0, None))
    right.plot(patches, [one["prepare_memory_mb"] for one in results], "o-", label="prepare, all processes")
    right.plot(patches, [one["training_memory_mb"] for one in results], "s-", label="training VGG16")
    right.set(xlabel="patches", ylabel="MB", title="Peak memory", ylim=(0, None), xlim=(0, None))
    for axis in (left, right):
        axis.legend()
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    results = []
    for factor in FACTORS:
        results.append(measure(options.folder, PATCHES // factor, options.steps))
        print(json.dumps({key: round(value, 1) for key, value in results[-1].items()}), flush=True)
    (options.folder / "scale.json").write_text(json.dumps(results, indent=1))
    draw(results, options.folder / "scale.png")


if __name__ == "__main__":
    main()

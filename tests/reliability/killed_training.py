"""A small training with everything that has a state, and a process that kills itself in the middle of it.

    python killed_training.py COHORT OUT KIND WHERE NUMBER

trains and sends itself SIGKILL where it is told: at the NUMBERth "batch", "write" (of a file), "epoch" (before it
begins) or "rename" (of a finished folder).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))

import keras
import pytest
from small_training import easy, quiet, small_network, small_recipe, stage

from ductal import files
from ductal.data.cohort import Cohort
from ductal.data.splitting import make_split
from ductal.training import callbacks, trainer
from ductal.training.network import Network
from ductal.training.recipe import Recipe

_WATCH = {
    "early_stopping": {"monitor": "val_loss", "patience": 2},
    "reduce_lr": {"monitor": "val_loss", "patience": 1, "factor": 0.5},
}
# Of each stage enough epochs to stop early, to lower the rate, to be given up.
RECIPES: dict[str, Recipe] = {
    "plateau": small_recipe(
        stage("head", epochs=2, warmup_steps=4, **_WATCH),
        stage("all", "all", 5, 3e-2, optimizer="adam", **_WATCH),
        class_weights=True,
    ),
    "short": small_recipe(stage("all", "all", 3, **_WATCH)),
    "cosine": small_recipe(
        stage("all", "all", 3, 3e-2, schedule="cosine", warmup_steps=3, early_stopping={"patience": 9}),
        stage("ruin", "all", 1, 0.9, optimizer="sgd", early_stopping={"monitor": "val_loss"}),
    ),
    "cached": small_recipe(
        stage("head", epochs=2, **_WATCH), stage("top", ["block2"], 2, **_WATCH), cached_views=2, batch_size=16
    ),
    "extras": small_recipe(
        stage("head", **_WATCH),
        stage("all", "all", 3, 3e-2, **_WATCH),
        ema=0.9, mixup=0.4, cutmix=1.0, sampling="patients", augment={"randaugment": {"operations": 2}},
    ),
}


def network_with_dropout(*settings: Any) -> Network:
    """`small_network`, half of its features dropped out: a random state that changes with every step."""
    small = small_network(*settings)
    features = keras.layers.Dropout(0.5, name="head_dropout")(small.model.get_layer("head_pool").output)
    logit = keras.layers.Dense(1, name="logit")(features)
    output = keras.layers.Activation("sigmoid", name="probability")(logit)
    return Network(keras.Model(small.model.input, output), small.base_names, small.weights_origin)


def train(cohort: Cohort, out: Path, kind: str, **settings: Any) -> Path:
    """Train `RECIPES[kind]`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "build_network", network_with_dropout)
        split = make_split(cohort, "random", seed=1)
        patches = easy(cohort) if kind == "cosine" else cohort  # where a stage shall be worse than a good one
        return trainer.train(RECIPES[kind], patches, split, out, **{"seed": 3, "progress": quiet()} | settings)


def at(patch: pytest.MonkeyPatch, where: str, number: int, act: Callable[[], None]) -> None:
    """Have `act` called instead of, or before, the `number`th thing (from 1) of that kind."""
    owner, name = {
        "batch": (callbacks.BatchTicks, "on_train_batch_end"),
        "epoch": (callbacks.EpochRecord, "on_epoch_begin"),
        "write": (files.os, "fsync"),
        "rename": (trainer, "replace_folder"),
    }[where]
    real, calls = getattr(owner, name), iter(range(1, 10**9))

    def instead(*given: Any, **more: Any) -> Any:
        if next(calls) == number:
            act()
        return real(*given, **more)

    patch.setattr(owner, name, instead)


def main() -> None:
    """Train and die."""
    cohort, out, kind, where, number = sys.argv[1:]
    with pytest.MonkeyPatch.context() as patch:
        at(patch, where, int(number), lambda: os.kill(os.getpid(), signal.SIGKILL))
        train(Cohort.open(cohort), Path(out), kind)


if __name__ == "__main__":
    main()

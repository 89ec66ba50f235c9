"""The stages of one training: what they share, and each from its frozen layers to the epoch that is kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ductal.data.cohort import Cohort
from ductal.errors import FeaturesError
from ductal.tracking.trackers import Trackers
from ductal.training.averaging import WeightAverage
from ductal.training.callbacks import BatchTicks, EpochRecord, count_metrics, stage_callbacks
from ductal.training.checkpoint import Arrays, Checkpoint, Checkpoints
from ductal.training.devices import FirstCopy, replicas_of, scope_of
from ductal.training.feature_cache import CachedFeatures, CachedFeed
from ductal.training.feature_store import StageFeatures, prepare_features
from ductal.training.network import Network, set_trainable
from ductal.training.optimizers import make_optimizer
from ductal.training.pipeline import TrainingFeed, balanced_weights
from ductal.training.precision import Choice
from ductal.training.progress import TrainingProgress
from ductal.training.recipe import Recipe, Stage
from ductal.training.resume import StageCheckpoints, epochs_left
from ductal.training.sampling import Expected, expected_draws
from ductal.training.targets import make_loss, on_nearest_class, training_labels


@dataclass
class Job:
    """What all stages of one training share."""

    recipe: Recipe
    cohort: Cohort
    rows: dict[str, np.ndarray]
    seed: int
    network: Network
    choice: Choice
    progress: TrainingProgress
    checkpoints: Checkpoints
    trackers: Trackers
    strategy: Any | None = None  # of `ductal.training.devices`, for several devices
    deterministic: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    continued_after: list[int] = field(default_factory=list)  # epochs after which it was interrupted
    started: float = field(default_factory=time.perf_counter)
    # Of the epoch whose weights are kept, in the training's precision; the final evaluation predicts in float32.
    val_probs: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))

    @property
    def labels(self) -> dict[str, np.ndarray]:
        return {part: self.cohort.labels[rows] for part, rows in self.rows.items()}

    @property
    def weights(self) -> np.ndarray:
        labels = self.labels["train"]
        return balanced_weights(labels) if self.recipe.class_weights else np.ones(len(labels), np.float32)

    @property
    def expected(self) -> Expected | None:
        rows = self.rows["train"]
        return expected_draws(self.recipe.sampling, self.labels["train"], self.cohort.groups[rows])

    def facts(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, besides arrays."""
        return {
            "history": self.history,
            "alarms": self.alarms,
            "given_up": self.given_up,
            "continued_after": self.continued_after,
            "seconds": time.perf_counter() - self.started,
        }

    def restore(self, saved: Checkpoint) -> None:
        """Be what `facts` was of."""
        facts = saved.facts
        self.history, self.alarms, self.given_up = facts["history"], facts["alarms"], facts["given_up"]
        self.continued_after = [*facts["continued_after"], saved.epoch]
        self.started -= facts["seconds"]
        self.val_probs = saved.groups["val_probs"][0]


def find_features(job: Job, folder: Path, later: Sequence[Recipe]) -> StageFeatures:
    features = prepare_features(
        job.network, job.recipe, job.cohort.pixels, job.rows,
        folder=folder, seed=job.seed, later=later, deterministic=job.deterministic,
        progress=job.progress.passing("frozen layers"),
    )  # fmt: skip
    if features.over_budget and job.network.encoder is not None:
        raise FeaturesError(
            f"The disk of {folder} has no room for the features of the encoder, without which its head cannot train. "
            "Free space, choose another --out, or fewer cached_views."
        )
    if features.over_budget and job.deterministic:
        raise FeaturesError(
            f"The disk has no room for the activations of frozen layers of: {', '.join(features.over_budget)}. "
            "Training without them gives other figures, so a deterministic training does not. Free space, or set "
            "cached_views = 0 in the recipe."
        )
    if features.over_budget:
        job.progress.warn(
            f"The disk has no room for the activations of frozen layers of: {', '.join(features.over_budget)}. "
            "There the whole network runs in every epoch, which is slower and gives the same kind of result."
        )
    return features


def train_stage(
    job: Job, number: int, cached: tuple[Any, CachedFeatures] | None, saved: Checkpoint | None = None
) -> None:
    """Train stage `number` (from 0) of the recipe, on the activations of `cached` where it has some.

    Args:
        job: the training, which is changed.
        cached: the tensor that the stage begins at, and its stored values.
        saved: the checkpoint to go on from, if it was made in this stage.
    """
    stage = job.recipe.stages[number]
    set_trainable(job.network, stage, job.recipe)
    with scope_of(job.strategy):
        model, feed, val_inputs, val_rows = _inputs(job, cached)
        model.compile(
            optimizer=make_optimizer(stage, fused=job.strategy is None),
            loss=make_loss(job.recipe),
            metrics=on_nearest_class(count_metrics()),
            jit_compile=job.choice.xla,
        )
    before = saved.groups["before"] if saved else job.network.model.get_weights()
    fit = partial(_fit, job, number, model, feed, (val_inputs, val_rows), before)
    if saved and saved.batch:
        saved = fit(saved)[1]  # the rest of the epoch that was interrupted
    _close_stage(job, stage, fit(saved)[0], before)


def _fit(
    job: Job, number: int, model: keras.Model, feed: TrainingFeed | CachedFeed,
    val: tuple[np.ndarray, np.ndarray | None], before: Arrays, saved: Checkpoint | None,
) -> tuple[EpochRecord, Checkpoint | None]:  # fmt: skip
    """The epochs that are left after `saved`; with them, see `StageCheckpoints.last`."""
    stage, first_epoch = job.recipe.stages[number], len(job.history)
    planned, (begun, ends) = first_epoch + stage.epochs, epochs_left(saved, stage.epochs)
    skip = saved.batch if saved else 0

    def begin(epoch: int) -> None:
        job.progress.begin(f"{stage.name} epoch {epoch}/{planned}", feed.steps, job.recipe.batch_size)

    def on_row(row: dict[str, Any]) -> None:
        job.progress.epoch(row, planned)
        job.trackers.epoch(row)
        if row["epoch"] < planned:
            begin(row["epoch"] + 1)

    record = EpochRecord(
        stage=stage.name, feed=feed, val_inputs=val[0], val_rows=val[1], val_labels=job.labels["val"],
        first_epoch=first_epoch, monitor=stage.early_stopping.monitor, on_row=on_row,
        predict_with=FirstCopy(model) if job.strategy is not None else None,
    )  # fmt: skip
    if saved:
        record.rows, record.best_row = saved.facts["rows"], saved.facts["best_row"]
        record.best_probs, record.earlier_seconds = saved.groups["val_probs"][1], saved.facts["epoch_seconds"]
    others = stage_callbacks(stage, feed.steps)
    average = WeightAverage(job.recipe.ema) if job.recipe.ema else None
    keeper = StageCheckpoints(job, number, record, others, before, saved, average)
    if begun < ends:
        begin(first_epoch + begun + 1)
    model.fit(
        feed.dataset(skip),
        initial_epoch=begun,
        epochs=ends,
        verbose=0,
        shuffle=False,  # the feed shuffles
        callbacks=[*filter(None, [average]), record, *others, BatchTicks(job.progress.tick, skip), keeper],
    )
    return record, keeper.last


def _inputs(
    job: Job, cached: tuple[Any, CachedFeatures] | None
) -> tuple[keras.Model, TrainingFeed | CachedFeed, np.ndarray, np.ndarray | None]:
    """The model that trains, its feed, and the validation inputs with their rows (None for all)."""
    labels = training_labels(job.cohort, job.rows["train"], job.recipe.neighbour_smoothing)
    settings: dict[str, Any] = {
        "batch_size": job.recipe.batch_size, "seed": job.seed, "expected": job.expected,
        "replicas": replicas_of(job.strategy),
    }  # fmt: skip
    if cached is not None:
        cut, features = cached
        feed = CachedFeed(features.train, labels, job.weights, **settings)
        return keras.Model(cut, job.network.model.output), feed, features.val, None
    patches = TrainingFeed(
        job.cohort.pixels, job.rows["train"], labels, job.weights,
        augment=job.recipe.augment, mixup=job.recipe.mixup, cutmix=job.recipe.cutmix, **settings,
    )  # fmt: skip
    return job.network.model, patches, job.cohort.pixels, job.rows["val"]


def _close_stage(job: Job, stage: Stage, record: EpochRecord, before: Arrays) -> None:
    """Mark the epoch whose weights EarlyStopping kept, and raise the alarm when it is a collapsed one.

    A stage none of whose epochs reached the one kept before it is given up: the weights `before` come back.
    """
    monitor = record.monitor
    best = record.rows[record.best_row]
    kept = next((row for row in reversed(job.history) if row["best"]), None)
    job.history.extend(record.rows)
    if kept is not None and not record.score(best) >= record.score(kept):  # nan is worse, too
        job.network.model.set_weights(before)
        job.given_up.append(
            f"Stage {stage.name} is given up: its best {monitor} is {best[monitor]:.4f}, and {kept[monitor]:.4f} "
            f"was reached in stage {kept['stage']}, whose weights are kept."
        )
        job.progress.note(job.given_up[-1])
        return
    best["best"] = True
    job.val_probs = record.best_probs
    if best["collapsed"]:
        job.alarms.append(
            f"Stage {stage.name}: predictions collapsed, nearly every validation patch falls in one class. "
            "Try a lower learning rate, more epochs or class_weights = true."
        )
        job.progress.warn(job.alarms[-1])

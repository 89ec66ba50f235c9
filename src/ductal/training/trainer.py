"""Train one recipe on one cohort and split, stage by stage, into a run folder that is whole or absent."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from ductal.data.audit import AuditReport, audit_split, refuse_leaks
from ductal.data.cohort import Cohort
from ductal.data.split import Split
from ductal.errors import DataError
from ductal.evaluation.checklist import write_checklist
from ductal.evaluation.decision import ThresholdRule
from ductal.evaluation.judgement import judge
from ductal.evaluation.model_card import write_model_card
from ductal.files import atomic_folder, scratch_folder
from ductal.record import describe_data, package_versions, save_predictions, to_json
from ductal.training.callbacks import BatchTicks, EpochRecord, count_metrics, is_collapsed, stage_callbacks
from ductal.training.fast_layers import make_fast, make_plain
from ductal.training.feature_cache import CachedFeatures, CachedFeed
from ductal.training.feature_store import StageFeatures, prepare_features
from ductal.training.network import PATCH_PX, Network, Normalisation, build_network, set_trainable, to_float32
from ductal.training.optimizers import make_optimizer
from ductal.training.pipeline import TrainingFeed, balanced_weights
from ductal.training.precision import Choice, choose_precision
from ductal.training.progress import TrainingProgress
from ductal.training.recipe import Recipe, Stage

LABELS = {"0": "not_cancer", "1": "cancer"}


@dataclass
class _Job:
    """What all stages of one training share."""

    recipe: Recipe
    cohort: Cohort
    rows: dict[str, np.ndarray]
    seed: int
    network: Network
    choice: Choice
    progress: TrainingProgress
    history: list[dict[str, Any]] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    # Of the epoch whose weights are kept, in the training's precision; the final evaluation predicts in float32.
    val_probs: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))

    @property
    def labels(self) -> dict[str, np.ndarray]:
        return {part: self.cohort.labels[rows] for part, rows in self.rows.items()}

    @property
    def weights(self) -> np.ndarray:
        labels = self.labels["train"]
        return balanced_weights(labels) if self.recipe.class_weights else np.ones(len(labels), np.float32)


def train(
    recipe: Recipe,
    cohort: Cohort,
    split: Split,
    out: str | Path,
    *,
    seed: int = 42,
    progress: TrainingProgress,
    weights_file: Path | None = None,
    audit: AuditReport | None = None,
    profile: str = "full",
    features_folder: Path | None = None,
    later: Sequence[Recipe] = (),
) -> Path:
    """Train `recipe` and write the run folder `out`.

    Only training patients are learned from; only validation patients stop, choose epochs and set the
    threshold; test patients are not read here.

    Args:
        recipe: the settings, already adapted to the profile.
        cohort: the patches.
        split: which patients train and validate. It is audited unless `audit` is given.
        out: the run folder; replaced when it exists.
        seed: of weights, order and augmentation.
        progress: shows epochs and warnings.
        weights_file: ImageNet weights to use instead of those the resolver finds.
        audit: the audit of exactly this split, if it was made already.
        profile: recorded with the run.
        features_folder: keeps the activations of frozen layers for other recipes too, and the caller deletes
            it; None keeps them for this training alone.
        later: recipes that will use `features_folder` after this one; what they need of the same frozen layers
            is computed in the same pass.

    Returns:
        `out`.

    Raises:
        LeakError: the split leaks. DataError: a part lacks a class. WeightsError: no ImageNet weights.
        StorageError: the disk refused.
    """
    audit = audit or audit_split(cohort, split)
    refuse_leaks(audit)
    rows = {part: split.rows(cohort, part) for part in ("train", "val")}
    _check_classes(cohort, rows)
    written, choice = recipe, _choose(recipe, progress)
    started = time.perf_counter()
    recipe = recipe.model_copy(update={"precision": choice.precision})
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    network = build_network(recipe, Normalisation.of(cohort.pixels, rows["train"]), weights_file)
    make_fast(network.model)
    job = _Job(recipe, cohort, rows, seed, network, choice, progress)
    with ExitStack() as stack:
        scratch = features_folder or stack.enter_context(scratch_folder(Path(out).parent / "features"))
        alike = [other for other in later if other.precision == written.precision]
        alike = [other.model_copy(update={"precision": choice.precision}) for other in alike]
        began = time.perf_counter()
        features = _features(job, scratch, alike)
        frozen_seconds = time.perf_counter() - began
        for stage, cached in zip(recipe.stages, features.stages, strict=True):
            _train_stage(job, stage, cached)
    make_plain(network.model)
    model = to_float32(network)
    if is_collapsed(job.val_probs):
        job.alarms.append(
            "At 0.5 the finished model puts nearly every validation patch into one class: it has not learned, "
            "or its probabilities are far off."
        )
        progress.warn(job.alarms[-1])
    record = {
        "name": recipe.name,
        "control": False,
        "profile": profile,
        "recipe": written.model_dump(mode="json"),
        **describe_data(cohort, split, audit),
        "seed": seed,
        "weights": network.weights_origin,
        "versions": package_versions("ductal", "keras", "numpy") | {"tensorflow": tf.__version__},
        "device": _device(),
        "precision": choice.precision,
        "precision_choice": asdict(choice),
        "timings": {"train_seconds": time.perf_counter() - started, "frozen_layers_seconds": frozen_seconds},
        "feature_cache": features.note,
        "test_opened": 0,
        "evaluated_on": [],
        "alarms": job.alarms,
        "stages_given_up": job.given_up,
        "parameters": {
            "total": int(network.model.count_params()),
            "trainable_last_stage": int(sum(np.prod(w.shape) for w in network.model.trainable_weights)),
        },
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return _write_run(Path(out), model, job, split, record)


def _choose(recipe: Recipe, progress: TrainingProgress) -> Choice:
    choice = choose_precision(recipe)
    if choice.images_per_second:
        speeds = ", ".join(f"{name} {speed:.0f}" for name, speed in choice.images_per_second.items())
        progress.note(f"precision {choice.precision} (timed, images/s: {speeds})")
    return choice


def _check_classes(cohort: Cohort, rows: dict[str, np.ndarray]) -> None:
    for part, chosen in rows.items():
        found = set(cohort.labels[chosen].tolist())
        if found != {0, 1}:
            raise DataError(
                f"The {part} patients hold {len(chosen)} patches of classes {sorted(found)}; both classes are "
                "needed. Use more patients, another seed or another split."
            )


def _device() -> str:
    gpus = tf.config.list_physical_devices("GPU")
    return f"GPU x{len(gpus)}" if gpus else "CPU"


def _features(job: _Job, folder: Path, later: Sequence[Recipe]) -> StageFeatures:
    features = prepare_features(
        job.network, job.recipe, job.cohort.pixels, job.rows,
        folder=folder, seed=job.seed, later=later, progress=job.progress.passing("frozen layers"),
    )  # fmt: skip
    if features.over_budget:
        job.progress.warn(
            f"The disk has no room for the activations of frozen layers of: {', '.join(features.over_budget)}. "
            "There the whole network runs in every epoch, which is slower and gives the same kind of result."
        )
    return features


def _train_stage(job: _Job, stage: Stage, cached: tuple[Any, CachedFeatures] | None) -> None:
    recipe, network = job.recipe, job.network
    set_trainable(network, stage, recipe)
    settings: dict[str, Any] = {"batch_size": recipe.batch_size, "seed": job.seed}
    feed: TrainingFeed | CachedFeed
    if cached is not None:
        cut, features = cached
        model = keras.Model(cut, network.model.output)
        feed = CachedFeed(features.train, job.labels["train"], job.weights, **settings)
        val_inputs, val_rows = features.val, None
    else:
        model = network.model
        feed = TrainingFeed(
            job.cohort.pixels, job.rows["train"], job.labels["train"], job.weights,
            augment=recipe.augment, **settings,
        )  # fmt: skip
        val_inputs, val_rows = job.cohort.pixels, job.rows["val"]
    model.compile(
        optimizer=make_optimizer(stage),
        loss=keras.losses.BinaryCrossentropy(label_smoothing=recipe.label_smoothing),
        metrics=count_metrics(),
        jit_compile=job.choice.xla,
    )
    planned = len(job.history) + stage.epochs
    first_epoch = len(job.history)

    def on_row(row: dict[str, Any]) -> None:
        job.progress.epoch(row, planned)
        if row["epoch"] < planned:
            job.progress.begin(f"{stage.name} epoch {row['epoch'] + 1}/{planned}", feed.steps, recipe.batch_size)

    before = network.model.get_weights()
    record = EpochRecord(
        stage=stage.name, feed=feed, val_inputs=val_inputs, val_rows=val_rows,
        val_labels=job.labels["val"], first_epoch=first_epoch, on_row=on_row,
    )  # fmt: skip
    job.progress.begin(f"{stage.name} epoch {first_epoch + 1}/{planned}", feed.steps, recipe.batch_size)
    model.fit(
        feed.dataset(),
        epochs=stage.epochs,
        verbose=0,
        shuffle=False,  # the feed shuffles
        callbacks=[record, *stage_callbacks(stage, feed.steps), BatchTicks(job.progress.tick)],
    )
    _close_stage(job, stage, record, before)


def _close_stage(job: _Job, stage: Stage, record: EpochRecord, before: list[np.ndarray]) -> None:
    """Mark the epoch whose weights EarlyStopping kept, and raise the alarm when it is a collapsed one.

    A stage none of whose epochs reached the one kept before it is given up: the weights `before` come back.
    """
    monitor = stage.early_stopping.monitor
    sign = -1.0 if monitor == "val_loss" else 1.0
    rows = record.rows
    best = max(rows, key=lambda row: sign * row[monitor])
    kept = next((row for row in reversed(job.history) if row["best"]), None)
    job.history.extend(rows)
    if kept is not None and not sign * best[monitor] >= sign * kept[monitor]:  # nan is worse, too
        job.network.model.set_weights(before)
        job.given_up.append(
            f"Stage {stage.name} is given up: its best {monitor} is {best[monitor]:.4f}, and {kept[monitor]:.4f} "
            f"was reached in stage {kept['stage']}, whose weights are kept."
        )
        job.progress.note(job.given_up[-1])
        return
    best["best"] = True
    job.val_probs = record.probs[rows.index(best)]
    if best["collapsed"]:
        job.alarms.append(
            f"Stage {stage.name}: predictions collapsed, nearly every validation patch falls in one class. "
            "Try a lower learning rate, more epochs or class_weights = true."
        )
        job.progress.warn(job.alarms[-1])


def _write_run(out: Path, model: keras.Model, job: _Job, split: Split, record: dict[str, Any]) -> Path:
    rows, rule = job.rows["val"], ThresholdRule.parse(job.recipe.threshold)
    judged = judge(
        job.labels["val"], job.val_probs, job.cohort.groups[rows], rule,
        "platt" if job.recipe.class_weights else "temperature",
    )
    calibration = judged.settings | {
        "labels": LABELS,
        "patch_size": PATCH_PX,
        "spacing_um": job.cohort.info.spacing_um,
    }
    with atomic_folder(out) as folder:
        model.save(folder / "model.keras")
        (folder / "calibration.json").write_text(to_json(calibration), encoding="utf-8")
        (folder / "run.json").write_text(to_json(record), encoding="utf-8")
        split.save(folder / "split.json")
        pd.DataFrame(job.history).to_csv(folder / "history.csv", index=False)
        save_predictions(folder, "val", job.cohort, rows, judged.probs)
        write_model_card(folder)
        write_checklist(folder)
    return out

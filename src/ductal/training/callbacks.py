"""What happens during a stage: validation, history, the collapse alarm, live progress, stopping, learning rates."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from ductal.evaluation.metrics import binary_metrics
from ductal.inference.predictor import predict_in_order
from ductal.training.recipe import Monitor, ReduceLROnPlateau, Stage

COLLAPSE_SHARE = 0.995  # this share of validation patches in one class at 0.5 is a collapse
COUNTS = ("tp", "tn", "fp", "fn")


def count_metrics() -> list[Any]:
    """Keras metrics from which accuracy and balanced accuracy of the training epoch are derived."""
    return [
        keras.metrics.TruePositives(name="tp"),
        keras.metrics.TrueNegatives(name="tn"),
        keras.metrics.FalsePositives(name="fp"),
        keras.metrics.FalseNegatives(name="fn"),
        keras.metrics.AUC(name="auc"),
    ]


def is_collapsed(probs: np.ndarray) -> bool:
    """Whether nearly all predictions (n,) fall in one class at 0.5, or do not differ at all."""
    share = float((probs >= 0.5).mean())
    return max(share, 1.0 - share) >= COLLAPSE_SHARE or float(probs.std()) < 1e-4


class EpochRecord(keras.callbacks.Callback):
    """Predicts the validation patches in order after each epoch and writes one history row.

    It keeps the rows, which of them is the best (`best_row`), and the probabilities of that epoch (`best_probs`).

    It must stand first in the list: EarlyStopping and ReduceLROnPlateau read what it adds to `logs`.

    Args:
        stage: name of the stage.
        feed: the training feed; its `epoch` is set before each pass.
        val_inputs: patches or cached features, in order.
        val_rows: rows of `val_inputs`, or None for all.
        val_labels: int (n,).
        first_epoch: epochs already done by earlier stages.
        monitor: the figure by which EarlyStopping judges.
        on_row: called with each finished row.
        predict_with: what predicts the validation patches, if not the model that trains.
    """

    def __init__(
        self,
        *,
        stage: str,
        feed: Any,
        val_inputs: np.ndarray,
        val_rows: np.ndarray | None,
        val_labels: np.ndarray,
        first_epoch: int,
        monitor: Monitor,
        on_row: Callable[[dict[str, Any]], None] | None = None,
        predict_with: Any | None = None,
    ) -> None:
        super().__init__()
        self.stage, self.feed, self.on_row, self.predict_with = stage, feed, on_row, predict_with
        self.val_inputs, self.val_rows, self.val_labels = val_inputs, val_rows, val_labels
        self.first_epoch, self.monitor = first_epoch, monitor
        self.rows: list[dict[str, Any]] = []
        self.best_row = 0
        self.best_probs = np.empty(0, np.float32)
        self.earlier_seconds = 0.0  # of the next epoch, before it was interrupted
        self._started = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Key this epoch's order and augmentation."""
        self.feed.epoch = self.first_epoch + epoch
        self._started = time.perf_counter() - self.earlier_seconds
        self.earlier_seconds = 0.0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Add the validation figures to `logs` and keep the row."""
        assert logs is not None
        seconds = self.elapsed()
        tp, tn, fp, fn = (float(logs.pop(name)) for name in COUNTS)
        probs = predict_in_order(self.predict_with or self.model, self.val_inputs, self.val_rows)
        figures = binary_metrics(self.val_labels, probs, 0.5)
        clipped = np.clip(probs.astype(np.float64), 1e-7, 1 - 1e-7)
        chosen = np.where(self.val_labels == 1, clipped, 1 - clipped)
        logs["accuracy"] = (tp + tn) / (tp + tn + fp + fn)
        logs["balanced_accuracy"] = (tp / max(tp + fn, 1.0) + tn / max(tn + fp, 1.0)) / 2
        logs["val_loss"] = float(-np.log(chosen).mean())
        logs["val_accuracy"] = figures["accuracy"]
        logs["val_balanced_accuracy"] = figures["balanced_accuracy"]
        logs["val_auc"] = figures["roc_auc"]
        row = {
            "epoch": self.first_epoch + epoch + 1,
            "stage": self.stage,
            **{key: float(value) for key, value in logs.items()},
            "learning_rate": float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)),
            "seconds": seconds,
            "images_per_second": (tp + tn + fp + fn) / seconds,
            "best": False,
            "collapsed": is_collapsed(probs),
        }
        self.rows.append(row)
        if len(self.rows) == 1 or self.score(row) > self.score(self.rows[self.best_row]):
            self.best_row, self.best_probs = len(self.rows) - 1, probs
        if self.on_row:
            self.on_row(row)

    def elapsed(self) -> float:
        """Seconds of this epoch so far."""
        return time.perf_counter() - self._started

    def score(self, row: dict[str, Any]) -> float:
        """The monitored figure of a row so that more is better."""
        value = float(row[self.monitor])
        return -value if self.monitor == "val_loss" else value


class BatchTicks(keras.callbacks.Callback):
    """Tells a progress display of every finished batch: `tick(batches done in this epoch, loss)`.

    Args:
        tick: called after each batch.
        skipped: batches of the epoch that were done before it was interrupted.
    """

    def __init__(self, tick: Callable[[int, float], None], skipped: int = 0) -> None:
        super().__init__()
        self._tick, self._skipped = tick, skipped

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Pass the news on."""
        self._tick(self._skipped + batch + 1, float((logs or {}).get("loss", float("nan"))))


class Schedule(keras.callbacks.Callback):
    """The learning rate of every batch: linear warm-up, then a cosine (Loshchilov & Hutter 2017) if asked for."""

    def __init__(self, stage: Stage, steps: int) -> None:
        super().__init__()
        self._stage, self._planned, self.done = stage, stage.epochs * steps, 0
        self._warm = min(stage.warmup_steps, self._planned // 3)  # a short stage shall reach its rate, too

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        self.done += 1
        warm, rate = self._warm, self._stage.learning_rate
        if self.done <= warm:
            self.model.optimizer.learning_rate.assign(rate * self.done / warm)
        elif self._stage.schedule == "cosine":
            share = (self.done - warm) / max(self._planned - warm, 1)
            self.model.optimizer.learning_rate.assign(rate * 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0))))


def stage_callbacks(stage: Stage, steps: int) -> list[keras.callbacks.Callback]:
    """EarlyStopping, and the learning rate as `stage` asks for it in epochs of `steps` batches."""

    def mode(monitor: str) -> str:
        return "min" if monitor == "val_loss" else "max"

    stop, plateau = stage.early_stopping, stage.reduce_lr or ReduceLROnPlateau()
    callbacks: list[keras.callbacks.Callback] = [
        keras.callbacks.EarlyStopping(
            monitor=stop.monitor, mode=mode(stop.monitor), patience=stop.patience, restore_best_weights=True
        )
    ]
    if stage.schedule == "plateau":
        callbacks.append(
            keras.callbacks.ReduceLROnPlateau(
                monitor=plateau.monitor,
                mode=mode(plateau.monitor),
                patience=plateau.patience,
                factor=plateau.factor,
                min_lr=plateau.min_learning_rate,
            )
        )
    return [*callbacks, Schedule(stage, steps)]

"""From a stage that trains to a checkpoint, and back: a resumed training goes on as if it had never stopped.

What changes while a stage trains is in the checkpoint: weights and their moving average, the optimizer with its step
and rate, the state of Dropout's random generators, what EarlyStopping, ReduceLROnPlateau and the schedule remember,
the history. The order of patches, their augmentation and mixing follow from seed and epoch and need no state.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from ductal.training.averaging import WeightAverage
from ductal.training.callbacks import EpochRecord, Schedule
from ductal.training.checkpoint import Arrays, Checkpoint

if TYPE_CHECKING:
    from ductal.training.stages import Job

SECONDS_BETWEEN = 600.0  # an epoch of the whole archive can take an hour
_REMEMBERED = {
    keras.callbacks.EarlyStopping: ("wait", "best", "best_epoch", "stopped_epoch"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "best", "cooldown_counter"),
    Schedule: ("done",),
    WeightAverage: ("done",),
}


class StageCheckpoints(keras.callbacks.Callback):
    """Saves a checkpoint after each epoch and in long ones, and puts one back when training begins.

    It must stand last in the list: it reads what the others have made of an epoch, and sets what they reset.

    Args:
        job: the training.
        number: of the stage, from 0.
        record: of the stage's epochs.
        others: the callbacks whose state belongs to the training.
        before: weights of the whole network that the stage began with.
        saved: the checkpoint to go on from, made in this stage; its arrays are taken. None begins the stage.
        average: of the weights, where there is one.

    Attributes:
        last: the checkpoint of the epoch that `saved` lay within, when it is over.
    """

    def __init__(
        self,
        job: Job,
        number: int,
        record: EpochRecord,
        others: Sequence[keras.callbacks.Callback],
        before: Arrays,
        saved: Checkpoint | None,
        average: WeightAverage | None = None,
    ) -> None:
        super().__init__()
        self._job, self._number, self._record, self._average = job, number, record, average
        self._others = [*others, average] if average else others
        self._before, self._saved = before, saved
        self._best: Arrays = saved.groups["best"] if saved else []
        self._skipped = saved.batch if saved else 0
        self._metrics: Arrays = []
        self._epoch, self._last_time = 0, time.monotonic()
        self.last: Checkpoint | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Put back what the checkpoint holds."""
        if self._saved is None:
            return
        groups, network = self._saved.groups, self._job.network.model
        best = None
        if self._best:
            network.set_weights(self._best)
            best = [array.copy() for array in self.model.get_weights()]
        network.set_weights(groups["weights"])
        self.model.optimizer.build(self.model.trainable_variables)
        _assign(self.model.optimizer.variables, groups["optimizer"])
        _assign(_random_states(network), groups["random"])
        for callback in self._others:
            for name in _remembered(callback):
                setattr(callback, name, self._saved.facts["callbacks"][type(callback).__name__][name])
            if isinstance(callback, keras.callbacks.EarlyStopping):
                callback.best_weights = best
        if self._average:
            self._average.restore(groups["average"], within_epoch=bool(self._saved.batch))
        self._metrics = groups["metrics"]
        groups.clear()  # as much again as the model and its optimizer, which have it now

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Put back what the metrics had counted in an epoch that was interrupted."""
        self._epoch = epoch
        if self._metrics:
            nothing = np.zeros((1, 1), np.float32)
            self.model.compute_metrics(None, nothing, nothing)  # the first call makes their variables
            _assign(self.model.metrics_variables, self._metrics)
            self._metrics = []

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Save, if the last time is long ago."""
        # Several devices cannot begin with an epoch of which only the end is left: Keras asks them for a batch.
        is_over = self._job.strategy is not None and self._skipped + batch + 1 >= self._record.feed.steps
        if time.monotonic() - self._last_time >= SECONDS_BETWEEN and not is_over:
            self._save(self._epoch, self._skipped + batch + 1, _copies(self._job.network.model.weights))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Save."""
        weights = _copies(self._job.network.model.weights)
        if self._record.best_row == epoch:
            self._best = weights
        checkpoint = self._save(epoch + 1, 0, weights)
        if self._skipped:
            self.last = checkpoint

    def _save(self, epochs: int, batch: int, weights: Arrays) -> Checkpoint:
        job, record = self._job, self._record
        facts = job.facts() | {
            "stage": self._number,
            "epochs_of_stage": epochs,
            "stopped": self.model.stop_training,
            "rows": record.rows,
            "best_row": record.best_row,
            "epoch_seconds": record.elapsed() if batch else 0.0,
            "callbacks": {
                type(callback).__name__: {name: _plain(getattr(callback, name)) for name in _remembered(callback)}
                for callback in self._others
            },
            "choice": asdict(job.choice),
        }
        groups = {
            "weights": weights,
            "best": self._best,
            "before": self._before,
            "optimizer": _copies(self.model.optimizer.variables),
            "random": _copies(_random_states(job.network.model)),
            "metrics": _copies(self.model.metrics_variables) if batch else [],
            "average": self._average.arrays() if self._average else [],
            "val_probs": [job.val_probs, record.best_probs],
        }
        checkpoint = Checkpoint(record.first_epoch + epochs, batch, facts, groups)
        job.checkpoints.save(checkpoint)
        self._last_time = time.monotonic()
        return checkpoint


def epochs_left(saved: Checkpoint | None, planned: int) -> tuple[int, int]:
    """(initial_epoch, epochs) for Keras's fit of a stage of `planned` epochs; equal where only its end is left.

    Where the checkpoint lies within an epoch, only this one: what follows needs a fit of its own, for Keras wants all
    epochs of a fit to have the same number of batches.
    """
    if saved is None:
        return 0, planned
    done = int(saved.facts["epochs_of_stage"])
    if saved.batch:
        return done, done + 1
    return done, done if saved.facts["stopped"] else planned


def _remembered(callback: keras.callbacks.Callback) -> tuple[str, ...]:
    return next((names for kind, names in _REMEMBERED.items() if isinstance(callback, kind)), ())


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _random_states(model: keras.Model) -> list[Any]:
    """The counters of `keras.random.SeedGenerator`, which no weight is."""
    return [variable for variable in model.variables if variable.name == "seed_generator_state"]


def _copies(variables: Sequence[Any]) -> Arrays:
    # Real copies: what numpy shows of a TensorFlow variable may be its memory, which the next step writes.
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def _assign(variables: Sequence[Any], arrays: Arrays) -> None:
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)

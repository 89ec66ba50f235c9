"""The moving average of the weights, which is validated, kept and saved in place of the last step's."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ductal.training.checkpoint import Arrays


class WeightAverage(keras.callbacks.Callback):
    """Averages the weights that train exponentially over the steps of a stage (Polyak & Juditsky 1992).

    The statistics of BatchNorm layers that train are averaged, too: those of the last step would not fit averaged
    kernels, which is why this is not the `use_ema` of Keras's optimizers. While the average is young it forgets
    faster: after t steps its decay is min(decay, (1 + t) / (10 + t)), as in `tf.train.ExponentialMovingAverage`.

    From the end of an epoch to the beginning of the next the model holds the average, so that whatever validates,
    stores or restores weights in between does so with it. It must stand first in the list.

    Args:
        decay: share of the average that stays in a step, below 1.
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay, self.done = decay, 0
        self._live: list[Any] = []
        self._averages: list[tf.Variable] = []
        self._own: Arrays = []  # the weights of the last step, while the model holds the average
        self._move: Any = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Begin with the weights as they are."""
        self._live = [
            variable
            for layer in self.model.layers
            if layer.trainable
            for variable in layer.weights
            if "float" in str(variable.dtype)
        ]
        self._averages = [tf.Variable(variable.value) for variable in self._live]
        self._move = tf.function(self._moved)

    def _moved(self, share: Any) -> None:
        for average, variable in zip(self._averages, self._live, strict=True):
            average.assign_add((tf.convert_to_tensor(variable.value) - average) * share)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Move the average towards the weights."""
        self.done += 1
        decay = min(self.decay, (1.0 + self.done) / (10.0 + self.done))
        self._move(tf.constant(1.0 - decay, tf.float32))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Train on with the weights of the last step."""
        for variable, array in zip(self._live, self._own, strict=bool(self._own)):
            variable.assign(array)
        self._own = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Put the average into the model."""
        self._own = [np.array(keras.ops.convert_to_numpy(variable)) for variable in self._live]
        for variable, average in zip(self._live, self._averages, strict=True):
            variable.assign(average)

    def arrays(self) -> Arrays:
        """What the model does not hold now: the average within an epoch, the weights of the last step after it."""
        return self._own or [np.array(average.numpy()) for average in self._averages]

    def restore(self, arrays: Arrays, *, within_epoch: bool) -> None:
        """Be what `arrays` were of, when the model has its weights of then."""
        if not within_epoch:
            self._own = list(arrays)
            arrays = [keras.ops.convert_to_numpy(variable) for variable in self._live]
        for average, array in zip(self._averages, arrays, strict=True):
            average.assign(array)

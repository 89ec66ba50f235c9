"""Several graphics processors at once: each computes its share of every batch (data parallel, one machine).

`tf.distribute.MirroredStrategy` keeps a copy of the network on each and adds up their gradients. It has been tested
on logical CPU devices only. A training on one device does not come through here.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import numpy as np
import tensorflow as tf

from ductal.errors import RecipeError
from ductal.training.combinations import check_shares
from ductal.training.recipe import Recipe


def visible_devices() -> list[str]:
    """Names of the graphics processors that TensorFlow may use."""
    return [device.name for device in tf.config.list_logical_devices("GPU")]


def mirrored(gpus: int | None, recipe: Recipe) -> Any | None:
    """The strategy that trains `recipe` on the first `gpus` graphics processors; None for one device, as ever.

    Raises:
        RecipeError: there are not so many, or they cannot share a batch evenly.
    """
    if gpus is None:
        return None
    devices = visible_devices()
    if gpus > len(devices):
        raise RecipeError(
            f"{gpus} graphics processors are asked for, and TensorFlow sees {len(devices)}. "
            + ("Leave out --gpus, or see `ductal doctor`." if not devices else f"Use --gpus {len(devices)}.")
        )
    check_shares(recipe, gpus)
    return _strategy(tuple(devices[:gpus])) if gpus > 1 else None


@cache
def _strategy(devices: tuple[str, ...]) -> Any:
    """One for all trainings of a process: a second one would count its sums from the same number as the first."""
    return tf.distribute.MirroredStrategy(devices)


def scope_of(strategy: Any | None) -> AbstractContextManager[Any]:
    """Where the network, its optimizer and metrics are made."""
    return nullcontext() if strategy is None else strategy.scope()


def replicas_of(strategy: Any | None) -> int:
    """Devices that share a batch."""
    return 1 if strategy is None else int(strategy.num_replicas_in_sync)


class FirstCopy:
    """Predicts with the copy on the first device; Keras would give each batch to all and hand back all answers.

    Args:
        model: made within a strategy.
    """

    def __init__(self, model: Any) -> None:
        self._forward = tf.function(lambda inputs: model(inputs, training=False), reduce_retracing=True)

    def predict_on_batch(self, inputs: np.ndarray) -> np.ndarray:
        """As Keras's."""
        return np.asarray(self._forward(tf.convert_to_tensor(inputs)))

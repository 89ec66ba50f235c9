"""Trainings that are the same again from the same seed, bit for bit, on one kind of machine.

Without this, a training on a CPU repeats already as long as its precision is what it was (where the recipe leaves it
open, a clock chooses it) and the disk has room for the same activations of frozen layers; on a GPU it need not,
since sums are added up in the order in which they come.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import keras
import tensorflow as tf

from ductal.errors import RecipeError
from ductal.machine import visible_cores


@contextmanager
def determinism(seed: int, *, wanted: bool) -> Iterator[None]:
    """Where it is `wanted`, TensorFlow uses operations of one order only, and random numbers begin at `seed`.

    TensorFlow should not have computed anything in this process before, and stays so after the block: it has no way
    back. What has no such form on this device is an error.

    Raises:
        RecipeError: the network has an operation without a deterministic form on this device.
    """
    if not wanted:
        yield
        return
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    try:
        yield
    except tf.errors.UnimplementedError as error:
        reason = str(error).strip().partition("\n")[0]
        raise RecipeError(
            f"The network has an operation that cannot be deterministic on this device: {reason}. "
            "Train on a CPU, with another backbone, or without --deterministic."
        ) from error


def threads() -> int:
    """How many threads TensorFlow computes one operation with: with another number, sums are rounded otherwise."""
    configured: int = tf.config.threading.get_intra_op_parallelism_threads()
    return configured or int(os.environ.get("TF_NUM_INTRAOP_THREADS") or 0) or visible_cores()

"""Batches for training: indices are shuffled, patches gathered from the memory map, augmented, prefetched."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from ductal.training.augment import DRAWS, draws, make_augment
from ductal.training.recipe import Augment


class TrainingFeed:
    """Shuffled, augmented batches of training patches; set `epoch` before each pass.

    Order and augmentation depend on (seed, epoch, patch) only, so a pass can be repeated exactly.
    Validation patches never come through here: they are predicted in order and as they are.

    Args:
        pixels: uint8 (N, 50, 50, 3), usually a memory map.
        rows: int64 (n,), the training rows of `pixels`.
        labels: int (n,), 1 = IDC, for each of `rows`.
        weights: float32 (n,), the weight of each patch in the loss.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        rows: np.ndarray,
        labels: np.ndarray,
        weights: np.ndarray,
        *,
        augment: Augment,
        batch_size: int,
        seed: int,
    ) -> None:
        self.pixels, self.rows = pixels, rows
        self.labels = labels.astype(np.float32)[:, None]
        self.weights = weights.astype(np.float32)
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0
        self._augment = make_augment(augment)

    @property
    def steps(self) -> int:
        """Batches in one pass."""
        return math.ceil(len(self.rows) / self.batch_size)

    def _batches(self, skip: int) -> Iterator[tuple[np.ndarray, ...]]:
        for chosen, numbers in epoch_order(self.seed, self.epoch, len(self.rows), self.batch_size, skip):
            patches = self.pixels[self.rows[chosen]]
            yield patches, numbers, self.labels[chosen], self.weights[chosen]

    def dataset(self, skip: int = 0) -> tf.data.Dataset:
        """Batches of (patches uint8, label float32 (b, 1), weight float32 (b,)) from number `skip` on."""
        side = self.pixels.shape[1:]
        raw = tf.data.Dataset.from_generator(
            lambda: self._batches(skip),
            output_signature=(
                tf.TensorSpec((None, *side), tf.uint8),
                tf.TensorSpec((None, DRAWS), tf.float32),
                tf.TensorSpec((None, 1), tf.float32),
                tf.TensorSpec((None,), tf.float32),
            ),
        )
        ready = raw.map(lambda x, numbers, y, w: (self._augment(x, numbers), y, w), num_parallel_calls=2)
        return prefetched(ready, self.steps - skip)


def prefetched(batches: tf.data.Dataset, steps: int) -> tf.data.Dataset:
    """`batches`, of which there are `steps`, made two ahead of the one that is trained on.

    Without tf.data's autotuning, which has nothing to tune here: its thread keeps the end of an epoch waiting for
    up to ten seconds.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(2).with_options(options)


def epoch_order(
    seed: int, epoch: int, n: int, batch_size: int, skip: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of (positions int64 (b,), draws float32 (b, DRAWS)) in the order of that epoch, from number `skip`."""
    numbers = draws(seed, epoch, n)
    order = np.random.default_rng([seed, epoch]).permutation(n)
    for start in range(skip * batch_size, n, batch_size):
        chosen = order[start : start + batch_size]
        yield chosen, numbers[chosen]


def balanced_weights(labels: np.ndarray) -> np.ndarray:
    """Weight of each patch so that both classes count the same and the mean weight is 1, float32 (n,)."""
    counts = np.bincount(labels, minlength=2).clip(min=1)
    return (len(labels) / (2.0 * counts))[labels].astype(np.float32)

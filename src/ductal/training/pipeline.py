"""Batches for training: indices are shuffled, patches gathered from the memory map, augmented, prefetched."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from ductal.training.augment import draws, make_augment
from ductal.training.mixing import MIXING_DRAWS, mix, mixing_draws
from ductal.training.recipe import Augment
from ductal.training.sampling import Expected, draw_epoch


class TrainingFeed:
    """Shuffled, augmented batches of training patches; set `epoch` before each pass.

    Order and augmentation depend on (seed, epoch, patch) only, so a pass can be repeated exactly.
    Validation patches never come through here: they are predicted in order and as they are.

    Args:
        pixels: uint8 (N, 50, 50, 3), usually a memory map.
        rows: int64 (n,), the training rows of `pixels`.
        labels: int (n,), 1 = IDC, for each of `rows`.
        weights: float32 (n,), the weight of each patch in the loss.
        expected: how often each patch is drawn; None draws each once.
        mixup, cutmix: see `ductal.training.mixing`; 0 mixes none.
        replicas: devices that share a batch; the last patches of an epoch that they cannot share evenly are left out.
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
        expected: Expected | None = None,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        replicas: int = 1,
    ) -> None:
        self.pixels, self.rows, self.used = pixels, rows, len(rows) - len(rows) % replicas
        self.labels = labels.astype(np.float32)[:, None]
        self.weights = weights.astype(np.float32)
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0
        self._expected, self._mixed = expected, (mixup, cutmix)
        self._settings, self._augment = augment, make_augment(augment)

    @property
    def steps(self) -> int:
        """Batches in one pass."""
        return math.ceil(self.used / self.batch_size)

    def _batches(self, skip: int) -> Iterator[tuple[np.ndarray, ...]]:
        n = len(self.rows)
        numbers = draws(self.seed, self.epoch, n, self._settings)
        mixing = np.empty((n, 0), np.float32)
        if any(self._mixed):
            mixing = mixing_draws(self.seed, self.epoch, n, *self._mixed)
        for chosen, places in epoch_order(
            self.seed, self.epoch, n, self.batch_size, skip, self._expected, self.used
        ):
            patches = self.pixels[self.rows[chosen]]
            yield patches, numbers[places], mixing[places], self.labels[chosen], self.weights[chosen]

    def dataset(self, skip: int = 0) -> tf.data.Dataset:
        """Batches of (patches uint8, label float32 (b, 1), weight float32 (b,)) from number `skip` on."""
        side = self.pixels.shape[1:]
        raw = tf.data.Dataset.from_generator(
            lambda: self._batches(skip),
            output_signature=(
                tf.TensorSpec((None, *side), tf.uint8),
                tf.TensorSpec((None, None), tf.float32),
                tf.TensorSpec((None, MIXING_DRAWS if any(self._mixed) else 0), tf.float32),
                tf.TensorSpec((None, 1), tf.float32),
                tf.TensorSpec((None,), tf.float32),
            ),
        )
        return prefetched(raw.map(self._finished, num_parallel_calls=2), self.steps - skip)

    def _finished(
        self, patches: tf.Tensor, numbers: tf.Tensor, mixing: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        patches = self._augment(patches, numbers)
        return mix(patches, labels, weights, mixing) if any(self._mixed) else (patches, labels, weights)


def prefetched(batches: tf.data.Dataset, steps: int) -> tf.data.Dataset:
    """`batches`, of which there are `steps`, made two ahead of the one that is trained on.

    Without tf.data's autotuning, which has nothing to tune here: its thread keeps the end of an epoch waiting for
    up to ten seconds.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(2).with_options(options)


def epoch_order(
    seed: int,
    epoch: int,
    n: int,
    batch_size: int,
    skip: int = 0,
    expected: Expected | None = None,
    used: int | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches in the order of that epoch, from number `skip` on.

    Args:
        n: patches, and places in an epoch.
        expected: how often each patch is drawn; None draws each once.
        used: only the first so many places of the order; None is all.

    Yields:
        (patches int64 (b,), places int64 (b,)): numbers drawn for the epoch are looked up by place. They are the
        same where each patch is drawn once.
    """
    drawn = np.arange(n) if expected is None else draw_epoch(expected, seed, epoch)
    order = np.random.default_rng([seed, epoch]).permutation(n)[:used]
    for start in range(skip * batch_size, len(order), batch_size):
        places = order[start : start + batch_size]
        yield drawn[places], places


def balanced_weights(labels: np.ndarray) -> np.ndarray:
    """Weight of each patch so that both classes count the same and the mean weight is 1, float32 (n,)."""
    counts = np.bincount(labels, minlength=2).clip(min=1)
    return (len(labels) / (2.0 * counts))[labels].astype(np.float32)

"""MixUp and CutMix: two patches of a batch become one, and so do their labels.

The partner of a patch is the one before it in its batch. The order of an epoch is random and depends on (seed,
epoch), and so do the numbers here, so that a batch can be made again exactly.

References: Zhang et al. 2018 (arXiv 1710.09412), Yun et al. 2019 (arXiv 1905.04899).
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

MIXING_DRAWS = 4  # numbers a patch needs: its own share, 1 where it is cut and 0 where it is mixed, 2 x place
_STREAM = 0x6D6978  # keeps these numbers apart from those of augmentation and order


def mixing_draws(seed: int, epoch: int, n: int, mixup: float, cutmix: float) -> np.ndarray:
    """The numbers that `mix` needs, float32 (n, MIXING_DRAWS): row i belongs to the i-th patch of that epoch.

    Args:
        mixup, cutmix: alpha; the share that a patch keeps is from Beta(alpha, alpha). With both above 0 each patch
            is mixed or cut, one as likely as the other.
    """
    rng = np.random.default_rng([seed, epoch, _STREAM])
    cut = rng.random(n) < 0.5 if mixup and cutmix else np.full(n, bool(cutmix))
    numbers = np.empty((n, MIXING_DRAWS), np.float32)
    # Both are drawn for all: a patch's numbers do not depend on what the others are.
    mixed_share, cut_share = (rng.beta(alpha or 1.0, alpha or 1.0, n) for alpha in (mixup, cutmix))
    numbers[:, 0] = np.where(cut, cut_share, mixed_share)
    numbers[:, 1] = cut
    numbers[:, 2:] = rng.random((n, 2))
    return numbers


def mix(
    patches: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, numbers: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Mix every patch of a batch with the one before it (the first with the last).

    The label is what makes the cross-entropy the mean of both patches' by share and weight: weights add up by share,
    labels by share and weight. The share of a patch that was cut is that of the pixels it kept.

    Args:
        patches: uint8 (b, h, w, 3).
        labels: float32 (b, 1).
        weights: float32 (b,), above 0.
        numbers: float32 (b, MIXING_DRAWS).

    Returns:
        The same of the mixed patches; pixels are rounded to whole levels.
    """
    keep = _kept(numbers, tf.shape(patches)[1], tf.shape(patches)[2])
    own = tf.cast(patches, tf.float32)
    mixed = keep * own + (1.0 - keep) * tf.roll(own, 1, 0)
    share = tf.reduce_mean(keep, axis=(1, 2, 3))
    mine, others = share * weights, (1.0 - share) * tf.roll(weights, 1, 0)
    weight = mine + others
    label = (mine[:, None] * labels + others[:, None] * tf.roll(labels, 1, 0)) / weight[:, None]
    return tf.cast(tf.round(mixed), tf.uint8), label, weight


def _kept(numbers: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """How much of each pixel stays, float32 (b, h, w, 1): the share everywhere, or 0 within the rectangle."""
    share, cut, place = numbers[:, 0], numbers[:, 1, None, None], numbers[:, 2:]
    half = tf.sqrt(1.0 - share) / 2.0
    rows, columns = (
        tf.abs((tf.range(size, dtype=tf.float32) + 0.5) / tf.cast(size, tf.float32) - place[:, axis, None])
        < half[:, None]
        for axis, size in enumerate((height, width))
    )
    outside = 1.0 - tf.cast(rows[:, :, None] & columns[:, None, :], tf.float32)
    return (cut * outside + (1.0 - cut) * share[:, None, None])[..., None]

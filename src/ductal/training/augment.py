"""Batched augmentation of training patches, stateless: keyed by seed, epoch (or view) and patch."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from ductal.data.stain import STAINS
from ductal.training.randaugment import GEOMETRY, MORE_DRAWS, adjust_colours, changes
from ductal.training.recipe import Augment

DRAWS = 9  # uniform numbers a patch needs: d4, rotation, zoom, 2 x shift, 2 x stain gain, 2 x stain offset

# The 8 symmetries of the square as 2 x 2 matrices on centred (x, y).
_D4 = np.array(
    [
        [[1, 0], [0, 1]],
        [[0, 1], [-1, 0]],
        [[-1, 0], [0, -1]],
        [[0, -1], [1, 0]],
        [[-1, 0], [0, 1]],
        [[1, 0], [0, -1]],
        [[0, 1], [1, 0]],
        [[0, -1], [-1, 0]],
    ],
    dtype=np.float32,
)


def draws(seed: int, epoch: int, n: int, settings: Augment | None = None) -> np.ndarray:
    """Uniform numbers in [0, 1): row i belongs to training patch i of that epoch.

    Returns:
        float32 (n, DRAWS), and for `settings` with RandAugment MORE_DRAWS further columns; the first are the same.
    """
    numbers = np.random.default_rng([seed, epoch, DRAWS]).random((n, DRAWS), dtype=np.float32)
    if settings is None or settings.randaugment is None:
        return numbers
    more = np.random.default_rng([seed, epoch, DRAWS, MORE_DRAWS]).random((n, MORE_DRAWS), dtype=np.float32)
    return np.concatenate([numbers, more], axis=1)


def make_augment(settings: Augment) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """The function (patches uint8 (n, h, h, 3), float32 numbers of `draws`) -> uint8 (n, h, h, 3).

    Geometry (D4, rotation, zoom, shift) is one resampling with reflected borders; with D4 alone it is
    an exact permutation of pixels. Stain jitter multiplies and shifts the haematoxylin and eosin
    channels in optical density and leaves the residual alone (Tellez et al. 2019, 10.1016/j.media.2019.101544).
    The operations of RandAugment are parts of these two, and of a change of colours between them.
    """
    random = settings.randaugment
    smooth = bool(settings.rotation_degrees or settings.zoom or settings.shift or random)

    def augment(patches: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
        x = tf.cast(patches, tf.float32)
        drawn = changes(numbers[:, DRAWS:], random) if random else {}
        if settings.stain or random:
            x = _change_stain(x, *_stain_jitter(numbers, settings.stain, drawn))
        if random:
            x = adjust_colours(x, drawn)
        if smooth or settings.d4:
            x = _warp(x, numbers, settings, drawn, "BILINEAR" if smooth else "NEAREST")
        return tf.cast(tf.clip_by_value(tf.round(x), 0.0, 255.0), tf.uint8)

    return augment


def _signed(numbers: tf.Tensor, column: int) -> tf.Tensor:
    return 2.0 * numbers[:, column] - 1.0


def _warp(
    x: tf.Tensor, numbers: tf.Tensor, settings: Augment, drawn: dict[str, tf.Tensor], interpolation: str
) -> tf.Tensor:
    side = tf.shape(x)[1]
    centre = (tf.cast(side, tf.float32) - 1.0) / 2.0
    matrix = tf.eye(2, batch_shape=[tf.shape(x)[0]])
    if settings.d4:
        matrix = tf.gather(_D4, tf.cast(numbers[:, 0] * 8.0, tf.int32))
    angle = _signed(numbers, 1) * (settings.rotation_degrees * math.pi / 180.0)
    scale = tf.exp(_signed(numbers, 2) * math.log1p(settings.zoom))
    cos, sin = tf.cos(angle) * scale, tf.sin(angle) * scale
    turn = tf.stack([tf.stack([cos, -sin], -1), tf.stack([sin, cos], -1)], -2)
    matrix = tf.linalg.matmul(turn, matrix)
    for name in GEOMETRY:
        if name in drawn:
            matrix = tf.linalg.matmul(GEOMETRY[name](drawn[name]), matrix)
    shift = tf.stack([_signed(numbers, 3), _signed(numbers, 4)], -1) * settings.shift * tf.cast(side, tf.float32)
    # The op maps output (x, y) to input: input = M (output - centre) + centre + shift.
    offset = centre + shift - tf.reduce_sum(matrix, -1) * centre
    zeros = tf.zeros_like(offset)
    transforms = tf.concat([matrix[:, 0], offset[:, :1], matrix[:, 1], offset[:, 1:], zeros], -1)
    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=x,
        transforms=transforms,
        output_shape=tf.stack([side, side]),
        fill_value=0.0,
        interpolation=interpolation,
        fill_mode="REFLECT",
    )
    return tf.ensure_shape(warped, x.shape)


def _stain_jitter(
    numbers: tf.Tensor, strength: float, drawn: dict[str, tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Gain and offset of haematoxylin and eosin for each patch, both (n, 2)."""
    gain = tf.stack([1.0 + strength * _signed(numbers, 5), 1.0 + strength * _signed(numbers, 6)], -1)
    if drawn:
        gain *= 1.0 + tf.stack([drawn["haematoxylin"], drawn["eosin"]], -1)
    return gain, tf.stack([strength * _signed(numbers, 7), strength * _signed(numbers, 8)], -1)


def _change_stain(x: tf.Tensor, gain: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    count = tf.shape(x)[0]
    gain = tf.concat([gain, tf.ones([count, 1])], -1)  # the residual stays
    offset = tf.concat([offset, tf.zeros([count, 1])], -1)
    stains = tf.constant(STAINS, tf.float32)
    unmix = tf.constant(np.linalg.inv(STAINS), tf.float32)
    change = tf.linalg.matmul(unmix[None] * gain[:, None, :], stains[None])
    # Offsets are a share of a typical stain density (0.2), so that `strength` has one meaning for both.
    shift = tf.linalg.matmul(offset * 0.2, stains)
    density = -tf.math.log((x + 1.0) / 256.0)
    density = tf.linalg.matmul(tf.reshape(density, [count, -1, 3]), change) + shift[:, None, :]
    return tf.reshape(256.0 * tf.exp(-density) - 1.0, tf.shape(x))

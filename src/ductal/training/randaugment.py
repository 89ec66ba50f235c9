"""RandAugment (Cubuk et al. 2020, arXiv 1909.13719) with operations that tissue under a microscope undergoes.

The published list is for photographs; some of its operations (solarize, posterize, invert, equalize) make colours
that no stain has. Those here are geometry, light, focus and the two stains, in the manner of Faryna et al. 2021
(MIDL, PMLR 143:168). Every operation has a size that is 0 where it was not drawn, so that a batch goes through all of
them at once, always in one order, and without a random state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ductal.training.recipe import RandAugment

# Each operation with its size at strength 1, in either direction.
OPERATIONS = {
    "rotation": 1.0,  # radians
    "shear": 0.6,
    "zoom": 0.6,  # natural logarithm of the scale
    "brightness": 0.6,  # share of the value
    "contrast": 0.9,  # share of the distance from the patch's mean grey
    "saturation": 0.9,  # share of the distance from each pixel's grey
    "sharpness": 1.0,  # -1 is smoothed, +1 as much the other way
    "haematoxylin": 0.6,  # share of the optical density
    "eosin": 0.6,
}
MORE_DRAWS = 2 * len(OPERATIONS)  # uniform numbers a patch needs: which are drawn, and how far each goes
_GREY = (0.299, 0.587, 0.114)
_SMOOTH = ((1.0, 1.0, 1.0), (1.0, 5.0, 1.0), (1.0, 1.0, 1.0))  # Pillow's, which its Sharpness is made of


def changes(numbers: tf.Tensor, settings: RandAugment) -> dict[str, tf.Tensor]:
    """The size of each operation for each patch, float32 (n,); 0 for all but `settings.operations` of them.

    Args:
        numbers: uniform in [0, 1), float32 (n, MORE_DRAWS).
        settings: how many are drawn, without repeating one, and how far they go at most.
    """
    count = len(OPERATIONS)
    last = tf.math.top_k(numbers[:, :count], settings.operations).values[:, -1:]
    chosen = tf.cast(numbers[:, :count] >= last, tf.float32)
    sizes = chosen * (2.0 * numbers[:, count:] - 1.0) * settings.strength
    return {name: sizes[:, k] * largest for k, (name, largest) in enumerate(OPERATIONS.items())}


def adjust_colours(x: tf.Tensor, sizes: dict[str, tf.Tensor]) -> tf.Tensor:
    """Brightness, contrast, saturation and sharpness, as Pillow's ImageEnhance has them; float32 (n, h, w, 3)."""
    by = {name: size[:, None, None, None] for name, size in sizes.items()}
    x = x * (1.0 + by["brightness"])
    mean = tf.reduce_mean(_grey(x), axis=(1, 2), keepdims=True)
    x = x + (x - mean) * by["contrast"]
    x = x + (x - _grey(x)) * by["saturation"]
    return x + (x - _smoothed(x)) * by["sharpness"]


def _grey(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(x * tf.constant(_GREY), axis=-1, keepdims=True)


def _smoothed(x: tf.Tensor) -> tf.Tensor:
    kernel = tf.constant(_SMOOTH) / tf.reduce_sum(_SMOOTH)
    kernel = tf.tile(kernel[:, :, None, None], [1, 1, 3, 1])
    around = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT")
    return tf.nn.depthwise_conv2d(around, kernel, [1, 1, 1, 1], "VALID")


def _matrix(a: tf.Tensor, b: tf.Tensor, c: tf.Tensor, d: tf.Tensor) -> tf.Tensor:
    return tf.stack([tf.stack([a, b], -1), tf.stack([c, d], -1)], -2)


def _rotated(size: tf.Tensor) -> tf.Tensor:
    return _matrix(tf.cos(size), -tf.sin(size), tf.sin(size), tf.cos(size))


def _sheared(size: tf.Tensor) -> tf.Tensor:
    return _matrix(tf.ones_like(size), size, tf.zeros_like(size), tf.ones_like(size))


def _zoomed(size: tf.Tensor) -> tf.Tensor:
    return _matrix(tf.exp(size), tf.zeros_like(size), tf.zeros_like(size), tf.exp(size))


# Operations that move pixels: a 2 x 2 matrix on centred (x, y) for each patch, (n, 2, 2).
GEOMETRY: dict[str, Callable[[Any], Any]] = {"rotation": _rotated, "shear": _sheared, "zoom": _zoomed}

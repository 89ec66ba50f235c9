"""Faster layers compute what Keras's own do, forward and back, and leave no trace in the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ductal.training.fast_layers import (
    is_fusible,
    is_small_convolution,
    is_small_depthwise,
    make_fast,
    make_plain,
    tap_pairs,
)

RNG = np.random.default_rng(11)


def two_alike(layer: Any, shape: tuple[int, int, int]) -> tuple[keras.Model, keras.Model]:
    """A model with `layer` and another with its copy; the second is made fast."""
    models = []
    for one in (layer, type(layer).from_config(layer.get_config())):
        inputs = keras.Input(shape)
        models.append(keras.Model(inputs, one(inputs)))
    plain, fast = models
    weights = [RNG.normal(1.0, 0.2, w.shape).astype(np.float32) for w in plain.get_weights()]
    for model in models:
        model.set_weights(weights)
    make_fast(fast)
    return plain, fast


def step(model: keras.Model, x: np.ndarray, target: np.ndarray) -> list[np.ndarray]:
    """Output, gradients of input and weights, and the weights after a call in training."""

    @tf.function
    def run(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = model(x, training=True)
            loss = tf.reduce_sum(tf.cast(y, tf.float32) * target)
        return y, tape.gradient(loss, [x, *(weight.value for weight in model.trainable_weights)])

    y, gradients = run(tf.constant(x))
    return [np.asarray(y), *(np.asarray(one) for one in gradients), *model.get_weights()]


def assert_alike(layer: Any, shape: tuple[int, int, int]) -> None:
    plain, fast = two_alike(layer, shape)
    assert "call" in vars(fast.layers[1])
    x = RNG.normal(3.0, 2.0, (6, *shape)).astype(np.float32)
    target = RNG.normal(size=(6, *plain.output.shape[1:])).astype(np.float32)
    for expected, found in zip(step(plain, x, target), step(fast, x, target), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_batch_norm_trains_as_keras_does() -> None:
    assert_alike(keras.layers.BatchNormalization(momentum=0.7), (5, 4, 3))


def test_frozen_batch_norm_stays_in_inference_mode() -> None:
    layer = keras.layers.BatchNormalization(trainable=False)
    plain, fast = two_alike(layer, (4, 4, 3))
    before = fast.get_weights()
    x = RNG.normal(5.0, 3.0, (8, 4, 4, 3)).astype(np.float32)
    np.testing.assert_array_equal(fast(x, training=True), plain(x, training=True))
    for old, new in zip(before, fast.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_inference_is_keras_s_own() -> None:
    plain, fast = two_alike(keras.layers.BatchNormalization(), (4, 4, 3))
    x = RNG.normal(size=(8, 4, 4, 3)).astype(np.float32)
    np.testing.assert_array_equal(fast(x, training=False), plain(x, training=False))


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "padding"),
    [(4, 3, 1, "same"), (4, 5, 1, "same"), (7, 5, 2, "same"), (2, 5, 1, "same"), (5, 3, 2, "same"),
     (4, 3, 1, "valid"), (7, 5, 2, "valid"), (5, 3, 2, "valid")],
)  # fmt: skip
def test_depthwise_convolution_trains_as_keras_does(side: int, kernel: int, stride: int, padding: str) -> None:
    assert_alike(
        keras.layers.DepthwiseConv2D(kernel, stride, padding, use_bias=False, activation="relu"), (side, side, 8)
    )


@pytest.mark.parametrize(("side", "kernel"), [((3, 3), 3), ((2, 4), 3), ((3, 2), (5, 2)), ((1, 1), 3)])
def test_convolution_trains_as_keras_does(side: tuple[int, int], kernel: int | tuple[int, int]) -> None:
    assert_alike(keras.layers.Conv2D(5, kernel, padding="same", activation="relu"), (*side, 8))


@given(
    read=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_every_output_meets_at_most_one_input_in_a_tap(
    read: tuple[int, int], kernel: tuple[int, int], stride: int
) -> None:
    wrote = (-(-read[0] // stride), -(-read[1] // stride))
    pairs = tap_pairs(read, wrote, kernel, stride, "SAME")
    assert pairs.shape == (kernel[0] * kernel[1], read[0] * read[1], wrote[0] * wrote[1])
    assert (pairs.sum(axis=1) <= 1).all()
    # A patch of ones convolved with a kernel of ones counts, for each output, the taps inside the map.
    ones = tf.ones((1, *read, 1))
    counted = tf.nn.conv2d(ones, tf.ones((*kernel, 1, 1)), stride, "SAME")
    np.testing.assert_array_equal(pairs.sum(axis=(0, 1)), np.asarray(counted).ravel())


def test_layers_that_differ_are_left_alone() -> None:
    inputs = keras.Input((4, 4, 3))
    flat = keras.layers.GlobalAveragePooling2D()(inputs)
    for layer, x in (
        (keras.layers.BatchNormalization(scale=False), inputs),
        (keras.layers.BatchNormalization(axis=1), inputs),
        (keras.layers.BatchNormalization(), flat),
        (keras.layers.DepthwiseConv2D(3, padding="same"), inputs),
        (keras.layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, use_bias=False), inputs),
        (keras.layers.DepthwiseConv2D(3, dilation_rate=2, padding="same", use_bias=False), inputs),
        (keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False), keras.Input((40, 40, 3))),
        (keras.layers.Conv2D(3, 3, padding="same"), inputs),
        (keras.layers.Conv2D(3, 3, padding="same", strides=2), inputs),
        (keras.layers.Conv2D(3, 1, padding="same"), keras.Input((3, 3, 3))),
        (keras.layers.Conv2D(3, 3, padding="same", groups=3), keras.Input((3, 3, 3))),
    ):
        layer(x)
        assert not is_fusible(layer)
        assert not is_small_depthwise(layer)
        assert not is_small_convolution(layer)


def test_make_plain_leaves_a_model_that_loads_anywhere(tmp_path: Path) -> None:
    base = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg")
    x = RNG.normal(128.0, 50.0, (4, 32, 32, 3)).astype(np.float32)
    before = np.asarray(base(x, training=False))
    make_fast(base)
    fast = [layer.name for layer in base.layers if "call" in vars(layer)]
    assert sum("bn" in name for name in fast) == 49
    assert sum("dwconv" in name for name in fast) >= 10
    make_plain(base)
    assert not any("call" in vars(layer) for layer in base.layers)
    base.save(tmp_path / "base.keras")
    loaded = keras.models.load_model(tmp_path / "base.keras")
    np.testing.assert_allclose(loaded(x, training=False), before, rtol=1e-5, atol=1e-5)


def test_a_whole_network_takes_the_same_step() -> None:
    keras.utils.set_random_seed(1)
    base = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg")
    for layer in base.layers:
        if isinstance(layer, keras.layers.Dropout):  # draws anew in each call
            layer.rate = 0.0
    x = tf.constant(RNG.normal(128.0, 50.0, (8, 32, 32, 3)).astype(np.float32))
    start = base.get_weights()

    def gradients() -> tuple[list[np.ndarray], list[np.ndarray]]:
        base.set_weights(start)

        @tf.function
        def run() -> Any:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(base(x, training=True) - 0.3))
            return tape.gradient(loss, [weight.value for weight in base.trainable_weights])

        found = [np.asarray(one) for one in run()]
        return found, base.get_weights()

    expected, moved = gradients()
    make_fast(base)
    found, moved_fast = gradients()
    scale = max(np.abs(one).max() for one in expected)
    for one, other in zip(expected, found, strict=True):
        assert np.abs(one - other).max() <= 1e-3 * max(np.abs(one).max(), 1e-3 * scale)
    for one, other in zip(moved, moved_fast, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)

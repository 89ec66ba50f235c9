"""Faster training steps of three Keras layers, in place and for as long as a training lasts.

Profiles of EfficientNetB0 and of the last block of VGG16 on a CPU showed where a step waits without need:

- Keras's BatchNormalization is about ten elementwise operations forward and twenty back; TensorFlow has one each.
- oneDNN's gradient of a depthwise kernel takes milliseconds on maps of 2 x 2 or 4 x 4, and that of an ordinary kernel
  runs at a third of the processor's speed on 3 x 3; as products of matrices they take a fraction of that.

The layers stay Keras's own: what is saved, and what predicts, is not touched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Positions of the output map up to which products of matrices are the faster gradient of a kernel.
LARGEST_DEPTHWISE, LARGEST_CONVOLUTION = 16, 9


def make_fast(model: keras.Model) -> None:
    """Give the layers of `model` that have a faster way to train their faster `call`; see `make_plain`."""
    on_cpu = not tf.config.list_physical_devices("GPU")
    for layer in model.layers:
        if is_fusible(layer):
            layer.call = _fused_batch_norm(layer)
        elif on_cpu and is_small_depthwise(layer):
            layer.call = _small_depthwise(layer)
        elif on_cpu and is_small_convolution(layer):
            layer.call = _small_convolution(layer)


def make_plain(model: keras.Model) -> None:
    """Undo `make_fast`."""
    for layer in model.layers:
        vars(layer).pop("call", None)


def is_fusible(layer: Any) -> bool:
    """Whether TensorFlow's fused batch normalisation computes what `layer` does."""
    return (
        type(layer) is keras.layers.BatchNormalization
        and layer.scale
        and layer.center
        and len(layer.input.shape) == 4
        and layer.axis in (-1, 3)
        and not layer.renorm
        and not layer.synchronized
    )


def is_small_depthwise(layer: Any) -> bool:
    """Whether `layer` is a depthwise convolution with an output map small enough for the product of matrices."""
    return (
        type(layer) is keras.layers.DepthwiseConv2D
        and layer.data_format == "channels_last"
        and layer.depth_multiplier == 1
        and layer.dilation_rate == (1, 1)
        and layer.strides[0] == layer.strides[1]
        and not layer.use_bias
        and None not in layer.output.shape[1:3]
        and layer.output.shape[1] * layer.output.shape[2] <= LARGEST_DEPTHWISE
    )


def is_small_convolution(layer: Any) -> bool:
    """Whether `layer` is a plain convolution of stride 1 with such an output map."""
    return (
        type(layer) is keras.layers.Conv2D
        and layer.data_format == "channels_last"
        and layer.dilation_rate == (1, 1)
        and layer.strides == (1, 1)
        and layer.padding == "same"
        and layer.groups == 1
        and layer.use_bias
        and layer.kernel_size != (1, 1)  # one product already
        and None not in layer.output.shape[1:3]
        and layer.output.shape[1] * layer.output.shape[2] <= LARGEST_CONVOLUTION
    )


def _fused_batch_norm(layer: Any) -> Callable[..., Any]:
    plain = layer.call

    def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not (training and layer.trainable) or mask is not None:
            return plain(inputs, training=training, mask=mask)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=tf.convert_to_tensor(layer.gamma), offset=tf.convert_to_tensor(layer.beta),
            mean=[], variance=[], epsilon=layer.epsilon, is_training=True,
        )  # fmt: skip
        # The operation tells the unbiased variance; Keras keeps the biased one.
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
        variance *= (count - 1.0) / count
        for moving, found in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
            moving.assign(moving * layer.momentum + found * (1.0 - layer.momentum))
        return tf.cast(outputs, layer.compute_dtype)

    return call


def _small_depthwise(layer: Any) -> Callable[..., Any]:
    stride, padding = layer.strides[0], layer.padding.upper()
    strides = [1, stride, stride, 1]
    pairs = tap_pairs(layer.input.shape[1:3], layer.output.shape[1:3], layer.kernel_size, stride, padding)

    @tf.custom_gradient
    def convolve(inputs: Any, kernel: Any) -> Any:
        def gradient(outputs: Any) -> Any:
            of_inputs = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(inputs), filter=kernel, out_backprop=outputs, strides=strides, padding=padding
            )
            return of_inputs, kernel_gradient(inputs, outputs, pairs, kernel.shape)

        return tf.nn.depthwise_conv2d(inputs, kernel, strides, padding), gradient

    def call(inputs: Any) -> Any:
        return layer.activation(convolve(inputs, tf.cast(layer.kernel, inputs.dtype)))

    return call


def _small_convolution(layer: Any) -> Callable[..., Any]:
    @tf.custom_gradient
    def convolve(inputs: Any, kernel: Any) -> Any:
        def gradient(outputs: Any) -> Any:
            of_inputs = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(inputs), filter=kernel, out_backprop=outputs, strides=[1] * 4, padding="SAME"
            )
            return of_inputs, _gradient_by_tap(inputs, outputs, layer.kernel_size)

        return tf.nn.conv2d(inputs, kernel, 1, "SAME"), gradient

    def call(inputs: Any) -> Any:
        outputs = convolve(inputs, tf.cast(layer.kernel, inputs.dtype))
        return layer.activation(outputs + tf.cast(layer.bias, outputs.dtype))

    return call


def _gradient_by_tap(inputs: Any, outputs: Any, kernel: tuple[int, int]) -> Any:
    """Gradient of a kernel (kh, kw, ci, co): for each tap, what it read times `outputs` (n, h, w, co)."""
    _, rows, columns, channels = inputs.shape
    above, left = ((side - 1) // 2 for side in kernel)
    margins = [[0, 0], [above, kernel[0] - 1 - above], [left, kernel[1] - 1 - left], [0, 0]]
    padded = tf.pad(inputs, margins)
    wrote = tf.reshape(outputs, [-1, outputs.shape[-1]])
    taps = [
        tf.matmul(tf.reshape(padded[:, i : i + rows, j : j + columns], [-1, channels]), wrote, transpose_a=True)
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]
    return tf.reshape(tf.stack(taps), [*kernel, channels, outputs.shape[-1]])


def kernel_gradient(inputs: Any, outputs: Any, pairs: np.ndarray, shape: Any) -> Any:
    """Gradient of a depthwise kernel from the correlation of each input position with each output position.

    Args:
        inputs: (n, H, W, c), what the convolution read.
        outputs: (n, h, w, c), the gradient of what it wrote.
        pairs: as from `tap_pairs`.
        shape: of the kernel, (kh, kw, c, 1).
    """
    channels = inputs.shape[-1]
    read = tf.transpose(tf.reshape(inputs, [-1, pairs.shape[1], channels]), [2, 1, 0])
    wrote = tf.transpose(tf.reshape(outputs, [-1, pairs.shape[2], channels]), [2, 0, 1])
    correlation = tf.reshape(tf.matmul(read, wrote), [channels, -1])
    taps = tf.constant(pairs.reshape(len(pairs), -1), correlation.dtype)
    return tf.reshape(tf.matmul(taps, correlation, transpose_b=True), shape)


def tap_pairs(
    read: tuple[int, int], wrote: tuple[int, int], kernel: tuple[int, int], stride: int, padding: str
) -> np.ndarray:
    """Which input position meets which output position in which tap of a kernel.

    Args:
        read, wrote: (rows, columns) of the input and output maps.
        kernel: (rows, columns).
        padding: "SAME" or "VALID", TensorFlow's.

    Returns:
        float32 (taps, input positions, output positions), 1 where they meet, else 0.
    """
    rows, columns = (
        _along(read[axis], wrote[axis], kernel[axis], stride, padding) for axis in (0, 1)
    )
    pairs = np.einsum("ipq,jrs->ijprqs", rows, columns)
    return pairs.reshape(kernel[0] * kernel[1], read[0] * read[1], wrote[0] * wrote[1])


def _along(read: int, wrote: int, kernel: int, stride: int, padding: str) -> np.ndarray:
    """`tap_pairs` of one axis, (taps, input positions, output positions)."""
    missing = max((wrote - 1) * stride + kernel - read, 0) if padding == "SAME" else 0
    tap, place, target = np.ogrid[:kernel, :read, :wrote]
    return (place == target * stride + tap - missing // 2).astype(np.float32)

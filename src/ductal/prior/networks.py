"""The networks of the usual notebook, with the faults that live in their graph.

They are small on purpose and are kept by nobody: `ductal.training.network` builds the models that are.
Every input is uint8 RGB 0-255, shape (n, 50, 50, 3); right or wrong preprocessing is part of the graph, so that a
model is always measured with what it was trained on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

from ductal.machine import cpu
from ductal.prior.faults import Training
from ductal.training.backbones import VGG_MEAN_RGB
from ductal.training.network import PATCH_PX, Normalisation, layers_in
from ductal.training.weights import load_imagenet

CNN_FILTERS = (16, 32, 64, 64)
# Keras' 0.99 lags by hundreds of steps, which are several epochs here.
NORM_MOMENTUM, KERAS_NORM_MOMENTUM = 0.9, 0.99


def build_frozen(training: Training, statistics: Normalisation, weights_file: Path | None = None) -> keras.Model:
    """The part that never learns: patches to features, float32 (n, f).

    Raises:
        WeightsError: the ImageNet weights of VGG16 are not to be had.
    """
    inputs, x = _inputs(training)
    return keras.Model(inputs, _features(training, statistics, x, weights_file))


def build_head(training: Training, features: int) -> keras.Model:
    """What learns on a frozen base: features, float32 (n, f), to the probability of IDC, float32 (n, 1)."""
    inputs = keras.Input((features,))
    return keras.Model(inputs, _top(training, inputs))


def build_whole(training: Training, statistics: Normalisation) -> keras.Model:
    """A network that learns in all its layers: patches to the probability of IDC, float32 (n, 1).

    BatchNorm of one that starts from pretrained weights is in inference mode, unless that is the fault.
    """
    inputs, x = _inputs(training)
    model = keras.Model(inputs, _top(training, _features(training, statistics, x, None)))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization) and training.weights == "synthetic":
            layer.trainable = training.norm_trains
    return model


def _inputs(training: Training) -> tuple[Any, Any]:
    inputs = keras.Input((PATCH_PX, PATCH_PX, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255 if training.rescaled else 1.0, dtype="float32")(inputs)
    if training.input_px != PATCH_PX:
        x = keras.layers.Resizing(training.input_px, training.input_px, dtype="float32")(x)
    return inputs, x


def _features(training: Training, statistics: Normalisation, x: Any, weights_file: Path | None) -> Any:
    if training.network == "vgg16":
        return _vgg16(training, x, weights_file)
    if training.network == "efficientnetb0":
        return _efficientnet(training, statistics, x)
    return _cnn(training, statistics, x)


def _vgg16(training: Training, x: Any, weights_file: Path | None) -> Any:
    if not training.rescaled:
        # The published kernels expect BGR less the channel means; `rescale=1/255` takes the place of both.
        x = keras.layers.Normalization(mean=list(VGG_MEAN_RGB), variance=[1.0, 1.0, 1.0])(x)
        x = keras.ops.flip(x, axis=-1)
    # It is never trained here, and 16 bits are several times faster where the processor multiplies in them.
    with layers_in("mixed_bfloat16" if cpu().has_bfloat16 else "float32"):
        base = keras.applications.VGG16(include_top=False, weights=None, input_tensor=x)
    load_imagenet(base, "VGG16", weights_file)
    return keras.layers.GlobalAveragePooling2D(dtype="float32")(base.output)


def _efficientnet(training: Training, statistics: Normalisation, x: Any) -> Any:
    base = keras.applications.EfficientNetB0(include_top=False, weights=None, input_tensor=x)
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = NORM_MOMENTUM
        if isinstance(layer, keras.layers.Normalization) and training.normalised:
            # It comes after EfficientNet's own division by 255.
            mean = np.array(statistics.mean, np.float32) / 255
            variance = (np.array(statistics.std, np.float32) / 255) ** 2
            layer.set_weights([mean, variance, np.array(1)])
            layer.finalize_state()
    return keras.layers.GlobalAveragePooling2D()(base.output)


def _cnn(training: Training, statistics: Normalisation, x: Any) -> Any:
    variance = [std**2 for std in statistics.std]
    x = keras.layers.Normalization(mean=list(statistics.mean), variance=variance)(x)
    momentum = KERAS_NORM_MOMENTUM if training.norm_trains else NORM_MOMENTUM
    for filters in CNN_FILTERS:
        x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization(momentum=momentum)(x)
        x = keras.layers.MaxPooling2D()(keras.layers.ReLU()(x))
    return keras.layers.Flatten()(x)


def _top(training: Training, features: Any) -> Any:
    if training.network == "efficientnetb0":
        features = keras.layers.Dropout(0.2)(features)
    else:
        features = keras.layers.Dense(256, activation="relu")(features)
        features = keras.layers.Dropout(0.5)(features)
    return keras.layers.Dense(1, activation="sigmoid", dtype="float32")(features)

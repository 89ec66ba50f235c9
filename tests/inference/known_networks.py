"""Networks whose answer is known, and patches for them."""

from __future__ import annotations

import keras
import numpy as np

from ductal.training.network import Normalisation

RNG = np.random.default_rng(8)
PATCHES = RNG.integers(0, 256, (6, 50, 50, 3), dtype=np.uint8)
STATISTICS = Normalisation((200.0, 150.0, 180.0), (40.0, 50.0, 60.0))


def network(features: keras.KerasTensor, inputs: keras.KerasTensor, *, dense: str = "") -> keras.Model:
    """Mean of the features, or one Dense layer over all; logit, probability."""
    pool = keras.layers.Flatten() if dense else keras.layers.GlobalAveragePooling2D()
    x = keras.layers.Dense(1, kernel_initializer=dense or "ones", name="logit")(pool(features))
    return keras.Model(inputs, keras.layers.Activation("sigmoid", name="probability")(x))


def start() -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Input, and darkness from 0 to 1."""
    inputs = keras.Input((50, 50, 3), dtype="uint8")
    return inputs, keras.layers.Rescaling(-1 / 255, offset=1.0, dtype="float32")(inputs)


def averaging(x: keras.KerasTensor, filters: int = 1, name: str = "cells") -> keras.KerasTensor:
    """10 x 10 cells: mean darkness of each."""
    kernel = keras.initializers.Constant(1 / 300)
    return keras.layers.Conv2D(filters, 10, strides=10, activation="relu", kernel_initializer=kernel, name=name)(x)


def inside(maps: np.ndarray, margin: int = 0) -> np.ndarray:
    """Share of each map's sum that lies in the quadrant top left."""
    end = 20 + margin
    return maps[:, :end, :end].sum(axis=(1, 2)) / maps.sum(axis=(1, 2))

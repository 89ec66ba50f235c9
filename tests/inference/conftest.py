"""Two networks to explain; lets the tests of this folder import `known_networks` and `small_encoder`."""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from known_networks import averaging, network, start


@pytest.fixture(scope="module")
def one_quadrant() -> keras.Model:
    """Sees nothing but the darkness of the quadrant top left."""
    mask = np.zeros((50, 50, 1), np.float32)
    mask[:20, :20] = 1
    inputs, x = start()
    return network(averaging(x * mask), inputs)


@pytest.fixture(scope="module")
def small() -> keras.Model:
    """Random weights, and sensitive to how a patch is turned."""
    keras.utils.set_random_seed(3)
    inputs, x = start()
    x = keras.layers.Conv2D(6, 7, strides=4, activation="relu", name="conv1")(x)
    x = keras.layers.Conv2D(5, 3, strides=2, activation="relu", name="conv2")(x)
    x = keras.layers.MaxPooling2D(5, name="pool")(x)  # 1 x 1
    return network(x, inputs, dense="glorot_uniform")

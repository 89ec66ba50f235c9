"""The fused Adam is Keras's Adam; decay is for kernels only."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from ductal.training.optimizers import FusedAdam, FusedAdamW, make_optimizer
from ductal.training.recipe import Stage

from .small_training import stage

X = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
Y = (X[:, :1] > X[:, 1:2]).astype(np.float32)


def network() -> keras.Model:
    keras.utils.set_random_seed(3)
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((6,)), layers.Dense(5, activation="relu"), layers.BatchNormalization(), layers.Dense(1)]
    )


def trained(optimizer: Any, frozen: bool = False) -> list[np.ndarray]:
    """All weights after 30 steps, the first at a changed learning rate."""
    model = network()
    model.layers[0].trainable = not frozen
    model.compile(optimizer, "mse", jit_compile=False)
    rate = float(optimizer.learning_rate)
    optimizer.learning_rate.assign(rate * 3)
    model.train_on_batch(X, Y)
    optimizer.learning_rate.assign(rate)
    for _ in range(29):
        model.train_on_batch(X, Y)
    return [np.asarray(weight) for weight in model.get_weights()]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    ("ours", "keras_own"),
    [
        (FusedAdam(1e-2), keras.optimizers.Adam(1e-2)),
        (FusedAdam(1e-2, beta_1=0.5, beta_2=0.9, epsilon=1e-3), keras.optimizers.Adam(1e-2, 0.5, 0.9, 1e-3)),
        (FusedAdamW(1e-2, weight_decay=0.1), keras.optimizers.AdamW(1e-2, weight_decay=0.1)),
    ],
)
def test_the_same_as_keras(ours: Any, keras_own: Any, frozen: bool) -> None:
    copies = [type(item).from_config(item.get_config()) for item in (ours, keras_own)]
    found, expected = (trained(copy, frozen) for copy in copies)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)
    assert any(abs(mine - start).max() > 0.05 for mine, start in zip(found, network().get_weights(), strict=True))


def test_decay_spares_biases_and_normalisation() -> None:
    optimizer = make_optimizer(Stage.model_validate(stage(rate=0.1, optimizer="adamw", weight_decay=0.5)))
    model = network()
    optimizer.build(model.trainable_variables)
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    optimizer.apply([np.zeros(variable.shape, np.float32) for variable in model.trainable_variables])
    for variable in model.trainable_variables:
        expected = 0.95 if variable.name == "kernel" else 1.0
        np.testing.assert_allclose(np.asarray(variable.value), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", FusedAdam), ("adamw", FusedAdamW), ("sgd", keras.optimizers.SGD)]
)
def test_every_name_makes_its_optimizer(name: str, kind: type) -> None:
    made = make_optimizer(Stage.model_validate(stage(rate=0.25, optimizer=name)))
    assert type(made) is kind
    assert float(made.learning_rate) == 0.25

"""The faults that live in a network's graph: what its first layers are fed, and what may learn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest

from ductal.prior import networks
from ductal.prior.faults import BACKBONES, configurations
from ductal.training.backbones import VGG_MEAN_RGB
from ductal.training.network import Normalisation

STATISTICS = Normalisation((200.0, 150.0, 180.0), (40.0, 50.0, 60.0))
PATCH = np.broadcast_to(np.array([10, 150, 250], np.uint8), (1, 50, 50, 3))


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "load_imagenet", lambda base, backbone, file: "none")  # noqa: ARG005


def fed(model: keras.Model, kind: type[Any]) -> np.ndarray:
    """What the first layer of that kind gets of `PATCH`, one pixel, (3,)."""
    layer = next(layer for layer in model.layers if isinstance(layer, kind))
    return np.asarray(keras.Model(model.input, layer.input)(PATCH, training=False))[0, 25, 25]


def test_vgg16_gets_what_its_kernels_expect_or_a_rescaled_patch() -> None:
    right = networks.build_frozen(BACKBONES["vgg16"], STATISTICS)
    wrong = networks.build_frozen(replace(BACKBONES["vgg16"], rescaled=True), STATISTICS)
    rgb = np.array([10.0, 150.0, 250.0])
    np.testing.assert_allclose(fed(right, keras.layers.Conv2D), (rgb - VGG_MEAN_RGB)[::-1], atol=1e-3)
    np.testing.assert_allclose(fed(wrong, keras.layers.Conv2D), rgb / 255, atol=1e-6)
    assert right.output.shape == (None, 512)


def test_a_one_pixel_map_and_a_larger_one() -> None:
    honest, faulty = configurations(["one-pixel-maps"], one_by_one=True)
    sides = [
        networks.build_frozen(one.training, STATISTICS).get_layer("block5_pool").output.shape[1]
        for one in (honest, faulty)
    ]
    assert sides == [3, 1]


def test_efficientnets_normalisation_is_set_unless_that_is_the_fault() -> None:
    honest, faulty = configurations(["unset-normalisation"], one_by_one=True)
    rgb = np.array([10.0, 150.0, 250.0])
    expected = {
        honest.training: (rgb - STATISTICS.mean) / STATISTICS.std,
        faulty.training: rgb / 255,
        replace(honest.training, rescaled=True): (rgb / 255 - STATISTICS.mean) / STATISTICS.std,
    }
    for training, values in expected.items():
        model = networks.build_whole(training, STATISTICS)
        np.testing.assert_allclose(fed(model, keras.layers.ZeroPadding2D), values, atol=1e-3)


def test_frozen_random_learns_in_its_head_only() -> None:
    _, faulty = configurations(["frozen-random"], one_by_one=True)
    base = networks.build_frozen(faulty.training, STATISTICS)
    head = networks.build_head(faulty.training, base.output.shape[-1])
    assert base.output.shape == (None, 1280)
    assert [variable.shape for variable in head.trainable_variables] == [(1280, 1), (1,)]


def test_batch_norm_of_a_pretrained_network() -> None:
    honest, faulty = configurations(["batch-norm-training"], one_by_one=True)
    found = {}
    for name, training in (("honest", honest.training), ("faulty", faulty.training), ("scratch", BACKBONES["cnn"])):
        layers = networks.build_whole(training, STATISTICS).layers
        norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
        assert len(norms) == len(networks.CNN_FILTERS)
        found[name] = {(layer.trainable, layer.momentum) for layer in norms}
    assert found["honest"] == {(False, 0.9)}
    assert found["faulty"] == {(True, 0.99)}
    assert found["scratch"] == {(True, 0.9)}

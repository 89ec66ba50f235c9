"""Grad-CAM on networks whose answer is known: where maps look, how they turn, and that they follow the weights."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from known_networks import PATCHES, STATISTICS, averaging, inside, network, start

from ductal.errors import RunError
from ductal.inference import explain
from ductal.inference.explain import agreement, grad_cam, is_empty, normalised, occlusion
from ductal.inference.predictor import Predictor, d4_views, turned_back
from ductal.inference.sanity import randomisation
from ductal.inference.taps import Tap, leaf_layers, listening
from ductal.training.network import build_network
from ductal.training.recipe_file import load_recipe

# -- Grad-CAM -------------------------------------------------------------------------------------


def test_a_network_that_sees_one_quadrant_lights_up_only_there(one_quadrant: keras.Model) -> None:
    maps = grad_cam(one_quadrant, PATCHES, target="cancer")
    assert maps.shape == (6, 50, 50)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(inside(maps, margin=5), 1, rtol=1e-6)  # bilinearly, to the centre of the next cell
    np.testing.assert_allclose(maps.max(axis=(1, 2)), 1)
    drops = occlusion(Predictor(one_quadrant).predict, PATCHES, fill=(255, 255, 255), target="cancer")
    np.testing.assert_allclose(drops[:, 30:], 0, atol=1e-4)
    np.testing.assert_allclose(drops[:, :, 30:], 0, atol=1e-4)
    assert (drops[:, :20, :20] > 1e-3).all()
    assert (agreement(maps, normalised(drops)) > 0.8).all()


def test_the_map_is_the_formula(small: keras.Model) -> None:
    """Against gradients by finite differences of the upper part of the network, in float64."""
    lower = keras.Model(small.input, small.get_layer("conv2").output)
    maps = np.asarray(lower(PATCHES)).astype(float)
    kernel, bias = (np.asarray(values, float) for values in small.get_layer("logit").get_weights())

    def upper(features: np.ndarray) -> np.ndarray:
        return features.max(axis=(1, 2)) @ kernel + bias

    slopes = np.zeros_like(maps)
    for place in np.ndindex(maps.shape[1:]):
        step = np.zeros(maps.shape[1:])
        step[place] = 1e-6
        slopes[(slice(None), *place)] = (upper(maps + step) - upper(maps - step))[:, 0] / 2e-6
    coarse = np.maximum((slopes.mean(axis=(1, 2), keepdims=True) * maps).sum(axis=-1), 0)
    found = grad_cam(small, PATCHES, layer="conv2", target="cancer")
    centres = [5, 15, 25, 35, 45]  # pixels beside the centres of 5 cells
    assert coarse.shape == (6, 5, 5)
    expected = explain._bilinear(5)[centres] @ coarse @ explain._bilinear(5)[centres].T
    larger = np.where(is_empty(found), 1, expected.max(axis=(1, 2)))
    np.testing.assert_allclose(
        found[:, centres][:, :, centres] / found[:, centres][:, :, centres].max(axis=(1, 2), keepdims=True),
        expected / larger[:, None, None], atol=1e-3,
    )  # fmt: skip


@pytest.mark.parametrize("d4", [False, True])
def test_batch_size_does_not_matter(d4: bool, small: keras.Model) -> None:
    told: list[tuple[int, int]] = []
    found = grad_cam(small, PATCHES, d4=d4, batch_size=4, progress=lambda *step: told.append(step))
    assert told == [(4, 6), (6, 6)]
    np.testing.assert_allclose(found, grad_cam(small, PATCHES, d4=d4, batch_size=1), atol=1e-5)
    assert grad_cam(small, PATCHES[:0], d4=d4).shape == (0, 50, 50)


def test_averaged_maps_turn_with_the_patch(small: keras.Model) -> None:
    found = grad_cam(small, PATCHES, target="cancer", d4=True)
    assert is_empty(found).sum() < 3
    for view, back in zip(d4_views(PATCHES), turned_back(d4_views_of(found)), strict=True):
        np.testing.assert_allclose(back, found)
        turned = grad_cam(small, view, target="cancer", d4=True)
        number = [np.array_equal(view, other) for other in d4_views(PATCHES)].index(True)
        np.testing.assert_allclose(turned, d4_views_of(found)[number], atol=1e-4)
    plain = grad_cam(small, PATCHES, target="cancer")
    assert abs(plain - found).max() > 0.1


def d4_views_of(maps: np.ndarray) -> list[np.ndarray]:
    return [view[..., 0] for view in d4_views(maps[..., None])]


def test_averaging_makes_coarse_maps_finer() -> None:
    """A dark corner in a 2 x 2 map of a network that is not symmetric."""
    keras.utils.set_random_seed(1)
    inputs, x = start()
    x = keras.layers.Conv2D(4, 25, strides=25, activation="relu")(x)
    found = grad_cam(network(x, inputs), PATCHES, target="cancer", d4=True)
    assert len(np.unique(found[0].round(4))) > 100


def test_target_chooses_the_class(small: keras.Model) -> None:
    cancer = grad_cam(small, PATCHES, target="cancer")
    other = grad_cam(small, PATCHES, target="not_cancer")
    assert not np.allclose(cancer, other)
    chosen = np.array([True, False, True, False, False, True])
    expected = np.where(chosen[:, None, None], cancer, other)
    np.testing.assert_allclose(grad_cam(small, PATCHES, target=chosen, batch_size=4), expected, atol=1e-5)
    called = Predictor(small).predict(PATCHES) >= 0.5
    expected = np.where(called[:, None, None], cancer, other)
    np.testing.assert_allclose(grad_cam(small, PATCHES), expected, atol=1e-5)


def test_nothing_that_speaks_for_a_class_is_a_map_of_zeros(one_quadrant: keras.Model) -> None:
    maps = grad_cam(one_quadrant, PATCHES, target="not_cancer")  # darkness speaks for cancer only
    assert (maps == 0).all()
    assert is_empty(maps).all()
    white = np.full((1, 50, 50, 3), 255, np.uint8)
    assert is_empty(grad_cam(one_quadrant, white, target="cancer")).all()


@pytest.mark.parametrize("last", ["activation", "dense"])
def test_the_logit_is_taken_before_a_saturated_sigmoid(last: str) -> None:
    inputs, x = start()
    x = keras.layers.GlobalAveragePooling2D()(averaging(x))
    large = keras.initializers.Constant(1000)
    if last == "dense":
        x = keras.layers.Dense(1, kernel_initializer=large, activation="sigmoid")(x)
    else:
        x = keras.layers.Activation("sigmoid")(keras.layers.Dense(1, kernel_initializer=large)(x))
    model = keras.Model(inputs, x)
    assert (Predictor(model).predict(PATCHES) == 1).all()
    assert not is_empty(grad_cam(model, PATCHES, target="cancer")).any()


def test_any_other_end_goes_by_the_probability(small: keras.Model) -> None:
    """A probability that no known layer makes: its logit is computed, and gives the same map."""
    logit = small.get_layer("logit").output
    other = keras.Model(small.input, 1 / (1 + keras.ops.exp(-logit)))
    np.testing.assert_allclose(grad_cam(other, PATCHES), grad_cam(small, PATCHES), atol=1e-3)


# -- Kinds of networks ----------------------------------------------------------------------------


def test_layer_by_default_and_by_name(small: keras.Model) -> None:
    assert (Tap(small).name, Tap(small).size) == ("conv2", (5, 5))
    assert Tap(small, "conv1").size == (11, 11)
    with pytest.raises(RunError, match=r'no layer "pool" to explain. There are: conv1 \(11 x 11\), conv2 \(5 x 5\)'):
        grad_cam(small, PATCHES, layer="pool")


def test_models_in_models_and_sequential_ones_are_opened(small: keras.Model) -> None:
    base = keras.Model(small.input, small.get_layer("pool").output, name="base")
    head = keras.Sequential([keras.layers.Flatten(), small.get_layer("logit"), small.get_layer("probability")])
    nested = keras.Sequential([keras.Input((50, 50, 3), dtype="uint8"), base, head])
    assert Tap(nested).name == "conv2"
    np.testing.assert_allclose(grad_cam(nested, PATCHES), grad_cam(small, PATCHES), atol=1e-5)


def test_frozen_layers_are_explained_alike(small: keras.Model) -> None:
    expected = grad_cam(small, PATCHES)
    small.trainable = False
    try:
        np.testing.assert_allclose(grad_cam(small, PATCHES), expected, atol=1e-6)
    finally:
        small.trainable = True


def test_the_model_is_left_as_it_was(small: keras.Model) -> None:
    before = small.get_weights()
    grad_cam(small, PATCHES, d4=True)
    assert not any("call" in vars(layer) for layer in leaf_layers(small))
    with pytest.raises(ZeroDivisionError), listening([small.get_layer("conv1")], lambda *_: None):
        raise ZeroDivisionError
    assert "call" not in vars(small.get_layer("conv1"))
    randomisation(small, PATCHES)
    for old, new in zip(before, small.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_networks_that_cannot_be_explained(small: keras.Model) -> None:
    inputs, x = start()
    no_maps = network(keras.layers.Resizing(32, 32)(x), inputs, dense="ones")
    with pytest.raises(RunError, match=r"no convolutional layer .* Use occlusion"):
        grad_cam(no_maps, PATCHES)
    with pytest.raises(RunError, match=r"one probability of IDC for each patch.*\(1, 5, 5, 5\)"):
        grad_cam(keras.Model(small.input, small.get_layer("conv2").output), PATCHES)
    floats = keras.Input((32, 32, 1))
    with pytest.raises(RunError, match="does not take uint8 patches"):
        grad_cam(network(keras.layers.Conv2D(1, 3)(floats), floats), PATCHES)


@pytest.mark.parametrize(
    ("recipe", "layer", "size"),
    [("vgg16-frozen", "block5_conv3", (3, 3)), ("efficientnetb0-scratch", "top_activation", (2, 2))],
)
def test_shipped_networks(recipe: str, layer: str, size: tuple[int, int]) -> None:
    keras.utils.set_random_seed(2)
    settings = load_recipe(recipe).model_copy(update={"weights": "random"})
    model = build_network(settings, STATISTICS).model
    tap = Tap(model)
    assert (tap.name, tap.size) == (layer, size)
    maps = grad_cam(model, PATCHES[:3], target=np.array([True, False, True]), d4=True)
    assert maps.shape == (3, 50, 50)
    assert np.isfinite(maps).all()
    assert (maps.max(axis=(1, 2)) <= 1).all()

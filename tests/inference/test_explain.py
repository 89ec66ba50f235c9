"""Maps on networks whose answer is known: where they look, how they turn, and that they follow the weights."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pytest

from ductal.errors import DataError, RunError
from ductal.inference import explain
from ductal.inference.explain import agreement, grad_cam, is_empty, normalised, occlusion, overlay
from ductal.inference.predictor import Predictor, d4_views, turned_back
from ductal.inference.sanity import randomisation
from ductal.inference.taps import Tap, leaf_layers, listening
from ductal.training.network import Normalisation, build_network
from ductal.training.recipe import load_recipe

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


def inside(maps: np.ndarray, margin: int = 0) -> np.ndarray:
    """Share of each map's sum that lies in the quadrant top left."""
    end = 20 + margin
    return maps[:, :end, :end].sum(axis=(1, 2)) / maps.sum(axis=(1, 2))


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


# -- The randomisation test -----------------------------------------------------------------------


def spots(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise with one square each, at random: of rows (label 1) or columns (label 0)."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(120, 180, (count, 50, 50, 3)).astype(np.uint8)
    labels = rng.integers(0, 2, count)
    stripes = np.tile([[30], [230]], (8, 16)).astype(np.uint8)
    for patch, label, (y, x) in zip(patches, labels, rng.integers(0, 35, (count, 2)), strict=True):
        patch[y : y + 16, x : x + 16] = (stripes if label else stripes.T)[..., None]
    return patches, labels


@pytest.fixture(scope="module")
def trained() -> keras.Model:
    """Has learned to tell stripes of rows from stripes of columns."""
    keras.utils.set_random_seed(5)
    inputs, x = start()
    for number, filters in enumerate((8, 12, 12), start=1):
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"conv{number}")(x)
        x = keras.layers.MaxPooling2D()(x) if number < 3 else x
    model = network(x, inputs)
    model.get_layer("logit").set_weights([RNG.normal(size=(12, 1)), np.zeros(1)])
    model.compile(keras.optimizers.Adam(3e-3), "binary_crossentropy")
    patches, labels = spots(400, seed=1)
    model.fit(patches, labels, batch_size=32, epochs=8, verbose=0)
    return model


def test_trained_maps_find_the_square(trained: keras.Model) -> None:
    patches, labels = spots(40, seed=2)
    right = (Predictor(trained).predict(patches) >= 0.5) == labels
    assert right.mean() > 0.9
    square = np.abs(patches[..., 0].astype(int) - 150) > 60
    for maps in (grad_cam(trained, patches), occlusion(Predictor(trained).predict, patches)):
        highest = maps[right].reshape(right.sum(), -1).argmax(axis=1)
        hits = square[right].reshape(right.sum(), -1)[np.arange(right.sum()), highest]
        assert hits.mean() > 0.85  # 0.1 by chance


def test_shuffled_weights_change_the_maps(trained: keras.Model) -> None:
    """Adebayo et al. 2018: top first, then all."""
    patches, _ = spots(40, seed=3)
    table = randomisation(trained, patches, repeats=8)
    assert table["shuffled"].tolist() == [1, 1, 2, 4]
    assert table["of"].tolist() == [4] * 4
    assert (table["maps"] > 8 * 20).all()
    assert (table["agreement"].abs() < 0.5).all()
    assert (table["highest"].iloc[2:] < 0.8).all()  # one cascade may by chance spare the last layer
    again = randomisation(trained, patches[:4], repeats=2)
    pd.testing.assert_frame_equal(again, randomisation(trained, patches[:4], repeats=2))


# -- Occlusion ------------------------------------------------------------------------------------


def test_occlusion_counts_what_a_square_hides() -> None:
    """A logit that is the sum over the red channel: each pixel's drop is known exactly."""

    def predict(patches: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-patches[..., 0].astype(float).sum(axis=(1, 2)) / 1e5))

    found = occlusion(predict, PATCHES, size=1, stride=1, fill=(0, 0, 0), target="cancer")
    np.testing.assert_allclose(found, PATCHES[..., 0] / 1e5, atol=1e-6)
    found = occlusion(predict, PATCHES, size=10, stride=10, fill="mean", target="not_cancer")
    over = PATCHES[..., 0].astype(float) - np.rint(PATCHES[..., 0].mean(axis=(1, 2)))[:, None, None]
    sums = over.reshape(6, 5, 10, 5, 10).sum(axis=(2, 4))
    np.testing.assert_allclose(found[:, ::10, ::10], -sums / 1e5, atol=1e-5)


def test_every_pixel_is_covered_whatever_the_stride(one_quadrant: keras.Model) -> None:
    assert explain._starts(12, 7) == [0, 7, 14, 21, 28, 35, 38]
    assert explain._starts(50, 50) == [0]
    predict = Predictor(one_quadrant).predict
    told: list[tuple[int, int]] = []
    found = occlusion(predict, PATCHES, size=12, stride=7, batch_size=5, progress=lambda *step: told.append(step))
    assert np.isfinite(found).all()
    assert told == [(5, 6), (6, 6)]
    np.testing.assert_allclose(found, occlusion(predict, PATCHES, size=12, stride=7, batch_size=1), atol=1e-4)


def test_occlusion_sees_what_grad_cam_cannot() -> None:
    """One weight a channel: where the head looks is lost on Grad-CAM, and low agreement tells."""
    inputs, x = start()
    model = network(averaging(x), inputs, dense="zeros")
    kernel = np.zeros((5, 5))
    kernel[:2, :2] = 5
    model.get_layer("logit").set_weights([kernel.reshape(-1, 1), np.zeros(1)])
    shades = PATCHES // 8
    maps = grad_cam(model, shades, target="cancer")
    drops = normalised(occlusion(Predictor(model).predict, shades, fill=(255, 255, 255), target="cancer"))
    assert (inside(maps, margin=5) < 0.4).all()
    assert (inside(drops, margin=10) > 0.99).all()
    assert (np.abs(agreement(maps, drops)) < 0.6).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 0}, "from 1 to 50 pixels"),
        ({"size": 51}, "from 1 to 50 pixels"),
        ({"stride": 11}, "every pixel is covered"),
        ({"fill": "white"}, "such as"),
        ({"fill": (1, 2)}, "from 0 to 255"),
        ({"fill": (1, 2, 256)}, "from 0 to 255"),
        ({"target": "tumour"}, "one of called, cancer, not_cancer"),
        ({"target": np.ones(6)}, "bool array"),
    ],
)
def test_wrong_settings_are_named(wrong: dict, message: str, one_quadrant: keras.Model) -> None:
    with pytest.raises(DataError, match=message):
        occlusion(Predictor(one_quadrant).predict, PATCHES, **wrong)
    with pytest.raises(RunError, match="one probability for each"):
        occlusion(lambda patches: np.zeros((len(patches), 1)), PATCHES)
    with pytest.raises(DataError, match="do not rescale"):
        grad_cam(one_quadrant, PATCHES / 255.0)


# -- Maps -----------------------------------------------------------------------------------------


def test_normalised_rule() -> None:
    maps = np.array([[[-1, 2], [4, 0]], [[-1, 0], [-2, -3]], [[0.005, 0], [0, 0]]], np.float32)
    found = normalised(maps, floor=0.01)
    np.testing.assert_allclose(found[0], [[0, 0.5], [1, 0]])
    assert is_empty(found).tolist() == [False, True, True]
    assert normalised(maps)[2, 0, 0] == 1


def test_agreement() -> None:
    ramp = np.arange(2500.0).reshape(1, 50, 50)
    maps = np.concatenate([ramp, ramp, ramp, RNG.random((1, 50, 50))])
    other = np.concatenate([np.exp(ramp / 500), -ramp, np.zeros_like(ramp), ramp])
    found = agreement(maps, other)
    np.testing.assert_allclose(found[:2], [1, -1], atol=1e-6)
    assert np.isnan(found[2])
    assert abs(found[3]) < 0.1
    assert agreement(maps[:0], other[:0]).shape == (0,)
    with pytest.raises(DataError, match="of one shape"):
        agreement(maps, other[:2])


def test_overlay() -> None:
    maps = RNG.random((6, 50, 50)).astype(np.float32)
    assert overlay(PATCHES, maps, opacity=0).tolist() == PATCHES.tolist()
    found = overlay(PATCHES, maps, scale=3)
    assert (found.shape, found.dtype) == ((6, 150, 150, 3), np.uint8)
    np.testing.assert_array_equal(found[:, ::3, ::3], overlay(PATCHES, maps))
    low, high = (overlay(PATCHES, np.full_like(maps, value), opacity=1)[0, 0, 0].tolist() for value in (0, 1))
    assert (low, high) == ([68, 1, 84], [253, 231, 37])  # the ends of viridis
    for wrong in ({"maps": maps * 2}, {"maps": maps - 1}, {"maps": maps[:2]}, {"maps": maps * np.nan}):
        with pytest.raises(DataError, match="values from 0 to 1"):
            overlay(PATCHES, **wrong)
    for wrong in ({"opacity": 1.5}, {"scale": 0}):
        with pytest.raises(DataError, match="Opacity is from 0 to 1"):
            overlay(PATCHES, maps, **wrong)

"""Networks: uint8 in, preprocessing in the graph, ImageNet as published, BatchNorm frozen where it must be."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from small_training import STATISTICS, needs_imagenet, no_weights, small_network, small_recipe, stage

from ductal.errors import RecipeError
from ductal.training.backbones import VGG_MEAN_RGB
from ductal.training.network import Network, Normalisation, build_network, set_trainable
from ductal.training.recipe import Stage
from ductal.training.recipe_file import load_recipe
from ductal.training.weights import load_imagenet

RNG = np.random.default_rng(5)
PATCHES = RNG.integers(0, 256, (4, 50, 50, 3), dtype=np.uint8)


def until(network: Network, layer: str, patches: np.ndarray = PATCHES) -> np.ndarray:
    """What comes out of a layer, in inference."""
    part = keras.Model(network.model.input, network.model.get_layer(layer).output)
    return np.asarray(part(patches, training=False))


@pytest.fixture(scope="module")
def efficientnet() -> Network:
    keras.backend.clear_session()  # as a training does: layers are named from the first number on
    return build_network(load_recipe("efficientnetb0-scratch"), STATISTICS)


@needs_imagenet
def test_imagenet_vgg16_equals_the_published_network_on_the_published_preprocessing() -> None:
    ours = until(build_network(load_recipe("vgg16-frozen"), STATISTICS), "block5_pool")
    published = keras.applications.VGG16(include_top=False, weights=None, input_shape=(50, 50, 3))
    load_imagenet(published, "VGG16")
    theirs = np.asarray(published(keras.applications.vgg16.preprocess_input(PATCHES.astype("float32"))))
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()
    rescaled = np.asarray(published(PATCHES.astype("float32") / 255))
    assert np.abs(ours - rescaled).max() > 0.1 * np.abs(theirs).max()


def test_input_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    no_weights(monkeypatch)
    network = build_network(load_recipe("vgg16-full"), STATISTICS)
    assert network.model.input.shape == (None, 50, 50, 3)
    assert network.model.input.dtype == "uint8"
    probs = np.asarray(network.model(PATCHES, training=False))
    assert probs.shape == (4, 1)
    assert probs.dtype == np.float32
    assert ((probs > 0) & (probs < 1)).all()


def test_random_vgg_is_standardised_by_the_statistics_given() -> None:
    recipe = small_recipe(stage("all", "all"), weights="random")
    normalised = until(build_network(recipe, STATISTICS), "normalise")
    np.testing.assert_allclose(normalised, (PATCHES - np.array(STATISTICS.mean)) / STATISTICS.std, atol=1e-4)


def test_pretrained_vgg_subtracts_the_mean_of_imagenet_only(monkeypatch: pytest.MonkeyPatch) -> None:
    no_weights(monkeypatch)
    normalised = until(build_network(load_recipe("vgg16-frozen"), STATISTICS), "normalise")
    np.testing.assert_allclose(normalised, PATCHES - np.array(VGG_MEAN_RGB), atol=1e-4)


def test_efficientnet_normalisation_is_set(efficientnet: Network) -> None:
    patch = np.broadcast_to(np.array([240, 100, 180], np.uint8), (1, 50, 50, 3))
    expected = (np.array([240.0, 100.0, 180.0]) - STATISTICS.mean) / STATISTICS.std
    found = until(efficientnet, "normalization", patch)
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=1e-3)


def test_efficientnet_from_scratch_trains_every_layer_and_its_batch_norm(efficientnet: Network) -> None:
    recipe = load_recipe("efficientnetb0-scratch")
    trained = set_trainable(efficientnet, recipe.stages[0], recipe)
    norms = [layer for layer in efficientnet.base_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 49
    assert {norm.name for norm in norms} <= set(trained)
    assert all(norm.momentum == 0.9 for norm in norms)
    untrained = {layer.name for layer in efficientnet.base_layers() if layer.weights} - set(trained)
    assert untrained == {"normalization"}


def test_efficientnet_refuses_to_freeze_random_layers(efficientnet: Network) -> None:
    recipe = load_recipe("efficientnetb0-scratch")
    with pytest.raises(RecipeError, match="would train no layer"):
        set_trainable(efficientnet, recipe.stages[0].model_copy(update={"unfreeze": "none"}), recipe)


def test_efficientnet_saves_and_loads_with_its_normalisation(efficientnet: Network, tmp_path: Path) -> None:
    efficientnet.model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True, compile=False)
    before = np.asarray(efficientnet.model(PATCHES, training=False))
    np.testing.assert_allclose(np.asarray(loaded(PATCHES, training=False)), before, atol=1e-6)
    np.testing.assert_allclose(
        until(Network(loaded, [], ""), "normalization"), until(efficientnet, "normalization"), atol=1e-6
    )


@pytest.mark.parametrize(("input_px", "side"), [(50, 1), (64, 2), (96, 3)])
def test_resizing_is_in_the_graph(input_px: int, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    no_weights(monkeypatch)
    recipe = load_recipe("vgg16-full").model_copy(update={"input_px": input_px})
    network = build_network(recipe, STATISTICS)
    assert network.model.input.shape == (None, 50, 50, 3)
    assert network.model.get_layer("block1_conv1").output.shape == (None, input_px, input_px, 64)
    assert network.model.get_layer("block5_pool").output.shape == (None, side, side, 512)
    assert ("resize" in [layer.name for layer in network.model.layers]) == (input_px != 50)


@needs_imagenet
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_saved_model_loads_in_safe_mode_with_the_same_outputs(precision: str, tmp_path: Path) -> None:
    recipe = load_recipe("vgg16-frozen").model_copy(update={"input_px": 64, "precision": precision})
    network = build_network(recipe, STATISTICS)
    assert keras.mixed_precision.dtype_policy().name == "float32"  # the caller's, whatever the recipe takes
    network.model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True, compile=False)
    before = np.asarray(network.model(PATCHES, training=False))
    after = np.asarray(loaded(PATCHES, training=False))
    assert before.dtype == after.dtype == np.float32
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_batch_norm_of_a_pretrained_base_stays_frozen() -> None:
    recipe = small_recipe(stage("all", "all"))
    network = small_network(recipe, STATISTICS)
    trained = set_trainable(network, recipe.stages[0], recipe)
    assert trained == ["block1_conv1", "block2_conv1"]
    norm = network.model.get_layer("block1_norm")
    before = [w.copy() for w in norm.get_weights()]
    network.model(PATCHES, training=True)
    for old, new in zip(before, norm.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_batch_norm_of_a_random_base_trains() -> None:
    recipe = small_recipe(stage("all", "all"), weights="random")
    network = small_network(recipe, STATISTICS)
    assert "block1_norm" in set_trainable(network, recipe.stages[0], recipe)
    before = network.model.get_layer("block1_norm").get_weights()[2].copy()
    network.model(PATCHES, training=True)
    assert not np.array_equal(before, network.model.get_layer("block1_norm").get_weights()[2])


@pytest.mark.parametrize(
    ("unfreeze", "trained"),
    [("none", []), (2, ["block2_conv1"]), (["block1"], ["block1_conv1"]), ("all", ["block1_conv1", "block2_conv1"])],
)
def test_freezing_is_per_layer_and_can_be_undone(unfreeze: str | int | list[str], trained: list[str]) -> None:
    recipe = small_recipe()
    network = small_network(recipe, STATISTICS)
    for choice, expected in ((unfreeze, trained), ("none", []), (unfreeze, trained)):
        chosen = Stage.model_validate(stage("x", choice))
        assert set_trainable(network, chosen, recipe) == expected


def test_statistics_are_those_of_the_chosen_rows() -> None:
    pixels = RNG.integers(0, 256, (30, 50, 50, 3), dtype=np.uint8)
    rows = np.array([2, 3, 5, 7])
    found = Normalisation.of(pixels, rows)
    values = pixels[rows].reshape(-1, 3).astype(float)
    np.testing.assert_allclose(found.mean, values.mean(0))
    np.testing.assert_allclose(found.std, values.std(0))
    flat = Normalisation.of(np.full((3, 50, 50, 3), 9, np.uint8), np.arange(3))
    assert flat.std == (1.0, 1.0, 1.0)


def test_head_follows_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    no_weights(monkeypatch)
    head = {"pooling": "max", "batch_norm": True, "units": [16, 8], "dropout": 0.2}
    network = build_network(small_recipe(head=head), STATISTICS)
    names = [layer.name for layer in network.model.layers][-7:]
    assert names == ["head_pool", "head_norm", "head_dense1", "head_dense2", "head_dropout", "logit", "probability"]
    assert isinstance(network.model.get_layer("head_pool"), keras.layers.GlobalMaxPooling2D)
    assert network.model.get_layer("head_dense2").units == 8

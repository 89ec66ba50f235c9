"""Every backbone: builds on its smallest input, learns, freezes by its own blocks, is saved as it is and exported."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_training import STATISTICS, no_weights, stage

import ductal
from ductal.errors import RecipeError
from ductal.inference.engines import load_keras
from ductal.training.backbones import BACKBONES, FAMILIES, SMALLEST_PX, build_base, family_of, published_weights
from ductal.training.network import Network, build_network, set_trainable, to_float32
from ductal.training.recipe import Recipe, Stage

RNG = np.random.default_rng(11)
PATCHES = RNG.integers(0, 256, (2, 50, 50, 3), dtype=np.uint8)
# One of each family, the smallest: the others differ in depth and width only, and take longer.
SMALLEST = tuple(next(iter(family.members)) for family in FAMILIES)
# With DUCTAL_ALL_BACKBONES=1 every test has all. Else these two more are built, too, and two are exported.
ALL = bool(os.environ.get("DUCTAL_ALL_BACKBONES"))
USUAL = {*SMALLEST, "VGG19", "MobileNetV3Large"}
EXPORTED = {"MobileNetV3Small", "EfficientNetB0"}
BLOCKS = {
    "VGG16": ["block1", "block2", "block3", "block4", "block5"],
    "EfficientNetB0": ["stem", *(f"block{k}" for k in range(1, 8)), "top"],
    "EfficientNetV2B0": ["stem", *(f"block{k}" for k in range(1, 7)), "top"],
    "EfficientNetV2S": ["stem", *(f"block{k}" for k in range(1, 7)), "top"],
    "DenseNet121": ["conv1", "conv2", "pool2", "conv3", "pool3", "conv4", "pool4", "conv5", "bn"],
    "ResNet50V2": ["conv1", "conv2", "conv3", "conv4", "conv5", "post"],
    "ConvNeXtTiny": [
        "stem", "stage_0", "downsampling_block_0", "stage_1", "downsampling_block_1", "stage_2",
        "downsampling_block_2", "stage_3",
    ],
    "MobileNetV3Small": ["conv", "expanded_conv", *(f"expanded_conv_{k}" for k in range(1, 11)), "conv_1"],
}  # fmt: skip


def recipe_of(backbone: str, weights: str = "imagenet", **changes: Any) -> Recipe:
    settings = {"name": "x", "title": "x", "backbone": backbone, "weights": weights, "input_px": SMALLEST_PX}
    return Recipe.model_validate(settings | {"precision": "float32", "stages": [stage("all", "all")]} | changes)


def chosen(unfreeze: Any) -> Stage:
    return Stage.model_validate(stage("x", unfreeze))


@pytest.fixture(scope="module", params=BACKBONES)
def built(request: pytest.FixtureRequest) -> tuple[str, Network]:
    if request.param not in USUAL and not ALL:
        pytest.skip("tested with DUCTAL_ALL_BACKBONES=1 only: it takes long to build")
    keras.backend.clear_session()
    keras.utils.set_random_seed(1)
    with pytest.MonkeyPatch.context() as patch:
        no_weights(patch)
        network = build_network(recipe_of(request.param), STATISTICS)
    if family_of(request.param).normalises_itself:  # nobody has set what the file would
        layer = next(layer for layer in network.base_layers() if isinstance(layer, keras.layers.Normalization))
        layer.set_weights([np.full(3, 0.5), np.full(3, 0.1), np.array(1)])
        layer.finalize_state()
    settle(network)
    return request.param, network


def settle(network: Network) -> None:
    """Normalisations and a last layer with logits of about 1: a signal grows through 240 random layers."""
    last = next(layer for layer in reversed(network.model.layers) if isinstance(layer, keras.layers.Dense))
    norms = [layer for layer in network.base_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    before_it = keras.Model(network.model.input, last.input)
    while not np.abs(features := np.asarray(before_it(PATCHES, training=False))).max() < 100:
        assert norms
        for layer in norms:
            layer.set_weights([0.8 * layer.get_weights()[0], *layer.get_weights()[1:]])
    kernel, bias = last.get_weights()
    last.set_weights([kernel / max(1.0, float(np.abs(features @ kernel).max())), bias])


def test_uint8_patches_give_probabilities_and_are_saved_with_all_that_is_needed(
    built: tuple[str, Network], tmp_path: Path
) -> None:
    backbone, network = built
    assert (network.model.input.dtype, network.model.input.shape) == ("uint8", (None, 50, 50, 3))
    assert network.base_layers()[-1].output.shape[1:3] == (1, 1)  # a stride of 32
    before = np.asarray(network.model(PATCHES, training=False))
    assert before.shape == (2, 1)
    assert before.dtype == np.float32
    assert ((before > 0) & (before < 1)).all()
    if backbone in SMALLEST or ALL:
        network.model.save(tmp_path / "model.keras")
        loaded = load_keras(tmp_path / "model.keras")  # as that of a stranger
        np.testing.assert_allclose(np.asarray(loaded(PATCHES, training=False)), before, atol=1e-6)


def test_blocks_are_those_of_the_model_and_each_can_be_unfrozen_alone(built: tuple[str, Network]) -> None:
    backbone, network = built
    family, recipe = family_of(backbone), recipe_of(backbone)
    weighted = [layer.name for layer in network.base_layers() if layer.trainable_weights or layer.weights]
    blocks = [block for block in dict.fromkeys(family.block_of(name) for name in weighted) if block]
    if backbone in BLOCKS:
        assert blocks == BLOCKS[backbone]
    seen: list[str] = []
    assert all(family.may_have(block) for block in blocks)
    for block in blocks:
        trained = set_trainable(network, chosen([block]), recipe)
        assert {family.block_of(name) for name in trained} <= {block}
        seen += trained
    assert len(seen) == len(set(seen))  # no layer is in two blocks
    everything = set_trainable(network, chosen("all"), recipe)
    assert set(seen) >= {name for name in everything if family.block_of(name)}
    # All but a last layer or two, which have Keras's numbered names, are in a block.
    assert len(set(everything) - set(seen)) <= 1
    said = rf'no layer of {backbone} with weights starts with "nothing".*{blocks[0]}, {blocks[1]}'
    with pytest.raises(RecipeError, match=said):
        set_trainable(network, chosen(["nothing"]), recipe)


def test_batch_norm_of_imagenet_stays_frozen_and_the_rest_follows_the_stage(built: tuple[str, Network]) -> None:
    backbone, network = built
    recipe = recipe_of(backbone)
    assert set_trainable(network, chosen("none"), recipe) == []
    set_trainable(network, chosen("all"), recipe)
    norms = [layer for layer in network.base_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    assert not any(layer.trainable for layer in norms)
    others = [layer for layer in network.base_layers() if layer.weights and layer not in norms]
    assert all(layer.trainable for layer in others)


def test_a_step_changes_what_is_unfrozen_and_nothing_else(built: tuple[str, Network]) -> None:
    backbone, network = built
    if backbone not in SMALLEST and not ALL:
        pytest.skip("tested with DUCTAL_ALL_BACKBONES=1 only: its step takes long")
    set_trainable(network, chosen("all"), recipe_of(backbone))
    weights = network.model.trainable_weights
    fixed = {id(w): w.numpy() for w in network.model.non_trainable_weights}
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((network.model(PATCHES, training=True) - np.array([[0.0], [1.0]], np.float32)) ** 2)
    gradients = tape.gradient(loss, [w.value for w in weights])
    assert all(gradient is not None for gradient in gradients)
    assert all(np.isfinite(np.asarray(gradient)).all() for gradient in gradients)
    reached = [float(np.abs(np.asarray(gradient)).max()) > 0 for gradient in gradients]
    assert np.mean(reached) > 0.9  # a dead unit here and there
    keras.optimizers.SGD(1e-3).apply_gradients(zip(gradients, weights, strict=True))
    for w in network.model.non_trainable_weights:
        np.testing.assert_array_equal(w.numpy(), fixed[id(w)])


def test_an_export_gives_what_the_network_gives(built: tuple[str, Network], tmp_path: Path) -> None:
    """Converted, run by OpenVINO in a process of its own, and kept only if its probabilities are the network's."""
    backbone, network = built
    if backbone not in EXPORTED and not ALL:
        pytest.skip("tested with DUCTAL_ALL_BACKBONES=1 only: it takes long")
    pytest.importorskip("openvino")
    network.model.save(tmp_path / "model.keras")
    settings = {"threshold": 0.5, "temperature": 1.0, "bias": 0.0, "spacing_um": None}
    (tmp_path / "calibration.json").write_text(json.dumps(settings))
    parity = ductal.export_run(tmp_path, "openvino", tmp_path / "out").contract["parity"]
    assert parity["largest_difference"] <= 1e-4
    assert parity["patches"] >= 100


@pytest.mark.parametrize("backbone", SMALLEST)
def test_imagenet_weights_end_in_the_function_that_keras_builds(
    backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against Keras's own weights="imagenet", whose download is replaced by values of ours."""
    asked: list[tuple[str, str, str]] = []

    def get_file(name: str, address: str, cache_subdir: str, file_hash: str) -> str:  # noqa: ARG001
        asked.append((name, address, file_hash))
        return "the file"

    def load(model: Any, path: str) -> None:
        assert path == "the file"
        model.set_weights(values)

    module = __import__(f"keras.src.applications.{MODULES[backbone]}", fromlist=["x"])
    monkeypatch.setattr(module.file_utils, "get_file", get_file)
    monkeypatch.setattr(keras.Model, "load_weights", load)
    keras.backend.clear_session()
    keras.utils.set_random_seed(2)
    values = build_base(backbone, input_shape=(SMALLEST_PX, SMALLEST_PX, 3)).get_weights()
    if family_of(backbone).normalises_itself:  # its file keeps deviations in place of variances
        values[:3] = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]), np.array(1)
    make = getattr(keras.applications, backbone)
    theirs = make(include_top=False, weights="imagenet", input_shape=(SMALLEST_PX, SMALLEST_PX, 3))
    for layer in theirs.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    published = published_weights(backbone)
    assert asked == [(published.file, published.address, published.hash)]
    patch_weights(monkeypatch, values)
    network = build_network(recipe_of(backbone), STATISTICS)
    part = keras.Model(network.model.input, network.base_layers()[-1].output)
    resized = np.asarray(network.model.get_layer("resize")(PATCHES.astype(np.float32)))
    expected = np.asarray(theirs(preprocess(backbone, resized), training=False))
    found = np.asarray(part(PATCHES, training=False))
    np.testing.assert_allclose(found, expected, atol=2e-3 * max(1e-6, float(np.abs(expected).max())))


def patch_weights(monkeypatch: pytest.MonkeyPatch, values: list[np.ndarray]) -> None:
    from ductal.training import network

    monkeypatch.setattr(network, "load_imagenet", lambda base, *_: base.set_weights(values) or "none")


MODULES = {
    "VGG16": "vgg16", "EfficientNetB0": "efficientnet", "EfficientNetV2B0": "efficientnet_v2",
    "EfficientNetV2S": "efficientnet_v2", "DenseNet121": "densenet", "ResNet50V2": "resnet",
    "ConvNeXtTiny": "convnext", "MobileNetV3Small": "mobilenet_v3",
}  # fmt: skip


def preprocess(backbone: str, pixels: np.ndarray) -> np.ndarray:
    """What Keras tells its users to do before the network; nothing where the network does it."""
    name = {"ResNet50V2": "resnet_v2"}.get(backbone, MODULES[backbone])
    return np.asarray(getattr(keras.applications, name).preprocess_input(pixels.copy()))


@pytest.mark.parametrize("backbone", SMALLEST)
def test_random_weights_start_from_the_statistics_of_the_training_patches(backbone: str) -> None:
    keras.backend.clear_session()
    network = build_network(recipe_of(backbone, "random"), STATISTICS)
    norms = [layer for layer in network.model.layers if isinstance(layer, keras.layers.Normalization)]
    assert len(norms) == 1
    fed = keras.Model(network.model.input, norms[0].output)
    patch = np.broadcast_to(np.array([240, 100, 180], np.uint8), (1, 50, 50, 3))
    expected = (np.array([240.0, 100.0, 180.0]) - STATISTICS.mean) / STATISTICS.std
    np.testing.assert_allclose(np.asarray(fed(patch))[0, 0, 0], expected, atol=1e-3)
    momenta = {layer.momentum for layer in network.model.layers if isinstance(layer, keras.layers.BatchNormalization)}
    assert momenta <= {0.9}


def everything_in(model: Any) -> list[Any]:
    return [inner for layer in getattr(model, "layers", []) for inner in (layer, *everything_in(layer))]


@pytest.mark.parametrize("backbone", ["ConvNeXtTiny", "MobileNetV3Small"])
def test_a_network_trained_in_bfloat16_is_saved_in_float32(backbone: str, tmp_path: Path) -> None:
    keras.backend.clear_session()
    network = build_network(recipe_of(backbone, "random", precision="mixed_bfloat16"), STATISTICS)
    model = to_float32(network)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True, compile=False)
    assert {layer.compute_dtype for layer in everything_in(loaded)} <= {"float32", "uint8"}
    np.testing.assert_allclose(
        np.asarray(loaded(PATCHES, training=False)), np.asarray(model(PATCHES, training=False)), atol=1e-6
    )

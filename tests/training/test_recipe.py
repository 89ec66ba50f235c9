"""Recipes: the shipped six do what their titles say, and every mistake in a file is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest
from small_training import STATISTICS, needs_imagenet, no_weights

from ductal.errors import RecipeError
from ductal.training.backbones import BACKBONES
from ductal.training.network import build_network, set_trainable
from ductal.training.recipe import DEFAULT_RECIPES, Recipe
from ductal.training.recipe_file import load_recipe, parse_recipe, recipe_names

BLOCKS = {1: 2, 2: 2, 3: 3, 4: 3, 5: 3}
VALID = """
name = "mine"
title = "Mine"
backbone = "VGG16"
weights = "imagenet"
[[stages]]
name = "head"
unfreeze = "none"
epochs = 3
learning_rate = 1e-3
"""


def convs(*blocks: int) -> list[str]:
    return [f"block{block}_conv{k}" for block in blocks for k in range(1, BLOCKS[block] + 1)]


def written(tmp_path: Path, text: str) -> Path:
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    return tmp_path / "mine.toml"


def refused(tmp_path: Path, old: str, new: str) -> str:
    assert old in VALID
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(tmp_path, VALID.replace(old, new)))
    return str(caught.value)


def test_the_six_of_the_comparison_are_shipped_and_valid() -> None:
    assert set(DEFAULT_RECIPES) < set(recipe_names())
    for name in DEFAULT_RECIPES:
        recipe = load_recipe(name)
        assert recipe.name == name
        assert recipe.augment.d4
        assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize(
    ("name", "trained"),
    [
        ("vgg16-frozen", [[]]),
        ("vgg16-top4", [[], convs(5)]),
        ("vgg16-partial", [[], convs(5), convs(4, 5), convs(3, 4, 5)]),
        ("vgg16-full", [convs(1, 2, 3, 4, 5)]),
    ],
)
def test_vgg_recipes_train_the_layers_their_titles_name(
    name: str, trained: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_weights(monkeypatch)
    recipe = load_recipe(name)
    assert (recipe.backbone, recipe.weights) == ("VGG16", "imagenet")
    network = build_network(recipe, STATISTICS)
    assert [set_trainable(network, stage, recipe) for stage in recipe.stages] == trained
    unfrozen = [layer.name for layer in network.base_layers() if layer.trainable]
    if name == "vgg16-top4":
        assert unfrozen == [*convs(5), "block5_pool"]
    head = [layer for layer in network.model.layers if layer.name.startswith(("head", "logit"))]
    assert all(layer.trainable for layer in head)
    in_base = sum(len(layer.trainable_weights) for layer in network.base_layers())
    assert in_base == 2 * len(trained[-1])


@pytest.mark.parametrize(
    ("name", "backbone"),
    [("efficientnetb0-scratch", "EfficientNetB0"), ("efficientnetb3-scratch", "EfficientNetB3")],
)
def test_efficientnet_recipes_start_at_random_and_train_everything(name: str, backbone: str) -> None:
    recipe = load_recipe(name)
    assert (recipe.backbone, recipe.weights) == (backbone, "random")
    assert [stage.unfreeze for stage in recipe.stages] == ["all"]


def test_quick_profile_shortens_and_full_leaves_alone() -> None:
    recipe = load_recipe("efficientnetb0-scratch")
    assert recipe.for_profile("full") is recipe
    quick = recipe.for_profile("quick")
    assert [stage.epochs for stage in quick.stages] == [stage.quick_epochs for stage in recipe.stages]
    assert (recipe.input_px, quick.input_px) == (64, 50)
    partial = load_recipe("vgg16-partial")
    many = partial.model_copy(update={"cached_views": 8})
    assert (many.for_profile("full").cached_views, many.for_profile("quick").cached_views) == (8, 2)
    assert partial.for_profile("quick").input_px == partial.input_px


def test_unknown_profile_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"quick.*full.*fulll"):
        load_recipe("vgg16-full").for_profile("fulll")  # type: ignore[arg-type]


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, VALID))
    assert recipe.name == "mine"
    assert recipe.stages[0].early_stopping.monitor == "val_auc"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "mine"', 'name = "mine"\nbatchsize = 3', ["batchsize", "unknown key", "batch_size", "input_px"]),
        ("epochs = 3", "epochs = 3\nlr = 1", ["stages.0.lr", "unknown key", "learning_rate"]),
        ("epochs = 3", "epochs = 3\nreduce_lr = { factr = 0.1 }", ["stages.0.reduce_lr.factr", "factor"]),
        ("[[stages]]", "[head]\nlayers = 3\n[[stages]]", ["head.layers", "unknown key", "pooling", "units"]),
        ('"VGG16"', '"VGG20"', ["backbone", "VGG20", *BACKBONES]),
        ('"imagenet"', '"noise"', ["weights", "imagenet", "random", "noise"]),
        ("epochs = 3", "epochs = 0", ["stages.0.epochs", "greater than 0", "0"]),
        ("1e-3", '"fast"', ["stages.0.learning_rate", "number", "fast"]),
        ("1e-3", "7.0", ["stages.0.learning_rate", "less than or equal to 1", "7.0"]),
        ('unfreeze = "none"', 'unfreeze = "some"', ["stages.0.unfreeze", '"none"', '"all"', "number", "some"]),
        ("epochs = 3\n", "", ["stages.0.epochs", "required"]),
        ('name = "mine"', 'name = "a/b"', ["name", "a/b"]),
        ("[[stages]]", "[augment]\nzoom = 1.5\n[[stages]]", ["augment.zoom", "less than 1", "1.5"]),
        ("[[stages]]", "input_px = 8\n[[stages]]", ["input_px", "32", "8"]),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(tmp_path: Path, old: str, new: str, said: list[str]) -> None:
    message = refused(tmp_path, old, new)
    assert "mine.toml has 1 mistake(s)" in message
    for part in said:
        assert part in message


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    message = refused(tmp_path, "epochs = 3\nlearning_rate = 1e-3", "epochs = -1\nrate = 1")
    assert "3 mistake(s)" in message
    assert all(key in message for key in ("stages.0.epochs", "stages.0.rate", "stages.0.learning_rate"))


def test_two_stages_of_one_name_are_refused(tmp_path: Path) -> None:
    second = VALID[VALID.index("[[stages]]") :]
    with pytest.raises(RecipeError, match="name of its own"):
        load_recipe(written(tmp_path, VALID + second))


@pytest.mark.parametrize("unfreeze", ["none", 4, ["block5"]])
def test_frozen_random_weights_are_refused(unfreeze: Any) -> None:
    settings = load_recipe("efficientnetb0-scratch").model_dump()
    settings["stages"][0]["unfreeze"] = unfreeze
    with pytest.raises(RecipeError, match=r'random weights, which can never learn; use unfreeze = "all"'):
        parse_recipe(settings, "mine")


def test_not_toml(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"mine\.toml is not valid TOML.*line"):
        load_recipe(written(tmp_path, "name = \n"))


def test_missing_or_binary_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.toml cannot be read"):
        load_recipe(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"binary\.toml cannot be read"):
        load_recipe(tmp_path / "binary.toml")


def test_unknown_recipe_names_the_shipped_ones_and_the_nearest() -> None:
    with pytest.raises(RecipeError, match="Did you mean vgg16-full") as caught:
        load_recipe("vgg16-ful")
    assert all(name in str(caught.value) for name in DEFAULT_RECIPES)


def test_blocks_and_counts_that_fit_no_layer_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    no_weights(monkeypatch)
    recipe = load_recipe("vgg16-frozen")
    network = build_network(recipe, STATISTICS)
    stage = recipe.stages[0]
    with pytest.raises(RecipeError, match=r'weights starts with "block9"\. Blocks: block1, block2, .*, block5\.'):
        set_trainable(network, stage.model_copy(update={"unfreeze": ["block9"]}), recipe)
    with pytest.raises(RecipeError, match="unfreeze = 99, but the base has 18 layers"):
        set_trainable(network, stage.model_copy(update={"unfreeze": 99}), recipe)


@needs_imagenet
def test_shipped_frozen_recipe_builds_with_its_real_weights() -> None:
    network = build_network(load_recipe("vgg16-frozen"), STATISTICS)
    assert isinstance(network.model, keras.Model)
    assert network.weights_origin

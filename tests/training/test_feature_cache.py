"""Where stages may start from stored activations, and the batches made of them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_training import STATISTICS, no_weights, small_network, small_recipe, stage

from ductal.training.combinations import without_idle
from ductal.training.feature_cache import CachedFeed, plan_cuts
from ductal.training.network import Network, build_network, set_trainable
from ductal.training.recipe import DEFAULT_RECIPES, Recipe
from ductal.training.recipe_file import load_recipe

RECIPE = small_recipe(stage("head"), stage("top", ["block2"]), stage("all", "all"), cached_views=2)


def ends(cuts: list[Any | None]) -> list[str | None]:
    return [cut._keras_history.operation.name if cut is not None else None for cut in cuts]


@pytest.fixture
def network() -> Network:
    keras.utils.set_random_seed(0)
    return small_network(RECIPE, STATISTICS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vgg16-frozen", ["block5_pool"]),
        ("vgg16-top4", ["block5_pool", "block4_pool"]),
        ("vgg16-partial", ["block5_pool", "block4_pool", "block3_pool", "block2_pool"]),
        ("vgg16-full", [None]),
    ],
)
def test_cuts_of_the_shipped_recipes(name: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    no_weights(monkeypatch)
    recipe = load_recipe(name)
    assert ends(plan_cuts(build_network(recipe, STATISTICS), recipe)) == expected


@pytest.mark.parametrize(("backbone", "count"), [("VGG16", 18), ("VGG19", 21)])
def test_a_recipe_may_have_views_just_where_its_network_can_use_them(
    backbone: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_weights(monkeypatch)
    choices = ["all", "none", 1, count - 1, count, ["block1"], ["block1_conv1"], ["block1_conv2"], ["block2"]]
    recipes = [small_recipe(stage(unfreeze=choice), backbone=backbone) for choice in choices]
    network = build_network(recipes[0], STATISTICS)
    assert len(network.base_names) == count
    for recipe in recipes:
        cut = plan_cuts(network, recipe.model_copy(update={"cached_views": 1}))[0]
        settings = recipe.model_dump(mode="json") | {"cached_views": 1}
        if cut is None:
            with pytest.raises(ValueError, match="trains from the first layer on"):
                Recipe.model_validate(settings)
        else:
            assert Recipe.model_validate(settings).cached_views == 1
        assert without_idle(settings).get("cached_views", 0) == (cut is not None)


def test_nothing_is_cached_where_nothing_is_frozen(network: Network) -> None:
    for recipe in (small_recipe(*RECIPE.model_dump()["stages"]), small_recipe(stage("a", "all"), weights="random")):
        assert plan_cuts(network, recipe) == [None] * len(recipe.stages)
    assert all(load_recipe(name).cached_views == 0 for name in DEFAULT_RECIPES if "efficientnet" in name)


UNFREEZE = st.sampled_from(["none", "all", 1, 2, 3, 4, ["block1"], ["block2"], ["block1", "block2"]])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choices=st.lists(UNFREEZE, min_size=1, max_size=4))
def test_no_layer_before_a_cut_was_ever_trained(choices: list[Any], network: Network) -> None:
    recipe = small_recipe(*[stage(f"s{k}", choice) for k, choice in enumerate(choices)])
    recipe = recipe.model_copy(update={"cached_views": 1})  # also where the first stage trains all
    cuts = plan_cuts(network, recipe)
    trained: set[str] = set()
    for cut, part in zip(cuts, recipe.stages, strict=True):
        trained |= set(set_trainable(network, part, recipe))
        if cut is not None:
            assert not trained & {layer.name for layer in keras.Model(network.model.input, cut).layers}
    assert (cuts[0] is None) == (choices[0] in ("all", 4, ["block1"], ["block1", "block2"]))


def test_cached_feed_visits_every_patch_once_with_views_that_change_by_epoch() -> None:
    # The feature of view v of patch i is (v, i).
    features = np.stack(np.meshgrid(np.arange(3), np.arange(30), indexing="ij"), -1).astype(np.float16)
    feed = CachedFeed(tuple(features), np.arange(30) % 2, np.arange(30), batch_size=7, seed=2)
    passes = []
    for epoch in (0, 1, 0):
        feed.epoch = epoch
        x, y, w = (np.concatenate(part) for part in zip(*feed.dataset().as_numpy_iterator(), strict=True))
        assert sorted(x[:, 1]) == list(range(30))
        np.testing.assert_array_equal(y[:, 0], x[:, 1] % 2)
        np.testing.assert_array_equal(w, x[:, 1])
        assert set(x[:, 0]) == {0, 1, 2}
        passes.append(x)
    np.testing.assert_array_equal(passes[0], passes[2])
    by_patch = [x[np.argsort(x[:, 1]), 0] for x in passes]
    assert (by_patch[0] != by_patch[1]).any()

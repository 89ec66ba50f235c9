"""Cached activations: right cuts, the same figures as the uncached network, and a budget that is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_training import STATISTICS, no_weights, quiet, small_network, small_recipe, stage, train_small

from ductal.data.cohort import Cohort
from ductal.data.split import make_split
from ductal.training import feature_cache
from ductal.training.augment import draws, make_augment
from ductal.training.feature_cache import CachedFeed, cache_bytes, fill_caches, fits, plan_cuts
from ductal.training.network import Network, build_network, set_trainable
from ductal.training.recipe import DEFAULT_RECIPES, Recipe, load_recipe

SEED, VIEWS = 5, 2
RECIPE = small_recipe(stage("head"), stage("top", ["block2"]), stage("all", "all"), cached_views=VIEWS)
PIXELS = np.random.default_rng(1).integers(0, 256, (50, 50, 50, 3), dtype=np.uint8)
ROWS = {"train": np.arange(0, 40), "val": np.arange(49, 39, -1)}


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


def test_nothing_is_cached_where_nothing_is_frozen(network: Network) -> None:
    for recipe in (small_recipe(*RECIPE.model_dump()["stages"]), small_recipe(stage("a", "all"), weights="random")):
        assert plan_cuts(network, recipe) == [None] * len(recipe.stages)
    assert all(load_recipe(name).cached_views == 0 for name in DEFAULT_RECIPES if "efficientnet" in name)


UNFREEZE = st.sampled_from(["none", "all", 1, 2, 3, 4, ["block1"], ["block2"], ["block1", "block2"]])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choices=st.lists(UNFREEZE, min_size=1, max_size=4))
def test_no_layer_before_a_cut_was_ever_trained(choices: list[Any], network: Network) -> None:
    recipe = small_recipe(*[stage(f"s{k}", choice) for k, choice in enumerate(choices)], cached_views=1)
    cuts = plan_cuts(network, recipe)
    trained: set[str] = set()
    for cut, part in zip(cuts, recipe.stages, strict=True):
        trained |= set(set_trainable(network, part, recipe))
        if cut is not None:
            assert not trained & {layer.name for layer in keras.Model(network.model.input, cut).layers}
    assert (cuts[0] is None) == (choices[0] in ("all", 4, ["block1"], ["block1", "block2"]))


@pytest.fixture
def filled(network: Network, tmp_path: Path):
    cuts = plan_cuts(network, RECIPE)
    seen: list[tuple[int, int]] = []
    maps = fill_caches(
        network, RECIPE, cuts, PIXELS, ROWS, folder=tmp_path, seed=SEED, progress=lambda *p: seen.append(p)
    )
    assert seen[-1] == (VIEWS * 40 + 10, VIEWS * 40 + 10)
    return cuts, maps


def views(number: int) -> np.ndarray:
    """The training patches as view `number` of the cache augments them."""
    numbers = draws(SEED, feature_cache._FIRST_VIEW + number, 40)
    return make_augment(RECIPE.augment)(tf.constant(PIXELS[ROWS["train"]]), tf.constant(numbers)).numpy()


def test_cached_stage_equals_the_uncached_network(network: Network, filled) -> None:
    cuts, maps = filled
    assert ends(cuts) == ["block2_pool", "block1_norm", None]
    loss = keras.losses.BinaryCrossentropy()
    labels = np.arange(40)[:, None] % 2
    for cut in cuts[:2]:
        top, features = keras.Model(cut, network.model.output), maps[cut.name]
        assert features.train.dtype == np.float16
        assert features.train.shape[:2] == (VIEWS, 40)
        for number in range(VIEWS):
            whole = np.asarray(network.model(views(number), training=False))
            cached = np.asarray(top(features.train[number].astype("float32"), training=False))
            np.testing.assert_allclose(cached, whole, atol=2e-3)
            assert float(loss(labels, cached)) == pytest.approx(float(loss(labels, whole)), abs=2e-3)
        whole = np.asarray(network.model(PIXELS[ROWS["val"]], training=False))
        np.testing.assert_allclose(np.asarray(top(features.val.astype("float32"))), whole, atol=2e-3)
    assert not np.array_equal(maps[cuts[0].name].train[0], maps[cuts[0].name].train[1])


def test_training_the_top_trains_the_whole_model(network: Network, filled) -> None:
    cuts, maps = filled
    features = maps[cuts[0].name]
    set_trainable(network, RECIPE.stages[0], RECIPE)
    before = network.model(PIXELS[ROWS["val"]], training=False).numpy()
    base = [w.numpy().copy() for layer in network.base_layers() for w in layer.weights]
    top = keras.Model(cuts[0], network.model.output)
    top.compile("sgd", "binary_crossentropy", jit_compile=False)
    feed = CachedFeed(features.train, np.arange(40) % 2, np.ones(40), batch_size=16, seed=1)
    top.fit(feed.dataset(), verbose=0, shuffle=False)
    after = network.model(PIXELS[ROWS["val"]], training=False).numpy()
    assert abs(after - before).max() > 1e-4
    np.testing.assert_allclose(np.asarray(top(features.val.astype("float32"))), after, atol=2e-3)
    for old, layer_weight in zip(base, [w for layer in network.base_layers() for w in layer.weights], strict=True):
        np.testing.assert_array_equal(old, layer_weight.numpy())


def test_cached_feed_visits_every_patch_once_with_views_that_change_by_epoch() -> None:
    # The feature of view v of patch i is (v, i).
    features = np.stack(np.meshgrid(np.arange(3), np.arange(30), indexing="ij"), -1).astype(np.float16)
    feed = CachedFeed(features, np.arange(30) % 2, np.arange(30), batch_size=7, seed=2)
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


def test_size_is_counted_before_anything_is_written(filled, tmp_path: Path) -> None:
    cuts, maps = filled
    arrays = [array for features in maps.values() for array in (features.train, features.val)]
    assert cache_bytes(cuts, VIEWS, 40, 10) == sum(array.nbytes for array in arrays)
    assert cache_bytes([cuts[0], cuts[0], None], VIEWS, 40, 10) == cache_bytes([cuts[0]], VIEWS, 40, 10)
    assert fits(tmp_path, 1000)
    assert not fits(tmp_path, feature_cache.BUDGET_BYTES + 1)


@pytest.mark.parametrize("budget", [10, feature_cache.BUDGET_BYTES])
def test_too_small_a_budget_falls_back_and_says_so(
    budget: int, tiny_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_cache, "BUDGET_BYTES", budget)
    progress = quiet()
    recipe: Recipe = small_recipe(stage(), cached_views=1)
    split = make_split(tiny_cohort, "random", seed=1)
    run = train_small(recipe, tiny_cohort, split, tmp_path / "run", progress=progress)
    note = json.loads((run / "run.json").read_text())["feature_cache"]
    told = progress.console.file.getvalue()  # type: ignore[attr-defined]
    if budget == 10:
        assert note.startswith("not used: ")
        assert "would not fit the disk budget" in told
    else:
        assert note.startswith("1 views of ")
        assert "disk budget" not in told
    assert [path.name for path in tmp_path.iterdir()] == ["run"]

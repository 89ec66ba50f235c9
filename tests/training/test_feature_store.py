"""Stored activations: the same figures as the uncached network, shared, never stale, within a budget."""

from __future__ import annotations

import errno
import io
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_training import STATISTICS, quiet, small_network, small_recipe, stage, train_small

from ductal.data.cohort import Cohort
from ductal.data.splitting import make_split
from ductal.errors import StorageError
from ductal.training import feature_files, feature_store
from ductal.training.augment import draws, make_augment
from ductal.training.feature_cache import CachedFeed
from ductal.training.feature_store import StageFeatures, prepare_features
from ductal.training.network import Network, set_trainable
from ductal.training.recipe import Augment, Recipe

SEED, VIEWS = 5, 2
RECIPE = small_recipe(stage("head"), stage("top", ["block2"]), stage("all", "all"), cached_views=VIEWS)
HEAD_ONLY = small_recipe(stage("head"), cached_views=3, name="head-only")
PIXELS = np.random.default_rng(1).integers(0, 256, (50, 50, 50, 3), dtype=np.uint8)
ROWS = {"train": np.arange(0, 40), "val": np.arange(49, 39, -1)}
HEAD_BYTES, TOP_BYTES = 2 * 6 * 2 * 2, 2 * 4 * 12 * 12  # float16 activations of one patch at the two cuts


@pytest.fixture
def network() -> Network:
    keras.utils.set_random_seed(0)
    return small_network(RECIPE, STATISTICS)


def prepare(network: Network, folder: Path, recipe: Recipe = RECIPE, **changes: Any) -> tuple[StageFeatures, int]:
    """What `prepare_features` gives, and how many images went through the frozen layers."""
    seen: list[tuple[int, int]] = []
    settings: dict[str, Any] = {
        "pixels": PIXELS, "rows": ROWS, "folder": folder, "seed": SEED, "progress": lambda *p: seen.append(p),
    }  # fmt: skip
    features = prepare_features(network, recipe, **settings | changes)
    if seen:
        assert seen[-1][0] == seen[-1][1]
    return features, seen[-1][0] if seen else 0


def views(number: int) -> np.ndarray:
    """The training patches as view `number` of the cache augments them."""
    numbers = draws(SEED, feature_store.FIRST_VIEW + number, 40)
    return make_augment(RECIPE.augment)(tf.constant(PIXELS[ROWS["train"]]), tf.constant(numbers)).numpy()


def test_cached_stage_equals_the_uncached_network(network: Network, tmp_path: Path) -> None:
    features, _ = prepare(network, tmp_path)
    assert features.stages[2] is None
    loss = keras.losses.BinaryCrossentropy()
    labels = np.arange(40)[:, None] % 2
    for stored in features.stages[:2]:
        assert stored is not None
        cut, kept = stored
        top = keras.Model(cut, network.model.output)
        assert [view.dtype for view in kept.train] == [np.float16] * VIEWS
        for number in range(VIEWS):
            whole = np.asarray(network.model(views(number), training=False))
            cached = np.asarray(top(kept.train[number].astype("float32"), training=False))
            np.testing.assert_allclose(cached, whole, atol=2e-3)
            assert float(loss(labels, cached)) == pytest.approx(float(loss(labels, whole)), abs=2e-3)
        whole = np.asarray(network.model(PIXELS[ROWS["val"]], training=False))
        np.testing.assert_allclose(np.asarray(top(kept.val.astype("float32"))), whole, atol=2e-3)
        assert not np.array_equal(kept.train[0], kept.train[1])


def test_training_the_top_trains_the_whole_model(network: Network, tmp_path: Path) -> None:
    stored = prepare(network, tmp_path)[0].stages[0]
    assert stored is not None
    cut, features = stored
    set_trainable(network, RECIPE.stages[0], RECIPE)
    before = network.model(PIXELS[ROWS["val"]], training=False).numpy()
    base = [w.numpy().copy() for layer in network.base_layers() for w in layer.weights]
    top = keras.Model(cut, network.model.output)
    top.compile("sgd", "binary_crossentropy", jit_compile=False)
    feed = CachedFeed(features.train, np.arange(40) % 2, np.ones(40), batch_size=16, seed=1)
    top.fit(feed.dataset(), verbose=0, shuffle=False)
    after = network.model(PIXELS[ROWS["val"]], training=False).numpy()
    assert abs(after - before).max() > 1e-4
    np.testing.assert_allclose(np.asarray(top(features.val.astype("float32"))), after, atol=2e-3)
    for old, layer_weight in zip(base, [w for layer in network.base_layers() for w in layer.weights], strict=True):
        np.testing.assert_array_equal(old, layer_weight.numpy())


def test_what_was_computed_is_found_again(network: Network, tmp_path: Path) -> None:
    first, computed = prepare(network, tmp_path)
    assert computed == VIEWS * 40 + 10
    assert first.note == f"{VIEWS} views of 40 patches, 0 MB, {computed} computed"
    again, computed = prepare(network, tmp_path)
    assert computed == 0
    for old, new in zip(first.stages[:2], again.stages[:2], strict=True):
        assert old is not None
        assert new is not None
        np.testing.assert_array_equal(old[1].train, new[1].train)
    # Another recipe with the same frozen layers wants one more view of its one cut; validation is there.
    assert prepare(network, tmp_path, HEAD_ONLY)[1] == 40


def test_one_pass_serves_the_recipes_that_come_later(network: Network, tmp_path: Path) -> None:
    other = small_recipe(*RECIPE.model_dump()["stages"], cached_views=VIEWS, name="other", augment=Augment(d4=False))
    assert prepare(network, tmp_path, HEAD_ONLY, later=[RECIPE, other])[1] == 3 * 40 + 10
    assert prepare(network, tmp_path, RECIPE)[1] == 0
    assert prepare(network, tmp_path, other)[1] == VIEWS * 40  # other augmentation: only validation is shared


def test_shared_features_are_those_a_recipe_computes_alone(network: Network, tmp_path: Path) -> None:
    prepare(network, tmp_path / "shared", HEAD_ONLY, later=[RECIPE])
    shared = prepare(network, tmp_path / "shared")[0].stages[:2]
    alone = prepare(network, tmp_path / "alone")[0].stages[:2]
    for one, two in zip(shared, alone, strict=True):
        assert one is not None
        assert two is not None
        np.testing.assert_array_equal(one[1].train, two[1].train)
        np.testing.assert_array_equal(one[1].val, two[1].val)


def test_nothing_stale_is_used(network: Network, tmp_path: Path) -> None:
    everything = VIEWS * 40 + 10
    prepare(network, tmp_path)
    darker = PIXELS.copy()
    darker[0, 0, 0, 0] ^= 1
    assert prepare(network, tmp_path, pixels=darker)[1] == VIEWS * 40
    assert prepare(network, tmp_path, rows=ROWS | {"val": ROWS["val"][::-1]})[1] == 10
    assert prepare(network, tmp_path, seed=SEED + 1)[1] == VIEWS * 40
    stronger = RECIPE.model_copy(update={"augment": Augment(stain=0.2)})
    assert prepare(network, tmp_path, stronger)[1] == VIEWS * 40
    layer = network.model.get_layer("block2_conv1")
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel, bias + 1e-6])
    # Only the cut after that layer; the one before it is as it was.
    assert prepare(network, tmp_path, HEAD_ONLY.model_copy(update={"cached_views": VIEWS}))[1] == everything
    assert prepare(network, tmp_path)[1] == 0
    statistics = small_network(RECIPE, type(STATISTICS)((1.0, 2.0, 3.0), STATISTICS.std))
    for old, new in zip(network.model.layers, statistics.model.layers, strict=True):
        new.set_weights(old.get_weights())
    assert prepare(statistics, tmp_path)[1] == everything


def test_an_interrupted_pass_keeps_whole_views_and_no_half_ones(network: Network, tmp_path: Path) -> None:
    def stop(done: int, _: int) -> None:
        if done > 50:  # in the middle of the second view
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(network, tmp_path, progress=stop)
    assert len(list(tmp_path.iterdir())) == 2  # both cuts of the first view
    assert prepare(network, tmp_path)[1] == (VIEWS - 1) * 40 + 10


@pytest.mark.parametrize(
    ("budget", "without"),
    [
        (0, ("head", "top")),
        ((VIEWS * 40 + 10) * HEAD_BYTES + 1000, ("top",)),
        ((VIEWS * 40 + 10) * (HEAD_BYTES + TOP_BYTES), ()),
    ],
)
def test_the_largest_go_first_where_the_disk_is_small(
    budget: int, without: tuple[str, ...], network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_store, "BUDGET_BYTES", budget)
    # What later recipes want never costs this one its features.
    features, _ = prepare(network, tmp_path, later=[HEAD_ONLY.model_copy(update={"cached_views": 64})])
    assert features.over_budget == without
    assert [stored is None for stored in features.stages] == ["head" in without, "top" in without, True]
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= budget + 128 * 6  # npy headers


def test_only_what_does_not_fit_is_given_up(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wider = HEAD_ONLY.model_copy(update={"cached_views": 5})
    # Room for five views of the head, not for the top, which is the largest.
    monkeypatch.setattr(feature_store, "BUDGET_BYTES", (5 * 40 + 10) * HEAD_BYTES + 2000)
    features, computed = prepare(network, tmp_path, HEAD_ONLY, later=[RECIPE, wider])
    assert (features.over_budget, computed) == ((), 5 * 40 + 10)
    assert prepare(network, tmp_path, wider)[1] == 0
    assert prepare(network, tmp_path, RECIPE)[0].over_budget == ("top",)


def test_what_is_there_is_not_given_up(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(network, tmp_path)
    heads = [file for file in tmp_path.iterdir() if np.load(file)[0].nbytes == HEAD_BYTES]
    assert len(heads) == VIEWS + 1
    for file in heads:
        file.unlink()
    monkeypatch.setattr(feature_store, "BUDGET_BYTES", 90 * TOP_BYTES + 1000)
    features, _ = prepare(network, tmp_path)
    assert features.over_budget == ("head",)


def test_files_of_other_settings_make_room(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(network, tmp_path, seed=SEED + 1)
    monkeypatch.setattr(feature_store, "BUDGET_BYTES", 90 * (HEAD_BYTES + TOP_BYTES) + 1000)
    features, computed = prepare(network, tmp_path)
    assert features.over_budget == ()
    assert computed == VIEWS * 40  # validation, which has no seed, is kept
    assert len(list(tmp_path.iterdir())) == 2 * (VIEWS + 1)


def test_what_another_training_uses_is_not_deleted(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trainings that run at once share the folder: this one goes without, until the other has ended."""
    other, _ = prepare(network, tmp_path, seed=SEED + 1)
    there = sorted(tmp_path.iterdir())
    monkeypatch.setattr(feature_store, "BUDGET_BYTES", 90 * (HEAD_BYTES + TOP_BYTES) + 1000)
    assert prepare(network, tmp_path)[0].over_budget == ("head", "top")
    assert sorted(tmp_path.iterdir()) == there
    assert other.stages[0] is not None
    other.close()
    assert prepare(network, tmp_path)[0].over_budget == ()


def test_what_is_needed_is_not_deleted_while_the_rest_is_computed(network: Network, tmp_path: Path) -> None:
    """Another training makes room as soon as it sees this one at work."""
    prepare(network, tmp_path, HEAD_ONLY.model_copy(update={"cached_views": 1}))
    first = set(tmp_path.glob("*.npy"))

    def make_room(*_: int) -> None:
        for file in tmp_path.glob("*.npy"):
            feature_files.delete_unused(file)

    features, computed = prepare(network, tmp_path, HEAD_ONLY, progress=make_room)
    assert first <= set(tmp_path.glob("*.npy"))
    assert computed == 0  # of `prepare`, whose bar was replaced
    assert features.stages[0] is not None
    assert [len(view) for view in features.stages[0][1].train] == [40, 40, 40]


def test_a_mistake_in_a_later_recipe_is_not_this_ones(network: Network, tmp_path: Path) -> None:
    # Made without the checks of a recipe, which know this mistake.
    typo = RECIPE.stages[1].model_copy(update={"unfreeze": ["blok5"]})
    wrong = RECIPE.model_copy(update={"stages": [typo], "name": "wrong"})
    assert prepare(network, tmp_path, HEAD_ONLY, later=[wrong, RECIPE])[1] == 3 * 40 + 10
    assert prepare(network, tmp_path, RECIPE)[1] == 0


def test_a_full_disk_is_an_error_before_it_is_a_crash(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(feature_files.os, "posix_fallocate", full)
    with pytest.raises(StorageError, match="No space left"):
        prepare(network, tmp_path)
    assert not list(tmp_path.iterdir())


def test_too_small_a_budget_falls_back_and_says_so(
    tiny_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_store, "BUDGET_BYTES", 10)
    progress = quiet()
    assert isinstance(progress.console.file, io.StringIO)
    split = make_split(tiny_cohort, "random", seed=1)
    run = train_small(small_recipe(stage(), cached_views=1), tiny_cohort, split, tmp_path / "run", progress=progress)
    assert json.loads((run / "run.json").read_text())["feature_cache"].endswith("not for head: over the disk budget")
    assert "The disk has no room for the activations of frozen layers of: head" in progress.console.file.getvalue()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_two_trainings_share_a_folder(tiny_cohort: Cohort, tmp_path: Path) -> None:
    recipe = small_recipe(stage(), cached_views=1)
    split = make_split(tiny_cohort, "random", seed=1)
    notes = []
    for name in ("a", "b"):
        run = train_small(recipe, tiny_cohort, split, tmp_path / name, features_folder=tmp_path / "features")
        notes.append(json.loads((run / "run.json").read_text())["feature_cache"])
    rows = {part: len(split.rows(tiny_cohort, part)) for part in ("train", "val")}
    assert notes[0].endswith(f" {rows['train'] + rows['val']} computed")
    assert notes[1].endswith(" 0 computed")
    assert len(list((tmp_path / "features").iterdir())) == 2

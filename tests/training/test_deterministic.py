"""Deterministic trainings: what they fix, what they refuse, and what the record says of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf
from small_training import small_recipe, stage, train_small
from tensorflow.python.framework import config as tf_config

from ductal.data.cohort import Cohort
from ductal.data.splitting import make_split
from ductal.errors import FeaturesError, RecipeError
from ductal.training import feature_store, precision, trainer
from ductal.training.deterministic import determinism, threads

AUTO = small_recipe(stage(epochs=1), stage("all", "all", 1), precision="auto")
CACHED = small_recipe(stage(epochs=1), cached_views=1)


@pytest.fixture(autouse=True)
def others_are_as_before() -> Iterator[None]:
    """TensorFlow has no public way back."""
    yield
    tf_config.disable_op_determinism()


def train(cohort: Cohort, out: Path, recipe: Any = AUTO, **settings: Any) -> dict[str, Any]:
    run = train_small(recipe, cohort, make_split(cohort, "random", seed=1), out, deterministic=True, **settings)
    found: dict[str, Any] = json.loads((run / "run.json").read_text(encoding="utf-8"))
    return found


def weights_of(run: Path) -> list[str]:
    arrays = keras.saving.load_model(run / "model.keras").get_weights()
    return [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]


def test_the_clock_chooses_nothing_and_the_record_says_so(
    tiny_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_clock(*_: Any) -> float:
        raise AssertionError("timed")

    monkeypatch.setattr(precision, "_images_per_second", no_clock)
    seen: list[bool] = []
    real = trainer.make_fast
    monkeypatch.setattr(
        trainer, "make_fast", lambda model: (seen.append(tf_config.is_op_determinism_enabled()), real(model))
    )
    record = train(tiny_cohort, tmp_path / "a")
    assert seen == [True]
    assert record["deterministic"] is True
    assert record["threads"] == threads() > 0
    assert (record["precision"], record["precision_choice"]["reason"]) == ("float32", "deterministic")
    assert record["precision_choice"]["xla"] is False
    train(tiny_cohort, tmp_path / "b")
    assert weights_of(tmp_path / "a") == weights_of(tmp_path / "b")
    train(tiny_cohort, tmp_path / "c", seed=4)
    assert weights_of(tmp_path / "a") != weights_of(tmp_path / "c")


def test_too_little_disk_for_the_same_activations_is_an_error(
    tiny_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(tiny_cohort, tmp_path / "a", CACHED)["feature_cache"].startswith("1 views")
    monkeypatch.setattr(feature_store, "BUDGET_BYTES", 0)
    with pytest.raises(FeaturesError, match=r"no room .*: head.*cached_views = 0"):
        train(tiny_cohort, tmp_path / "b", CACHED)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_activations_that_others_left_are_not_used(tiny_cohort: Cohort, tmp_path: Path) -> None:
    split = make_split(tiny_cohort, "random", seed=1)
    train_small(CACHED, tiny_cohort, split, tmp_path / "a", features_folder=tmp_path / "features")
    assert list((tmp_path / "features").glob("*.npy"))
    record = train(tiny_cohort, tmp_path / "b", CACHED, features_folder=tmp_path / "features")
    assert not record["feature_cache"].endswith(" 0 computed")
    record = train(tiny_cohort, tmp_path / "c", CACHED, features_folder=tmp_path / "features")
    assert record["feature_cache"].endswith(" 0 computed")


def test_activations_that_others_left_count_for_the_budget(
    tiny_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, split = tmp_path / "features", make_split(tiny_cohort, "random", seed=1)
    train_small(CACHED, tiny_cohort, split, tmp_path / "a", features_folder=folder)
    left = {file.name: file.stat().st_size for file in folder.iterdir()}
    monkeypatch.setattr(feature_store, "BUDGET_BYTES", sum(left.values()))  # room for one of both
    train(tiny_cohort, tmp_path / "b", CACHED, features_folder=folder)
    there = {file.name: file.stat().st_size for file in folder.iterdir()}
    assert sorted(there.values()) == sorted(left.values())
    assert not there.keys() & left.keys()


def test_what_cannot_be_deterministic_is_told() -> None:
    refusal = tf.errors.UnimplementedError(None, None, "A kernel for op X is not\navailable")
    told = pytest.raises(RecipeError, match=r"device: A kernel for op X is not\. Train on a CPU")
    with told, determinism(1, wanted=True):
        raise refusal
    with pytest.raises(tf.errors.UnimplementedError), determinism(1, wanted=False):
        raise refusal


def test_threads_are_what_tensorflow_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    assert threads() == 3
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS")
    assert threads() == len(os.sched_getaffinity(0))

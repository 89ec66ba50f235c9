"""The moving average of weights is the formula's, and is what a training validates, keeps and saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from small_training import easy, small_recipe, stage, train_small

from ductal.data.cohort import Cohort
from ductal.data.splitting import make_split
from ductal.evaluation.temperature import Scaling
from ductal.inference.engines import load_keras
from ductal.loading.records import read_json
from ductal.training import callbacks
from ductal.training.averaging import WeightAverage

X = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
Y = X[:, :1] + X[:, 1:2] ** 2


def network() -> keras.Model:
    keras.utils.set_random_seed(3)
    frozen = keras.layers.Dense(6, name="frozen", trainable=False)
    return keras.Sequential(
        [keras.Input((6,)), frozen, keras.layers.BatchNormalization(momentum=0.5), keras.layers.Dense(1)]
    )


class Watch(keras.callbacks.Callback):
    """Notes the weights where another callback would see them; it stands after the average."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[list[np.ndarray]] = []
        self.ends: list[list[np.ndarray]] = []
        self.begins: list[list[np.ndarray]] = []

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        self.begins.append([array.copy() for array in self.model.get_weights()])

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        self.steps.append([array.copy() for array in self.model.get_weights()])

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        self.ends.append([array.copy() for array in self.model.get_weights()])


def fitted(*extra: keras.callbacks.Callback, epochs: int = 3) -> Watch:
    model, watch = network(), Watch()
    watch.begins.append([array.copy() for array in model.get_weights()])
    model.compile(keras.optimizers.SGD(0.05), "mse", jit_compile=False)
    model.fit(X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=[*extra, watch])
    return watch


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_it_is_the_formula_and_training_goes_on_as_without_it(decay: float) -> None:
    plain, watch = fitted(), fitted(WeightAverage(decay))
    for mine, theirs in zip(watch.steps, plain.steps, strict=True):
        assert [array.tobytes() for array in mine] == [array.tobytes() for array in theirs]
    average = [array.astype(np.float64) for array in watch.begins[0]]
    for number, step in enumerate(plain.steps, 1):
        now = min(decay, (1 + number) / (10 + number))
        average = [now * old + (1 - now) * new for old, new in zip(average, step, strict=True)]
        if number % 5 == 0:  # 40 patches in batches of 8
            for found, expected in zip(watch.ends[number // 5 - 1], average, strict=True):
                np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert [array.tobytes() for array in watch.begins[2]] == [array.tobytes() for array in watch.steps[4]]
    moved = [bool((a != b).any()) for a, b in zip(watch.ends[-1], watch.steps[-1], strict=True)]
    assert moved == [False] * 2 + [True] * 6  # not what is frozen; BatchNorm's statistics, too


def test_a_decay_of_nearly_nothing_is_no_average() -> None:
    for found, last in zip(fitted(WeightAverage(1e-6)).ends, fitted().ends, strict=True):
        for mine, theirs in zip(found, last, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cached_views", [0, 1])
def test_a_training_validates_keeps_and_saves_the_average(
    cached_views: int, tiny_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, cohort = make_split(tiny_cohort, "random", seed=1), easy(tiny_cohort)
    validated: list[np.ndarray] = []
    predict = callbacks.predict_in_order

    def spy(*given: Any) -> np.ndarray:
        validated.append(predict(*given))
        return validated[-1]

    monkeypatch.setattr(callbacks, "predict_in_order", spy)
    stages = [stage("head", epochs=1, rate=0.1), stage("top", ["block2"], 2, 0.1)]
    recipe = small_recipe(*stages, ema=0.95, cached_views=cached_views)
    run = train_small(recipe, cohort, split, tmp_path / "run")
    averaged = pd.read_csv(run / "history.csv")
    settings = read_json(run / "calibration.json")
    saved = pd.read_parquet(run / "predictions" / "val.parquet")["prob"]
    uncalibrated = Scaling(settings["temperature"], settings["bias"]).undo(saved)
    model = load_keras(run / "model.keras")
    found = np.asarray(model.predict_on_batch(cohort.pixels[split.rows(cohort, "val")]))[:, 0]
    np.testing.assert_allclose(found, uncalibrated, atol=2e-3 if cached_views else 2e-5)
    kept = averaged.index[averaged["best"]][-1]
    np.testing.assert_allclose(validated[kept], uncalibrated, atol=2e-5)
    if not cached_views:  # the first epoch sees the same batches from the same weights, and is validated with others
        plain = train_small(small_recipe(*stages[:1]), cohort, split, tmp_path / "plain")
        assert pd.read_csv(plain / "history.csv")["loss"].iloc[0] == averaged["loss"].iloc[0]
        assert abs(validated[0] - validated[3]).max() > 1e-3

"""The learning rate and the end of a stage follow the recipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_training import read, small_recipe, stage, train_small, uncalibrated

from ductal.data.cohort import Cohort
from ductal.data.split import Split
from ductal.data.splitting import make_split
from ductal.training import callbacks


@pytest.fixture(scope="module")
def split(tiny_cohort: Cohort) -> Split:
    return make_split(tiny_cohort, "random", seed=1)


def test_early_stopping_goes_back_and_the_plateau_lowers_the_rate(
    tiny_cohort: Cohort, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = iter([0.6, 0.9, 0.7, 0.65, 0.62, 0.99, 0.99, 0.99])
    seen: list[np.ndarray] = []
    real = callbacks.binary_metrics

    def scripted(y: np.ndarray, p: np.ndarray, threshold: float) -> dict[str, float]:
        seen.append(p.copy())
        return real(y, p, threshold) | {"roc_auc": next(script)}

    monkeypatch.setattr(callbacks, "binary_metrics", scripted)
    recipe = small_recipe(
        stage("all", "all", 8, early_stopping={"patience": 3}, reduce_lr={"patience": 1, "factor": 0.5})
    )
    _, history, _ = read(train_small(recipe, tiny_cohort, split, tmp_path / "run"))
    assert history["val_auc"].tolist() == [0.6, 0.9, 0.7, 0.65, 0.62]
    assert history["best"].tolist() == [False, True, False, False, False]
    plain = uncalibrated(tmp_path / "run")
    np.testing.assert_allclose(plain, seen[1], atol=1e-6)
    assert abs(plain - seen[-1]).max() > 1e-4
    np.testing.assert_allclose(history["learning_rate"], [1e-2, 1e-2, 1e-2, 5e-3, 2.5e-3], rtol=1e-5)


def test_monitoring_the_loss_looks_for_the_smallest_and_warm_up_rises(
    tiny_cohort: Cohort, split: Split, tmp_path: Path
) -> None:
    watch = {"monitor": "val_loss", "patience": 9}
    recipe = small_recipe(stage("all", "all", 3, early_stopping=watch, reduce_lr=watch, warmup_steps=12))
    _, history, _ = read(train_small(recipe, tiny_cohort, split, tmp_path / "run"))
    assert int(history["best"].to_numpy().argmax()) == int(history["val_loss"].to_numpy().argmin())
    steps = -(-len(split.rows(tiny_cohort, "train")) // recipe.batch_size)
    warm = min(12, 3 * steps // 3)  # a third of the stage at most
    expected = [1e-2 * min(steps * epoch, warm) / warm for epoch in (1, 2, 3)]
    np.testing.assert_allclose(history["learning_rate"], expected, rtol=1e-5)


def test_the_cosine_falls_to_nothing(
    tiny_cohort: Cohort, split: Split, tmp_path: Path
) -> None:
    settings = {"schedule": "cosine", "warmup_steps": 3}
    recipe = small_recipe(stage("all", "all", 4, early_stopping={"patience": 9}, **settings))
    _, history, _ = read(train_small(recipe, tiny_cohort, split, tmp_path / "run"))
    steps = -(-len(split.rows(tiny_cohort, "train")) // recipe.batch_size)
    share = (steps * np.arange(1, 5) - 3) / (4 * steps - 3)
    np.testing.assert_allclose(history["learning_rate"], 1e-2 * (1 + np.cos(np.pi * share)) / 2, rtol=1e-4, atol=1e-8)

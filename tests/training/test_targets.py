"""Smoothed labels, the focal loss, and metrics that still count classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from small_training import small_recipe, stage, train_small

from ductal.data.cohort import Cohort
from ductal.data.splitting import make_split
from ductal.errors import RecipeError
from ductal.training.callbacks import count_metrics
from ductal.training.targets import make_loss, on_nearest_class, training_labels


def on_grid(cohort: Cohort, labels: list[list[int]]) -> Cohort:
    """A slide of `labels` by row and column, and one patch of another patient beside it."""
    places = [(x, y, label) for y, row in enumerate(labels) for x, label in enumerate(row)]
    table = pd.DataFrame(
        {
            "patient": ["1"] * len(places) + ["2"],
            "x": [50 * x + 1 for x, _, _ in places] + [50 * len(labels[0]) + 1],
            "y": [50 * y + 1 for _, y, _ in places] + [1],
            "label": np.array([label for _, _, label in places] + [1], np.int8),
        }
    )
    return replace(cohort, table=table)


def test_a_label_moves_by_the_share_of_the_eight_neighbours_that_disagree(tiny_cohort: Cohort) -> None:
    cohort = on_grid(tiny_cohort, [[0, 0, 0], [0, 1, 0], [0, 0, 1]])
    rows = np.array([4, 8, 0, 2, 9])
    found = training_labels(cohort, rows, 0.4)
    # In the middle 7 of 8 disagree; in the corner 2 of 3; beside them 1; at the top right 1 and no other patient.
    np.testing.assert_allclose(found, [1 - 0.4 * 7 / 8, 1 - 0.4 * 2 / 8, 0.4 / 8, 0.4 / 8, 1.0], atol=1e-6)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(training_labels(cohort, rows, 0.0), [1, 1, 0, 0, 1])


def test_no_label_changes_its_side(tiny_cohort: Cohort) -> None:
    rows = np.arange(len(tiny_cohort))
    found = training_labels(tiny_cohort, rows, 0.49)
    np.testing.assert_array_equal(found > 0.5, tiny_cohort.labels == 1)
    assert (found != tiny_cohort.labels).any()


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_focal_loss_is_cross_entropy_times_how_wrong_it_is(gamma: float) -> None:
    loss = make_loss(small_recipe(focal_gamma=gamma))
    probs = np.array([[0.9], [0.2]], np.float32)
    right = np.array([0.9, 0.8])  # of the true class
    found = float(loss(np.array([[1.0], [0.0]], np.float32), probs))
    assert found == pytest.approx(float((-np.log(right) * (1 - right) ** gamma).mean()), rel=1e-4)


def test_metrics_count_a_smoothed_label_as_its_class() -> None:
    y, p = np.array([[0.1], [0.9], [0.2], [0.6]], np.float32), np.array([[0.2], [0.8], [0.7], [0.4]], np.float32)
    found = {}
    for metric in on_nearest_class(count_metrics()):
        metric.update_state(y, p)
        found[metric.name] = float(keras.ops.convert_to_numpy(metric.result()))
    assert {name: found[name] for name in ("tp", "tn", "fp", "fn")} == {"tp": 1, "tn": 1, "fp": 1, "fn": 1}


@pytest.mark.parametrize(
    ("known", "changes", "said"),
    [
        ("nothing", {"sampling": "patients"}, 'has sampling = "patients", .* no patient ids'),
        ("nothing", {"neighbour_smoothing": 0.3}, "has neighbour_smoothing = 0.3, and no training patch"),
        ("patients", {"neighbour_smoothing": 0.3}, "has neighbour_smoothing = 0.3, and no training patch"),
    ],
)
def test_what_has_no_effect_on_a_cohort_is_refused_before_training(
    known: str, changes: dict[str, Any], said: str, tiny_cohort: Cohort, tmp_path: Path
) -> None:
    apart = tiny_cohort.table.assign(x=100 * tiny_cohort.table["x"], y=100 * tiny_cohort.table["y"])
    table = apart.assign(patient="", x=-1, y=-1) if known == "nothing" else apart
    info = tiny_cohort.info.model_copy(update={"has_patients": known == "patients"})
    cohort = replace(tiny_cohort, table=table, info=info)
    split = make_split(cohort, "random", seed=1)
    with pytest.raises(RecipeError, match=said):
        train_small(small_recipe(**changes), cohort, split, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cached_views", [0, 1])
def test_a_training_uses_them_with_and_without_stored_activations(
    cached_views: int, tiny_cohort: Cohort, tmp_path: Path
) -> None:
    losses, split = [], make_split(tiny_cohort, "random", seed=1)
    for changes in ({}, {"neighbour_smoothing": 0.4}, {"focal_gamma": 2.0}):
        recipe = small_recipe(stage("head"), cached_views=cached_views, **changes)
        run = train_small(recipe, tiny_cohort, split, tmp_path / "run")
        losses.append(float(pd.read_csv(run / "history.csv")["loss"].iloc[0]))
    assert len(set(losses)) == 3

"""Weighted metrics: scikit-learn's with `sample_weight`, for many weights at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from ductal.evaluation import weighted
from ductal.evaluation.metrics import binary_metrics
from ductal.evaluation.weighted import (
    pair_counts,
    weighted_average_precision,
    weighted_brier,
    weighted_calls,
    weighted_means,
    weighted_roc_auc,
)

SCORES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]) | st.floats(0, 1)
PATCHES = st.lists(st.tuples(st.booleans(), SCORES, st.integers(0, 3)), min_size=1, max_size=40)
WEIGHTS = st.lists(st.lists(st.integers(0, 4), min_size=4, max_size=4), min_size=1, max_size=4)


def arrays(patches: list[tuple[bool, float, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    truth, scores, group = zip(*patches, strict=True)
    return np.array(truth), np.array(scores, dtype=float), np.array(group)


@settings(max_examples=200, deadline=None)
@given(PATCHES, WEIGHTS, st.floats(0, 1))
def test_agrees_with_scikit_learn(patches, weights, threshold) -> None:
    truth, scores, group = arrays(patches)
    sets = np.array(weights, dtype=float)
    called = scores >= threshold
    found = weighted_calls(truth, called, group, sets)
    found["roc_auc"] = weighted_roc_auc(*pair_counts(truth, scores, group, 4), sets)
    found["average_precision"] = weighted_average_precision(truth, scores, group, sets)
    found["brier"] = weighted_brier(truth, scores, group, sets)
    for row, each in enumerate(sets):
        w = each[group]
        if not w.sum():
            assert all(np.isnan(values[row]) for values in found.values())
            continue
        expected = {
            "prevalence": np.average(truth, weights=w),
            "accuracy": sk.accuracy_score(truth, called, sample_weight=w),
            "precision": sk.precision_score(truth, called, sample_weight=w, zero_division=np.nan),
            "recall": sk.recall_score(truth, called, sample_weight=w, zero_division=np.nan),
            "specificity": sk.recall_score(truth, called, pos_label=False, sample_weight=w, zero_division=np.nan),
            "f1": sk.f1_score(truth, called, sample_weight=w, zero_division=np.nan),
            "brier": np.average((scores - truth) ** 2, weights=w),
        }
        positive, negative = w[truth].sum(), w[~truth].sum()
        if positive:
            expected["average_precision"] = sk.average_precision_score(truth, scores, sample_weight=w)
        if positive and negative:
            expected["balanced_accuracy"] = sk.balanced_accuracy_score(truth, called, sample_weight=w)
            expected["roc_auc"] = sk.roc_auc_score(truth, scores, sample_weight=w)
        for name, value in expected.items():
            assert found[name][row] == pytest.approx(value, abs=1e-12, nan_ok=True), name
        if not positive:
            assert np.isnan(found["recall"][row])
            assert np.isnan(found["average_precision"][row])
        if not (positive and negative):
            assert np.isnan(found["roc_auc"][row])


@settings(max_examples=50, deadline=None)
@given(PATCHES)
def test_unit_weights_give_the_metrics_themselves(patches) -> None:
    truth, scores, group = arrays(patches)
    one, plain = np.ones((1, 4)), binary_metrics(truth, scores)
    found = weighted_calls(truth, scores >= 0.5, group, one) | {
        "roc_auc": weighted_roc_auc(*pair_counts(truth, scores, group, 4), one),
        "average_precision": weighted_average_precision(truth, scores, group, one),
        "brier": weighted_brier(truth, scores, group, one),
    }
    for name, values in found.items():
        assert values[0] == pytest.approx(plain[name], abs=1e-12, nan_ok=True), name


def test_pairs_of_patients_by_hand() -> None:
    truth = np.array([True, False, True, False, False])
    scores = np.array([0.9, 0.2, 0.5, 0.5, 0.95])
    wins, pairs = pair_counts(truth, scores, np.array([0, 0, 1, 1, 1]), 2)
    assert wins.tolist() == [[1, 1], [1, 0.5]]
    assert pairs.tolist() == [[1, 2], [1, 2]]


def test_strata_count_only_pairs_within_a_fold() -> None:
    """A network of one fold that scores everything higher must not lower the AUC of perfect folds."""
    truth = np.array([True, False, True, False, False])
    scores = np.array([0.2, 0.1, 0.9, 0.8, 0.7])
    group, fold = np.array([0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 1])
    one = np.ones((1, 2))
    assert weighted_roc_auc(*pair_counts(truth, scores, group, 2), one)[0] == pytest.approx(4 / 6)
    assert weighted_roc_auc(*pair_counts(truth, scores, group, 2, fold), one)[0] == 1
    assert weighted_average_precision(truth, scores, group, one)[0] == pytest.approx((1 + 2 / 4) / 2)
    assert weighted_average_precision(truth, scores, group, one, fold)[0] == 1


def test_strata_average_the_folds_by_pairs_and_by_positives() -> None:
    rng = np.random.default_rng(2)
    truth, scores, fold = rng.random(300) < 0.3, rng.random(300), rng.integers(0, 3, 300)
    group, one = fold * 2 + rng.integers(0, 2, 300), np.ones((1, 6))
    auc, ap, pairs, positives = [], [], [], []
    for k in range(3):
        y, p = truth[fold == k], scores[fold == k]
        auc.append(sk.roc_auc_score(y, p))
        ap.append(sk.average_precision_score(y, p))
        pairs.append(y.sum() * (~y).sum())
        positives.append(y.sum())
    found = weighted_roc_auc(*pair_counts(truth, scores, group, 6, fold), one)[0]
    assert found == pytest.approx(np.average(auc, weights=pairs), abs=1e-12)
    found = weighted_average_precision(truth, scores, group, one, fold)[0]
    assert found == pytest.approx(np.average(ap, weights=positives), abs=1e-12)


def test_blocks_of_weights_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    truth, scores, group = rng.random(50) < 0.4, rng.random(50).round(1), rng.integers(0, 5, 50)
    sets = rng.integers(0, 3, (17, 5)).astype(float)
    whole = weighted_average_precision(truth, scores, group, sets)
    monkeypatch.setattr(weighted, "BLOCK", 150)
    monkeypatch.setattr(weighted, "LEAST_SETS", 1)
    assert np.array_equal(weighted_average_precision(truth, scores, group, sets), whole, equal_nan=True)


def test_macro_means_leave_out_undefined_patients() -> None:
    sets = np.array([[1, 1, 1], [0, 2, 1], [0, 3, 0]], dtype=float)
    found = weighted_means({"recall": [0.5, np.nan, 1.0]}, sets)["recall"]
    assert found[:2].tolist() == [0.75, 1.0]
    assert np.isnan(found[2])

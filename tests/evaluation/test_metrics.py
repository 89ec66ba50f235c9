"""Metrics: analytic answers, agreement with scikit-learn, and the guard against shuffled labels."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from ductal.errors import RunError
from ductal.evaluation.metrics import (
    best_threshold,
    binary_metrics,
    evaluate_predictions,
    join_labels,
    per_patient_metrics,
)

SCORES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5000001, 0.75, 0.9, 1.0]) | st.floats(0, 1)
PAIRS = st.lists(st.tuples(st.integers(0, 1), SCORES), min_size=1, max_size=60)


def test_by_hand() -> None:
    found = binary_metrics([1, 1, 0, 0, 0], [0.9, 0.4, 0.6, 0.2, 0.1], 0.5)
    assert (found["tp"], found["fp"], found["tn"], found["fn"]) == (1, 1, 2, 1)
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["precision"] == found["recall"] == found["f1"] == 0.5
    assert found["specificity"] == pytest.approx(2 / 3)
    assert found["balanced_accuracy"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found["roc_auc"] == pytest.approx(5 / 6)
    assert found["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["brier"] == pytest.approx((0.01 + 0.36 + 0.36 + 0.04 + 0.01) / 5)
    assert found["prevalence"] == pytest.approx(2 / 5)


def test_a_score_at_the_threshold_is_called_cancer() -> None:
    assert binary_metrics([1], [0.5], 0.5)["tp"] == 1


@settings(max_examples=150, deadline=None)
@given(PAIRS, st.floats(0, 1))
def test_agrees_with_scikit_learn(pairs: list[tuple[int, float]], threshold: float) -> None:
    y, p = np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])
    found = binary_metrics(y, p, threshold)
    called = (p >= threshold).astype(int)
    expected = {
        "accuracy": sk.accuracy_score(y, called),
        "precision": sk.precision_score(y, called, zero_division=np.nan),
        "recall": sk.recall_score(y, called, zero_division=np.nan),
        "specificity": sk.recall_score(y, called, pos_label=0, zero_division=np.nan),
        "f1": sk.f1_score(y, called, zero_division=np.nan),
        "brier": np.mean((p - y) ** 2),
    }
    if y.any():
        expected["average_precision"] = sk.average_precision_score(y, p)
    if 0 < y.sum() < y.size:
        expected["roc_auc"] = sk.roc_auc_score(y, p)
        expected["balanced_accuracy"] = sk.balanced_accuracy_score(y, called)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize(
    ("y", "p", "undefined", "defined"),
    [
        (
            [0, 0],
            [0.1, 0.2],
            {"precision", "recall", "f1", "roc_auc", "average_precision"},
            {"specificity": 1},
        ),
        ([1, 1], [0.9, 0.8], {"specificity", "roc_auc", "balanced_accuracy"}, {"recall": 1}),
        ([], [], {"accuracy", "brier", "prevalence", "f1"}, {"n": 0}),
    ],
)
def test_undefined_is_nan_without_a_warning(y, p, undefined, defined) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = binary_metrics(y, p)
    assert all(np.isnan(found[name]) for name in undefined)
    assert all(found[name] == value for name, value in defined.items())


@pytest.mark.parametrize(
    ("y", "p"), [([0, 1], [0.5]), ([0, 2], [0.1, 0.2]), ([0, 1], [0.1, np.nan]), ([0, 1], [-3.0, 4.0])]
)
def test_refuses_what_is_no_label_or_probability(y, p) -> None:
    with pytest.raises(RunError, match="Received"):
        binary_metrics(y, p)


@settings(max_examples=150, deadline=None)
@given(PAIRS)
def test_best_threshold_beats_every_other(pairs: list[tuple[int, float]]) -> None:
    y, p = np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])
    chosen = best_threshold(y, p)
    if y.all() or not y.any():
        assert chosen == 0.5
        return
    reached = binary_metrics(y, p, chosen)["balanced_accuracy"]
    distinct = np.unique(p)[1:]
    assert all(reached >= binary_metrics(y, p, t)["balanced_accuracy"] - 1e-12 for t in distinct)


def test_best_threshold_is_a_midpoint_and_ties_go_towards_one_half() -> None:
    assert best_threshold([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9]) == pytest.approx(0.4)
    # 0.15 and 0.45 both give recall + specificity = 1.5; 0.45 is closer to 0.5.
    assert best_threshold([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.6]) == pytest.approx(0.45)
    assert best_threshold([0, 1, 0, 1], [0.4, 0.7, 0.8, 0.9]) == pytest.approx(0.55)


def test_best_threshold_between_adjacent_floats_still_separates_them() -> None:
    low = 0.3
    high = float(np.nextafter(low, 1))
    assert binary_metrics([0, 1], [low, high], best_threshold([0, 1], [low, high]))["accuracy"] == 1


def test_best_threshold_of_one_score_is_one_half() -> None:
    assert best_threshold([0, 1], [0.2, 0.2]) == 0.5


def test_per_patient_means_take_the_patients_for_whom_a_metric_is_defined() -> None:
    y = [1, 0, 0, 0, 1, 1]
    p = [0.9, 0.1, 0.9, 0.2, 0.1, 0.8]
    table, means = per_patient_metrics(y, p, ["b", "b", "a", "a", "", "c"], 0.5)
    assert table["patient"].tolist() == ["a", "b", "c"]
    assert table.set_index("patient").loc["b", "accuracy"] == 1
    assert means["patients"] == 3
    assert means["accuracy"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert (means["recall"], means["recall_patients"]) == (1, 2)
    assert (means["balanced_accuracy"], means["balanced_accuracy_patients"]) == (1, 1)


def test_per_patient_without_ids_says_zero_patients() -> None:
    table, means = per_patient_metrics([1, 0], [0.9, 0.1], ["", ""], 0.5)
    assert table.empty
    assert means["patients"] == 0
    assert np.isnan(means["accuracy"])
    with pytest.raises(RunError, match="one patient id"):
        per_patient_metrics([1, 0], [0.9, 0.1], ["a"], 0.5)


def _cohort(n: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "patch_id": [f"{i % 7}_idx5_x{i}_y1_class0" for i in range(n)],
            "patient": [str(i % 7) for i in range(n)],
            "label": rng.integers(0, 2, n).astype("int8"),
            "sha1": "",
        }
    )


def test_shuffled_predictions_are_joined_on_the_id() -> None:
    """The fault: a confusion matrix of a shuffled generator against unshuffled labels."""
    cohort = _cohort()
    perfect = pd.DataFrame({"patch_id": cohort["patch_id"], "prob": 0.1 + 0.8 * cohort["label"]})
    shuffled = perfect.sample(frac=1, random_state=1)
    by_row_order = binary_metrics(cohort["label"], shuffled["prob"])
    joined = join_labels(shuffled, cohort)
    assert by_row_order["accuracy"] < 0.65
    assert evaluate_predictions(joined, 0.5)["at_0.5"]["accuracy"] == 1
    assert joined.columns.tolist() == ["patch_id", "patient", "label", "prob"]
    assert joined["patch_id"].tolist() == cohort["patch_id"].tolist()
    assert (joined["label"].dtype, joined["prob"].dtype) == (np.int8, np.float32)


def test_join_refuses_missing_foreign_doubled_and_relabelled_patches() -> None:
    cohort = _cohort()
    good = pd.DataFrame({"patch_id": cohort["patch_id"], "prob": 0.5, "label": cohort["label"]})
    with pytest.raises(RunError, match="1 patches have no prediction"):
        join_labels(good.iloc[1:], cohort)
    with pytest.raises(RunError, match="outside the evaluated rows"):
        join_labels(good, cohort.iloc[:-2])
    with pytest.raises(RunError, match="more than once in the predictions"):
        join_labels(pd.concat([good, good.iloc[:1]]), cohort)
    with pytest.raises(RunError, match="more than once in the cohort"):
        join_labels(good, pd.concat([cohort, cohort.iloc[:1]]))
    with pytest.raises(RunError, match="inverted classes"):
        join_labels(good.assign(label=1 - good["label"]), cohort)


def test_evaluate_predictions_has_both_operating_points() -> None:
    table = pd.DataFrame(
        {
            "patch_id": list("abcd"),
            "patient": list("1122"),
            "label": [0, 1, 0, 1],
            "prob": [0.1, 0.3, 0.2, 0.9],
        }
    )
    block = evaluate_predictions(table, 0.25)
    assert block["at_0.5"]["recall"] == 0.5
    assert block["at_threshold"]["recall"] == 1
    assert block["per_patient"]["recall"] == 1
    assert block["threshold"] == 0.25
    assert block["intervals"]["patients"] == 2  # too few for an interval, and says so
    assert block["intervals"]["at_threshold"] == {}
    with pytest.raises(RunError, match="more than once"):
        evaluate_predictions(pd.concat([table, table]), 0.5)


def test_intervals_lie_around_the_metrics_they_belong_to() -> None:
    cohort = _cohort(900).assign(patient=lambda table: [f"p{i % 15}" for i in table.index])
    rng = np.random.default_rng(1)
    probs = np.clip(0.25 + 0.4 * cohort["label"] + rng.normal(0, 0.2, 900), 0, 1).astype("float32")
    block = evaluate_predictions(cohort.assign(prob=probs), 0.4)
    for point in ("at_0.5", "at_threshold", "per_patient"):
        for metric, (low, high) in block["intervals"][point].items():
            assert low < block[point][metric] < high, (point, metric)

"""Intervals over patients: they cover what they claim, and say when they cannot."""

from __future__ import annotations

import time

import clusters
import numpy as np
import pandas as pd
import pytest

from ductal.evaluation.bootstrap import MIN_PATIENTS, Resampling, degrees_of_freedom, patient_intervals
from ductal.evaluation.metrics import PATIENT_METRICS, per_patient_metrics
from ductal.evaluation.weighted import pair_counts, weighted_calls, weighted_roc_auc

PATIENTS, SIMULATIONS = 30, 500


@pytest.fixture(scope="module")
def simulated() -> dict[str, dict[str, list[bool]]]:
    """Whether each interval held the true value: {"patients" | "patches": {metric: one bool a simulation}}."""
    rng, true = np.random.default_rng(11), clusters.true_values()
    draws = Resampling(PATIENTS)
    held: dict[str, dict[str, list[bool]]] = {"patients": {}, "patches": {}}
    for _ in range(SIMULATIONS):
        truth, scores, group = clusters.draw(PATIENTS, rng)
        called = scores >= clusters.THRESHOLD
        found = weighted_calls(truth, called, group, draws.weights)
        found["roc_auc"] = weighted_roc_auc(*pair_counts(truth, scores, group, PATIENTS), draws.weights)
        for name, value in true.items():
            interval = draws.interval(found[name], patches=len(truth))
            assert interval is not None
            held["patients"].setdefault(name, []).append(interval[0] <= value <= interval[1])
        for name, (low, high) in patch_bootstrap(truth, scores, called, rng).items():
            held["patches"].setdefault(name, []).append(low <= true[name] <= high)
    return held


def patch_bootstrap(truth, scores, called, rng, replicates: int = 200) -> dict[str, tuple[float, float]]:
    """Percentile intervals of the naive bootstrap, which takes patches for independent."""
    order = np.argsort(scores)
    weights = rng.multinomial(len(truth), np.full(len(truth), 1 / len(truth)), replicates)[:, order]
    y, call = truth[order], called[order]
    positive, negative = weights * y, weights * ~y
    recall, specificity = positive @ call / positive.sum(1), negative @ ~call / negative.sum(1)
    wins = (positive * np.cumsum(negative, axis=1)).sum(1)
    values = {
        "recall": recall,
        "specificity": specificity,
        "balanced_accuracy": (recall + specificity) / 2,
        "roc_auc": wins / (positive.sum(1) * negative.sum(1)),
    }
    return {name: tuple(np.quantile(found, [0.025, 0.975])) for name, found in values.items()}


@pytest.mark.parametrize("metric", list(clusters.true_values()))
def test_95_per_cent_intervals_hold_the_truth_in_93_to_97(simulated, metric: str) -> None:
    assert 0.93 <= np.mean(simulated["patients"][metric]) <= 0.97


@pytest.mark.parametrize("metric", ["recall", "specificity", "balanced_accuracy", "roc_auc"])
def test_the_patch_bootstrap_does_not(simulated, metric: str) -> None:
    assert np.mean(simulated["patches"][metric]) < 0.8


def test_the_simulations_true_values_are_those_of_many_patients() -> None:
    truth, scores, group = clusters.draw(20_000, np.random.default_rng(1))
    found = weighted_calls(truth, scores >= clusters.THRESHOLD, group, np.ones((1, 20_000)))
    order = np.argsort(scores)
    y = truth[order]
    found["roc_auc"] = np.array([np.cumsum(~y)[y].mean() / (~y).sum()])
    for name, value in clusters.true_values().items():
        assert found[name][0] == pytest.approx(value, abs=0.006), name


def block(patients: int, seed: int = 0, *, ids: list[str] | None = None) -> dict:
    truth, scores, group = clusters.draw(patients, np.random.default_rng(seed))
    probs = 1 / (1 + np.exp(-scores))
    names = np.array(ids or [f"p{k:04d}" for k in range(patients)])[group]
    each, _ = per_patient_metrics(truth, probs, names, 0.6)
    return patient_intervals(truth, probs, {"at_0.5": probs >= 0.5, "at_threshold": probs >= 0.6}, names, each)


def test_every_metric_has_an_interval_at_both_thresholds_and_over_patients() -> None:
    found = block(30)
    for point in ("at_0.5", "at_threshold"):
        assert set(found[point]) == {*PATIENT_METRICS, "prevalence"}
        assert all(0 < low < high < 1 for low, high in found[point].values())
    assert set(found["per_patient"]) == set(PATIENT_METRICS)
    assert found["at_0.5"]["roc_auc"] == found["at_threshold"]["roc_auc"]
    assert found["at_0.5"]["recall"] != found["at_threshold"]["recall"]
    assert (found["patients"], found["patients_of"]["accuracy"], found["level"]) == (30, 30, 0.95)


def test_the_same_predictions_give_the_same_interval_whatever_their_order() -> None:
    truth, scores, group = clusters.draw(15, np.random.default_rng(3))
    probs, names = 1 / (1 + np.exp(-scores)), group.astype(str)
    order = np.random.default_rng(4).permutation(len(truth))

    def found(rows: np.ndarray) -> dict:
        each, _ = per_patient_metrics(truth[rows], probs[rows], names[rows], 0.5)
        return patient_intervals(truth[rows], probs[rows], {"x": probs[rows] >= 0.5}, names[rows], each)

    first, second = found(np.arange(len(truth))), found(order)
    for metric, interval in first["x"].items():
        assert second["x"][metric] == pytest.approx(interval, abs=1e-9)


def test_few_patients_and_unknown_patients_get_none() -> None:
    few = block(MIN_PATIENTS - 1)
    assert few["at_0.5"] == few["per_patient"] == {}
    assert few["patients"] == MIN_PATIENTS - 1
    some = block(12, ids=["", *(f"p{k}" for k in range(11))])
    assert some["at_threshold"] == {}
    assert some["patches_without_patient"] > 0


def test_a_metric_that_rests_on_few_patients_gets_none() -> None:
    """Thirty patients, but only three with cancer: nothing is known about recall in others."""
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(30), 20)
    truth = (group < 3) & (rng.random(600) < 0.5)
    probs = np.clip(0.3 * truth + rng.random(600) * 0.7, 0, 1)
    each, _ = per_patient_metrics(truth, probs, group.astype(str), 0.5)
    found = patient_intervals(truth, probs, {"x": probs >= 0.5}, group.astype(str), each)
    assert found["x"]["recall"] is None
    assert found["x"]["roc_auc"] is None
    assert found["per_patient"]["recall"] is None
    assert found["x"]["specificity"] is not None
    assert found["patients_of"]["recall"] == 3


def test_what_resampling_cannot_change_gets_none() -> None:
    draws = Resampling(12, 100)
    assert draws.interval(np.full(113, 0.5), patches=100) is None
    assert draws.interval(np.full(113, np.nan), patches=100) is None


def test_undefined_replicates_are_left_out_up_to_a_twentieth() -> None:
    draws = Resampling(12, 100)
    values = np.random.default_rng(0).uniform(0.6, 0.8, 113)
    whole = draws.interval(values, patches=100)
    values[-5:] = np.nan
    assert draws.interval(values, patches=100) == pytest.approx(whole, abs=0.03)
    values[-6:] = np.nan
    assert draws.interval(values, patches=100) is None
    values[-6:] = 0.7
    values[3] = np.nan  # undefined without one patient: it rests on them alone
    assert draws.interval(values, patches=100) is None


def test_the_interval_of_a_mean_is_students() -> None:
    """For a plain mean over equal patients the method is the t interval of the textbook."""
    x = np.random.default_rng(8).normal(size=40)
    draws = Resampling(40, 20_000)
    low, high = draws.interval(draws.weights @ x / 40)
    reach = 2.0227 * x.std(ddof=1) / np.sqrt(40)  # t(39), 97.5 %
    assert (low, high) == pytest.approx((x.mean() - reach, x.mean() + reach), rel=0.02, abs=0.02)


def test_degrees_of_freedom_fall_with_unequal_influence() -> None:
    equal = np.tile([-1.0, 1.0], 20)
    assert degrees_of_freedom(equal) == 39
    assert degrees_of_freedom(np.r_[np.zeros(39), 1.0]) == pytest.approx(2.1, abs=0.2)
    assert degrees_of_freedom(np.zeros(40)) == 39


def test_30_000_patches_take_seconds() -> None:
    rng = np.random.default_rng(0)
    group = rng.integers(0, 49, 30_000)
    truth, probs = rng.random(30_000) < 0.3, rng.random(30_000)
    each = pd.DataFrame({"accuracy": np.linspace(0.7, 0.9, 49)})
    started = time.perf_counter()
    patient_intervals(truth, probs, {"at_0.5": probs >= 0.5}, group.astype(str), each)
    assert time.perf_counter() - started < 20  # half a second on a free core

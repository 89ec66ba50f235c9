"""Threshold rules and net benefit: by hand, against every other threshold, and where undefined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from ductal.errors import RunError
from ductal.evaluation.decision import (
    ThresholdRule,
    bayes_threshold,
    decision_curve,
    expected_cost,
    sensitivity_at_specificity,
    threshold_for_cost,
    threshold_for_sensitivity,
)
from ductal.evaluation.metrics import best_threshold, binary_metrics

SCORES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]) | st.floats(0, 1)
PAIRS = st.lists(st.tuples(st.integers(0, 1), SCORES), min_size=1, max_size=50)
Y, P = [0, 0, 1, 0, 1, 1], [0.1, 0.2, 0.3, 0.6, 0.7, 0.9]


def test_by_hand() -> None:
    assert threshold_for_sensitivity(Y, P, 2 / 3) == pytest.approx((0.65, 2 / 3, 1))
    assert threshold_for_sensitivity(Y, P, 0.95) == pytest.approx((0.25, 1, 2 / 3))
    assert sensitivity_at_specificity(Y, P, 0.95) == pytest.approx((0.65, 2 / 3, 1))
    assert sensitivity_at_specificity(Y, P, 0.6) == pytest.approx((0.25, 1, 2 / 3))
    # Missing the patch at 0.3 costs less than the false alarm at 0.6 only below a ratio of 1.
    assert threshold_for_cost(Y, P, 0.5) == pytest.approx(0.65)
    assert threshold_for_cost(Y, P, 2) == pytest.approx(0.25)
    assert expected_cost(Y, P, 0.65, 5) == pytest.approx(5 / 6)
    assert expected_cost(Y, P, 0.25, 5) == pytest.approx(1 / 6)


@settings(max_examples=200, deadline=None)
@given(PAIRS, st.floats(0.01, 1))
def test_no_higher_threshold_reaches_the_sensitivity(pairs: list[tuple[int, float]], target: float) -> None:
    y, p = np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])
    found = threshold_for_sensitivity(y, p, target)
    if not y.any():
        assert np.isnan(found).all()
        return
    at = binary_metrics(y, p, found.threshold)
    assert at["recall"] == found.sensitivity >= target - 1e-9
    assert at["specificity"] == pytest.approx(found.specificity, nan_ok=True)
    higher = [float(np.nextafter(s, 2)) for s in p if s >= found.threshold]
    assert all(binary_metrics(y, p, t)["recall"] < target for t in higher)


@settings(max_examples=200, deadline=None)
@given(PAIRS, st.floats(0.01, 1))
def test_no_threshold_of_that_specificity_is_more_sensitive(pairs: list[tuple[int, float]], target: float) -> None:
    y, p = np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])
    found = sensitivity_at_specificity(y, p, target)
    if y.all():
        assert np.isnan(found).all()
        return
    at = binary_metrics(y, p, found.threshold)
    assert at["specificity"] == found.specificity >= target - 1e-9
    assert at["recall"] == pytest.approx(found.sensitivity, nan_ok=True)
    for other in (binary_metrics(y, p, t) for t in [*p, 1.1]):
        assert not (other["specificity"] >= target and other["recall"] > found.sensitivity)


@settings(max_examples=200, deadline=None)
@given(PAIRS, st.floats(0.05, 20))
def test_no_threshold_costs_less(pairs: list[tuple[int, float]], ratio: float) -> None:
    y, p = np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])
    chosen = threshold_for_cost(y, p, ratio)
    if y.all() or not y.any():
        assert np.isnan(chosen)
        return
    cost = expected_cost(y, p, chosen, ratio)
    assert all(cost <= expected_cost(y, p, t, ratio) + 1e-9 for t in [0.0, *p, 1.1])


def test_calibrated_probabilities_are_cheapest_at_bayes_threshold() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(-1, 2, 40_000)
    y, p = (rng.random(40_000) < expit(logits)).astype(int), expit(logits)
    for ratio in (1, 4, 9):
        assert bayes_threshold(ratio) == 1 / (1 + ratio)
        at_bayes = expected_cost(y, p, bayes_threshold(ratio), ratio)
        assert at_bayes == pytest.approx(expected_cost(y, p, threshold_for_cost(y, p, ratio), ratio), rel=0.01)
        assert at_bayes < expected_cost(y, p, min(0.99, 3 * bayes_threshold(ratio)), ratio)


def test_a_useless_model_calls_all_or_none() -> None:
    y, p = [0, 1], np.array([1.0, 0.0], np.float32)
    assert threshold_for_cost(y, p, 10) == 0
    nobody = threshold_for_cost(y, p, 0.1)
    assert not (p >= nobody).any()
    assert sensitivity_at_specificity(y, p, 1).sensitivity == 0


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("balanced_accuracy", "balanced_accuracy", None),
        ("sensitivity", "sensitivity", 0.95),
        ("sensitivity:0.9", "sensitivity", 0.9),
        ("cost:5", "cost", 5.0),
    ],
)
def test_rules_by_name(text: str, name: str, value: float | None) -> None:
    rule = ThresholdRule.parse(text)
    assert (rule.name, rule.value) == (name, value)
    assert str(value or "balanced") in rule.says
    expected = {
        "balanced_accuracy": lambda: best_threshold(Y, P),
        "sensitivity": lambda: threshold_for_sensitivity(Y, P, value).threshold,
        "cost": lambda: threshold_for_cost(Y, P, 5),
    }
    assert rule.choose(Y, P) == expected[name]()


@pytest.mark.parametrize(
    "text", ["", "youden", "cost", "cost:0", "cost:-1", "cost:nan", "sensitivity:1.2", "sensitivity:x",
             "balanced_accuracy:1"]
)  # fmt: skip
def test_refuses_what_is_no_rule(text: str) -> None:
    with pytest.raises(RunError, match=r"Received|Use one of"):
        ThresholdRule.parse(text)


def test_net_benefit_by_hand() -> None:
    curve = decision_curve(Y, P, [0.25, 0.5]).set_index("threshold")
    assert curve.loc[0.25, "net_benefit"] == pytest.approx(3 / 6 - 1 / 6 / 3)
    assert curve.loc[0.5, "net_benefit"] == pytest.approx(2 / 6 - 1 / 6)
    assert curve.loc[0.5, "treat_all"] == 0
    assert (curve["treat_none"] == 0).all()


@settings(max_examples=150, deadline=None)
@given(PAIRS)
def test_net_benefit_formulae(pairs: list[tuple[int, float]]) -> None:
    y, p = np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])
    curve = decision_curve(y, p)
    assert len(curve) == 99
    t = curve["threshold"].to_numpy()
    assert curve["treat_all"].to_numpy() == pytest.approx(y.mean() - (1 - y.mean()) * t / (1 - t))
    assert decision_curve(y, np.ones(len(y)))["net_benefit"].to_numpy() == pytest.approx(curve["treat_all"])
    assert (decision_curve(y, np.zeros(len(y)))["net_benefit"] == 0).all()
    assert (curve["net_benefit"] <= y.mean() + 1e-12).all()
    at = binary_metrics(y, p, t[24])
    expected = (at["tp"] - at["fp"] * t[24] / (1 - t[24])) / len(y)
    assert curve["net_benefit"][24] == pytest.approx(expected)


def test_undefined_is_nan_and_nonsense_is_refused() -> None:
    assert decision_curve([], [])["net_benefit"].isna().all()
    assert np.isnan(expected_cost([], [], 0.5, 1))
    assert np.isnan(threshold_for_sensitivity([], [])).all()
    assert np.isnan(threshold_for_sensitivity([1], [0.5]).specificity)
    for wrong in ([0.0], [1.0], [np.nan]):
        with pytest.raises(RunError, match="in \\(0, 1\\)"):
            decision_curve(Y, P, wrong)
    for call in (threshold_for_sensitivity, sensitivity_at_specificity):
        with pytest.raises(RunError, match="Received: 0"):
            call(Y, P, 0.0)
    with pytest.raises(RunError, match="cost ratio"):
        bayes_threshold(0)

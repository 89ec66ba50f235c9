"""Calibration figures: analytic values, Murphy's sum, and nan where there is nothing to say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from ductal.evaluation.calibration import (
    calibration_intervals,
    calibration_scores,
    negative_log_likelihood,
    reliability_table,
)
from ductal.evaluation.metrics import binary_metrics
from ductal.evaluation.temperature import cross_fitted

SCORES = st.sampled_from([0.0, 1e-9, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]) | st.floats(0, 1)
ROWS = st.lists(st.tuples(st.integers(0, 1), SCORES, st.sampled_from("abcd")), min_size=1, max_size=60)


def drawn(n: int, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from calibrated probabilities, and these as an overconfident network would give them."""
    rng = np.random.default_rng(0)
    logits = rng.normal(-1, 2, n)
    return (rng.random(n) < expit(logits)).astype(int), expit(temperature * logits)


def test_scores_by_hand() -> None:
    """Two bins: probabilities 0.2 of which half come true, and 0.8 of which all do."""
    found = calibration_scores([0, 1, 1, 1], [0.2, 0.2, 0.8, 0.8], bins=2)
    assert found["ece"] == pytest.approx((0.3 + 0.2) / 2)
    assert found["mce"] == pytest.approx(0.3)
    assert found["reliability"] == pytest.approx((0.09 + 0.04) / 2)
    assert found["resolution"] == pytest.approx(0.0625)
    assert found["uncertainty"] == pytest.approx(0.75 * 0.25)
    assert found["within_bin"] == pytest.approx(0, abs=1e-12)
    assert found["nll"] == pytest.approx(-(3 * np.log(0.8) + np.log(0.2)) / 4)
    assert (found["prevalence"], found["mean_predicted"]) == (0.75, pytest.approx(0.5))


@settings(max_examples=200, deadline=None)
@given(ROWS, st.integers(1, 15))
def test_bounds_and_murphys_sum(rows, bins: int) -> None:
    y, p, _ = (np.array(column) for column in zip(*rows, strict=True))
    found = calibration_scores(y, p, bins=bins)
    if len(y) < bins:
        assert np.isnan([found[name] for name in ("ece", "mce", "reliability", "resolution", "within_bin")]).all()
        return
    assert 0 <= found["ece"] <= found["mce"] + 1e-12 <= 1 + 2e-12
    parts = found["reliability"] - found["resolution"] + found["uncertainty"] + found["within_bin"]
    assert parts == pytest.approx(found["brier"], abs=1e-12)
    assert found["brier"] == pytest.approx(binary_metrics(y, p)["brier"])
    order = np.random.default_rng(0).permutation(len(y))
    assert calibration_scores(y[order], p[order], bins=bins) == pytest.approx(found)


def test_perfect_probabilities_have_the_ece_of_chance_alone() -> None:
    assert calibration_scores(*drawn(20_000))["ece"] < 0.4 * np.sqrt(15 / 20_000)


def test_nothing_is_nan() -> None:
    found = calibration_scores([], [])
    assert found["n"] == 0
    assert np.isnan([value for name, value in found.items() if name != "n"]).all()
    assert np.isnan(negative_log_likelihood([], []))
    assert found.keys() == calibration_scores(*drawn(100)).keys()


def test_cross_fitting_mends_what_is_off() -> None:
    y, p = drawn(5000, 3.0)
    before = calibration_scores(y, p)
    after = calibration_scores(y, cross_fitted(y, p, np.arange(5000) % 20).probs)
    assert after["ece"] < 0.3 * before["ece"]
    assert after["nll"] < before["nll"]


def test_intervals_hold_the_figures_and_need_patients() -> None:
    y, p = drawn(3000, 2.0)
    who = (np.arange(3000) % 15).astype(str)
    found, scores = calibration_intervals(y, p, who), calibration_scores(y, p)
    for name in ("ece", "brier", "nll"):
        interval = found[name]
        assert interval is not None
        assert interval[0] < scores[name] < interval[1]
    nothing = dict.fromkeys(("ece", "brier", "nll"))
    assert calibration_intervals(y, p, np.where(who == "3", "", who)) == nothing
    assert calibration_intervals(y, p, (np.arange(3000) % 9).astype(str)) == nothing
    assert calibration_intervals(y[:14], p[:14], np.arange(14)) == nothing


def test_reliability_table() -> None:
    y, p = drawn(3000, 2.0)
    table = reliability_table(y, p, np.arange(3000) % 12, bins=10)
    assert table["n"].tolist() == [300] * 10
    assert (table["patients"] == 12).all()
    assert table["predicted"].between(table["lowest"], table["highest"]).all()
    assert table["observed"].between(table["low"], table["high"]).all()
    assert (table["n"] * table["observed"]).sum() == pytest.approx(y.sum())
    assert len(reliability_table([0, 1], [0.1, 0.9])) == 2
    assert reliability_table([], []).empty

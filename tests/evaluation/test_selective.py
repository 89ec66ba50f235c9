"""Selective prediction: by hand, over ties, and at its ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import expit

from ductal.errors import RunError
from ductal.evaluation.metrics import binary_metrics
from ductal.evaluation.selective import abstention_for_error, aurc, confidence, risk_coverage, within_limits
from ductal.evaluation.temperature import Scaling

SCORES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]) | st.floats(0, 1)
PAIRS = st.lists(st.tuples(st.integers(0, 1), SCORES), min_size=1, max_size=50)
# Right, right, wrong, right in falling confidence at 0.5.
Y, P = [1, 0, 1, 0], [0.99, 0.03, 0.1, 0.4]


def test_by_hand() -> None:
    curve = risk_coverage(Y, P, 0.5)
    assert curve["coverage"].tolist() == [0.25, 0.5, 0.75, 1]
    assert curve["risk"].tolist() == pytest.approx([0, 0, 1 / 3, 1 / 4])
    assert aurc(Y, P, 0.5) == pytest.approx((0 + 0 + 1 / 3 + 1 / 4) / 4)


def test_abstention_by_hand() -> None:
    found = abstention_for_error(Y, P, 0.5, 0.1)
    assert (found.coverage, found.error_rate) == (0.5, 0)
    called = confidence(P, 0.5) >= found.margin
    assert called.tolist() == [True, True, False, False]
    assert [not found.low < p < found.high for p in P] == called.tolist()
    # Risk is not monotonous: 1/3 at three patches, 1/4 at all of them.
    assert abstention_for_error(Y, P, 0.5, 0.25) == pytest.approx((0, 0.5, 0.5, 1, 0.25))


@settings(max_examples=200, deadline=None)
@given(PAIRS, st.floats(0.01, 0.99), st.floats(0, 1))
@example([(1, 0.1), (1, 0.9)], 0.5, 0.0)  # equally sure, but for floating point
def test_ends_and_order_of_rows(pairs: list[tuple[int, float]], threshold: float, target: float) -> None:
    y, p = np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])
    curve, error = risk_coverage(y, p, threshold), 1 - binary_metrics(y, p, threshold)["accuracy"]
    assert curve["coverage"].iloc[-1] == 1
    assert curve["risk"].iloc[-1] == pytest.approx(error)
    assert curve["risk"].between(0, 1).all()
    assert (np.diff(curve["confidence"]) < 0).all()
    assert 0 <= aurc(y, p, threshold) <= 1
    order = np.random.default_rng(0).permutation(len(y))
    assert aurc(y[order], p[order], threshold) == pytest.approx(aurc(y, p, threshold))
    found = abstention_for_error(y, p, threshold, target)
    if found.coverage == 0:
        assert curve["risk"].min() > target
        return
    kept = confidence(p, threshold) >= found.margin
    assert kept.mean() == pytest.approx(found.coverage)
    assert found.error_rate == pytest.approx(((p >= threshold) != y)[kept].mean())
    assert found.error_rate <= target + 1e-9
    assert not (curve["risk"][curve["coverage"] > found.coverage + 1e-9] <= target).any()


def test_confidence_that_says_nothing_gives_the_error_rate() -> None:
    assert aurc([0, 1, 1, 1], [0.7] * 4, 0.5) == pytest.approx(0.25)


def test_temperature_changes_nothing_if_the_threshold_moves_along() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 300)
    p = expit(2 * (2 * y - 1) + rng.normal(0, 2, 300))
    scaling = Scaling(2.5)
    moved = float(scaling.apply(np.array([0.3]))[0])
    assert aurc(y, scaling.apply(p), moved) == pytest.approx(aurc(y, p, 0.3))


def test_undefined_is_nan_and_nonsense_is_refused() -> None:
    assert np.isnan(aurc([], [], 0.5))
    assert risk_coverage([], [], 0.5).empty
    for nothing in (abstention_for_error([], [], 0.5, 0.1), abstention_for_error([1], [0.1], 0.5, 0.1)):
        assert nothing.coverage == 0
        assert np.isnan([nothing.margin, nothing.low, nothing.high, nothing.error_rate]).all()
    with pytest.raises(RunError, match="nan"):
        risk_coverage(Y, P, float("nan"))
    with pytest.raises(RunError, match="error rate to reach"):
        abstention_for_error(Y, P, 0.5, 1.2)


def test_limits_chosen_elsewhere_leave_what_they_leave() -> None:
    y, p = [1, 0, 1, 0], [0.9, 0.8, 0.5, 0.1]
    assert within_limits(y, p, 0.5, 0.2, 0.7) == (0.75, pytest.approx(1 / 3))
    assert within_limits(y, p, 0.5, 0.5, 0.5) == (1.0, 0.25)
    coverage, error_rate = within_limits(y, p, 0.5, 0.0, 1.0)
    assert coverage == 0.0
    assert np.isnan(error_rate)
    found = abstention_for_error(y, p, 0.5, 0.0)
    assert within_limits(y, p, 0.5, found.low, found.high) == (found.coverage, found.error_rate)

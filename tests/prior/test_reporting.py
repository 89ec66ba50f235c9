"""What the faults of the report do to a figure, against analytic answers; and the words for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ductal.prior.faults import Reporting, configurations
from ductal.prior.reporting import Outcome, as_reported, figures, in_words

RNG_SEED = 5


def scored(n: int, prevalence: float, skill: float, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities of a model that is right on a share `skill` of the patches."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(n) < prevalence).astype(np.int8)
    right = rng.random(n) < skill
    strength = 0.5 + 0.5 * rng.random(n)
    return truth, np.where(right == (truth == 1), strength, 1 - strength)


@pytest.mark.parametrize("prevalence", [0.1, 0.284, 0.5])
@pytest.mark.parametrize("skill", [0.8, 1.0])
def test_a_shuffled_matrix_is_chance(prevalence: float, skill: float) -> None:
    n = 40_000
    truth, probs = scored(n, prevalence, skill)
    found = figures(truth, as_reported(probs, Reporting(shuffled=True), np.random.default_rng(RNG_SEED)))
    p, q = truth.mean(), (probs >= 0.5).mean()
    allowed = 5 * 0.5 / np.sqrt(n)  # five standard deviations at most
    assert found.accuracy == pytest.approx(p * q + (1 - p) * (1 - q), abs=allowed)
    assert found.roc_auc == pytest.approx(0.5, abs=0.02)
    assert found.balanced_accuracy == pytest.approx(0.5, abs=0.02)
    if skill == 1:
        assert found.accuracy == pytest.approx(p**2 + (1 - p) ** 2, abs=allowed)


@given(st.integers(0, 10_000), st.floats(0.1, 0.9), st.floats(0.0, 1.0))
def test_inverted_classes_turn_every_figure_round(seed: int, prevalence: float, skill: float) -> None:
    truth, probs = scored(200, prevalence, skill, seed)
    right = figures(truth, probs)
    found = figures(truth, as_reported(probs, Reporting(inverted=True), np.random.default_rng(0)))
    ties = (probs == 0.5).mean()  # called cancer either way
    assert found.accuracy == pytest.approx(1 - right.accuracy, abs=ties + 1e-9)
    assert found.roc_auc == pytest.approx(1 - right.roc_auc, abs=1e-6)


def test_an_honest_report_is_the_scores_as_they_are() -> None:
    _, probs = scored(50, 0.3, 0.9)
    assert as_reported(probs, Reporting(), np.random.default_rng(0)) is probs


def test_words_say_what_was_measured() -> None:
    honest, faulty = configurations(["leaky-split"], one_by_one=True)
    good = figures(*scored(1000, 0.3, 0.95))
    true = figures(*scored(1000, 0.2, 0.8))
    told = in_words(Outcome(faulty, good, true, replace(true, balanced_accuracy=0.85), 1.0, 0.25, 0.1))
    for part in (
        "Patient ids are thrown away",
        "100% of the reported patches are of patients it was trained on, 25% are copies",
        f"It reports accuracy {good.accuracy:.3f} and balanced accuracy {good.balanced_accuracy:.3f}",
        "The same network without the fault: true balanced accuracy 0.850",
        f"{good.prevalence:.1%} are IDC, of the hold-out {true.prevalence:.1%}",
    ):
        assert part in told
    assert "calls every patch" not in told
    stuck = figures([0, 0, 1], np.array([0.2, 0.2, 0.2]))
    assert in_words(Outcome(honest, stuck, stuck, stuck, 0.0, 0.0, 0.1)).endswith(
        "It calls every patch of the hold-out not cancer."
    )

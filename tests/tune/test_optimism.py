"""What choosing the best of many adds: nothing where there is no choice, everything where trials are noise."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ductal.tune.optimism import selection_optimism

RNG = np.random.default_rng(3)
PATIENT = np.repeat(np.arange(40).astype(str), 20)
TRUTH = RNG.integers(0, 2, PATIENT.size)


def test_one_trial_is_no_choice() -> None:
    scores = TRUTH + RNG.normal(0, 1, TRUTH.size)
    found = selection_optimism(TRUTH, [scores], PATIENT)
    assert found.shown == pytest.approx(roc_auc_score(TRUTH, scores))
    assert found.expected == pytest.approx(found.shown, abs=0.005)
    assert (found.trials, found.patients) == (1, 40)


def test_the_best_of_many_guesses_is_worth_nothing() -> None:
    guesses = [RNG.random(TRUTH.size) for _ in range(30)]
    found = selection_optimism(TRUTH, guesses, PATIENT)
    assert found.shown == max(roc_auc_score(TRUTH, each) for each in guesses) > 0.53
    assert found.expected == pytest.approx(0.5, abs=0.02)


def test_a_clear_winner_keeps_its_figure() -> None:
    good = TRUTH + RNG.normal(0, 0.3, TRUTH.size)
    found = selection_optimism(TRUTH, [*(RNG.random(TRUTH.size) for _ in range(20)), good], PATIENT)
    assert found.expected == pytest.approx(found.shown, abs=0.003)


def test_patients_of_one_class_each_leave_some_draws_undefined() -> None:
    truth = np.array([0, 0, 1, 1, 0, 1])
    found = selection_optimism(truth, [truth + 0.1, 1 - truth], ["a", "a", "b", "b", "c", "c"])
    assert found.expected == found.shown == 1.0

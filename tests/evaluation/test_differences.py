"""Differences between models: what is real is found, what is not is not, and many tests are paid for."""

from __future__ import annotations

import itertools

import clusters
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from ductal.errors import RunError
from ductal.evaluation import differences
from ductal.evaluation.bootstrap import Resampling
from ductal.evaluation.differences import Difference, Patches, Scored, corrected, difference, holm, resampled

PATIENTS = 25


def models(seed: int, gain: float, patients: int = PATIENTS) -> tuple[Patches, Scored, Scored]:
    """Two models that see the same patients with errors of their own; the first is better by `gain`."""
    rng = np.random.default_rng(seed)
    truth, shared, group = clusters.draw(patients, rng)
    scored = []
    for more in (gain, 0.0):
        own = rng.normal(0, 0.4, patients)[group] + rng.normal(0, 0.7, len(truth))
        scores = shared + own + more * truth
        scored.append(Scored(scores, scores >= clusters.THRESHOLD + more / 2))
    return Patches(truth, group, patients), scored[0], scored[1]


def test_the_difference_is_that_of_the_two_metrics() -> None:
    patches, first, second = models(0, 0.5)
    found = difference(patches, first, second, Resampling(PATIENTS, 200), permutations=99)
    auc = [sk.roc_auc_score(patches.truth, model.scores) for model in (first, second)]
    accuracy = [sk.balanced_accuracy_score(patches.truth, model.called) for model in (first, second)]
    assert found["roc_auc"].value == pytest.approx(auc[0] - auc[1], abs=1e-12)
    assert found["balanced_accuracy"].value == pytest.approx(accuracy[0] - accuracy[1], abs=1e-12)
    for each in found.values():
        assert each.interval[0] < each.value < each.interval[1]


def test_a_better_model_is_found_and_turning_the_pair_round_turns_the_sign() -> None:
    patches, first, second = models(1, 1.0)
    draws = Resampling(PATIENTS)
    found = difference(patches, first, second, draws)
    back = difference(patches, second, first, draws)
    for name, each in found.items():
        assert each.real
        assert each.interval[0] > 0
        assert back[name].value == -each.value
        assert back[name].p == pytest.approx(each.p)
        assert back[name].interval == pytest.approx((-each.interval[1], -each.interval[0]))


def test_a_model_does_not_differ_from_itself_on_another_scale() -> None:
    """Squeezed probabilities have the same ranks: exchanging them must not look like a difference."""
    patches, first, _ = models(2, 0.0)
    squeezed = Scored(first.scores / 10 + 5, first.called)
    found = difference(patches, first, squeezed, Resampling(PATIENTS, 200), permutations=199)
    for each in found.values():
        assert (each.value, each.p, each.interval) == (0, 1, None)


def test_under_no_difference_five_per_cent_are_called_real_and_intervals_hold_zero() -> None:
    draws = Resampling(PATIENTS, 500)
    found = [difference(*models(seed, 0.0), draws, permutations=399) for seed in range(300)]
    for name in differences.COMPARED:
        assert 0.02 <= np.mean([each[name].real for each in found]) <= 0.08
        assert 0.92 <= np.mean([each[name].interval[0] <= 0 <= each[name].interval[1] for each in found]) <= 0.98


def test_few_patients_are_tested_exactly_enough() -> None:
    """With six patients there are 64 exchanges, so p is about 1/32 at best, and no interval is given."""
    patches, first, second = models(3, 2.0, patients=6)
    found = difference(patches, first, second, Resampling(6))
    every = np.array(list(itertools.product([0, 1], repeat=6)))[:, patches.group]
    ranks = [np.argsort(np.argsort(model.scores)) for model in (first, second)]
    chance = [
        sk.roc_auc_score(patches.truth, np.where(row, *ranks))
        - sk.roc_auc_score(patches.truth, np.where(row, *ranks[::-1]))
        for row in every == 1
    ]
    exact = np.mean(np.abs(chance) >= abs(found["roc_auc"].value) - 1e-12)
    assert found["roc_auc"].p == pytest.approx(exact, abs=0.02)
    assert found["roc_auc"].interval is None


def test_it_is_seeded() -> None:
    patches, first, second = models(4, 0.3)
    draws = Resampling(PATIENTS, 200)
    once = difference(patches, first, second, draws, permutations=199)
    metrics = (resampled(patches, first, draws), resampled(patches, second, draws))
    assert difference(patches, first, second, draws, metrics, permutations=199) == once


def test_folds_are_ranked_apart() -> None:
    """A fold's network on another scale changes nothing where pairs stay within folds."""
    patches, first, second = models(5, 0.6)
    fold = (patches.group % 2).astype(np.intp)
    in_folds = Patches(patches.truth, patches.group, PATIENTS, fold)
    moved = Scored(first.scores + 100 * fold, first.called)
    draws = Resampling(PATIENTS, 100)
    plain = difference(in_folds, first, second, draws, permutations=199)
    shifted = difference(in_folds, moved, second, draws, permutations=199)
    assert shifted["roc_auc"].value == pytest.approx(plain["roc_auc"].value, abs=1e-12)
    assert shifted["roc_auc"].p == plain["roc_auc"].p


def test_other_patches_are_refused_and_one_class_is_undefined() -> None:
    patches, first, second = models(6, 0.0)
    short = Scored(second.scores[:-1], second.called[:-1])
    with pytest.raises(RunError, match="same patches"):
        difference(patches, first, short, Resampling(PATIENTS, 10))
    nobody = Patches(np.zeros_like(patches.truth), patches.group, PATIENTS)
    found = difference(nobody, first, second, Resampling(PATIENTS, 100), permutations=99)
    assert all(np.isnan(each.p) and each.interval is None and not each.real for each in found.values())


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, np.nan, 0.9]) == pytest.approx([0.8, np.nan, 0.9], nan_ok=True)
    assert holm([]).size == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(p: list[float]) -> None:
    found, given_p = holm(p), np.array(p)
    assert (found >= given_p).all()
    assert (found <= np.minimum(1, given_p * len(p)) + 1e-15).all()
    assert (np.diff(found[np.argsort(given_p, kind="stable")]) >= 0).all()


def test_all_tests_of_a_table_are_corrected_together() -> None:
    pairs = [{"roc_auc": Difference(0.1, None, 0.01)}, {"roc_auc": Difference(0.2, (0.1, 0.3), 0.03)}]
    after = corrected(pairs)
    assert [pair["roc_auc"].p for pair in after] == [0.02, 0.03]
    assert after[1]["roc_auc"].interval == (0.1, 0.3)

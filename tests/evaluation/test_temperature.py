"""Temperature and bias: those put in are found, the data never get worse, nobody calibrates on themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from ductal.errors import RunError
from ductal.evaluation.calibration import negative_log_likelihood
from ductal.evaluation.metrics import binary_metrics
from ductal.evaluation.temperature import Scaling, bias_helps, cross_fitted, fit_platt, fit_temperature
from ductal.inference.predictor import Predictor

SCORES = st.sampled_from([0.0, 1e-9, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]) | st.floats(0, 1)
ROWS = st.lists(st.tuples(st.integers(0, 1), SCORES, st.sampled_from("abcd")), min_size=1, max_size=60)


def drawn(n: int, temperature: float = 1.0, bias: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from calibrated probabilities, and these as an overconfident, shifted network would give them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 2, n)
    y = (rng.random(n) < expit(logits)).astype(int)
    return y, expit(temperature * (logits - bias))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_finds_the_temperature_that_was_put_in(temperature: float) -> None:
    found = fit_temperature(*drawn(20_000, temperature))
    assert found.fitted
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert (found.bias, found.patches, found.patients, found.note) == (0.0, 20_000, 0, "")


def test_platt_finds_the_bias_of_class_weights() -> None:
    y, p = drawn(20_000, 2.0, bias=-0.9)
    found = fit_platt(y, p)
    assert (found.temperature, found.bias) == pytest.approx((2.0, -0.9), abs=0.08)
    assert negative_log_likelihood(y, found.apply(p)) < negative_log_likelihood(y, fit_temperature(y, p).apply(p))


def test_a_bias_is_taken_where_other_patients_gain_from_it() -> None:
    y, p = drawn(6_000, 2.0, bias=-0.9)
    who = np.repeat(np.arange(40).astype(str), 150)
    assert bias_helps(y, p, who)
    few = np.repeat(np.arange(5).astype(str), 1_200)
    assert not bias_helps(y, p, few)
    assert not bias_helps(y, p, np.where(who == "3", "", who))


def test_a_bias_is_left_out_where_there_is_none() -> None:
    who = np.repeat(np.arange(40).astype(str), 100)
    taken = [bias_helps(*drawn(4_000, 2.0, seed=seed), who) for seed in range(20)]
    assert sum(taken) <= 6  # a gain beyond one standard error comes by chance, too, but seldom


@settings(max_examples=200, deadline=None)
@given(ROWS, st.sampled_from([fit_temperature, fit_platt]))
def test_on_the_fitting_data_it_never_gets_worse_and_never_reorders(rows, fit) -> None:
    y, p, who = (np.array(column) for column in zip(*rows, strict=True))
    for patients in (None, who):
        found = fit(y, p, patients)
        after = found.apply(p)
        before = negative_log_likelihood(y, p, patients)
        assert negative_log_likelihood(y, after, patients) <= before + 1e-6
        assert (np.diff(after[np.argsort(p, kind="stable")]) >= 0).all()
        assert ((after >= 0) & (after <= 1)).all()
        assert found.fitted or (found.temperature, found.bias) == (1.0, 0.0)
        assert found.fitted == (not found.note)


def test_ranking_figures_stay_as_they_are() -> None:
    y, p = drawn(500, 2.0)
    after = fit_temperature(y, p).apply(p)
    for name in ("roc_auc", "average_precision", "accuracy"):
        assert binary_metrics(y, after)[name] == pytest.approx(binary_metrics(y, p)[name], abs=1e-12)


@pytest.mark.parametrize(
    ("y", "p", "why"),
    [
        ([1, 1], [0.3, 0.8], "one class"),
        ([], [], "one class"),
        ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], "separate"),
        ([0, 0, 1, 1], [0.9, 0.8, 0.2, 0.1], "rank no better"),
    ],
)
@pytest.mark.parametrize("fit", [fit_temperature, fit_platt])
def test_what_cannot_be_fitted_is_left_alone_and_says_so(y, p, why, fit) -> None:
    found = fit(y, p)
    assert (found.fitted, found.temperature, found.bias) == (False, 1.0, 0.0)
    assert why in found.note
    assert found.apply([0.2, 0.7]).tolist() == [0.2, 0.7]


def test_one_score_has_a_bias_but_no_temperature() -> None:
    assert not fit_temperature([0, 1, 1], [0.5] * 3).fitted
    assert fit_platt([0, 1, 1], [0.5] * 3).apply(0.5) == pytest.approx(2 / 3, abs=1e-5)


def test_each_patient_counts_the_same() -> None:
    """A patient of 4,000 patches at temperature 3 does not outvote three of 400 at 1."""
    parts = [drawn(4000, 3.0)] + [drawn(400, 1.0, seed=seed) for seed in (1, 2, 3)]
    y, p = (np.concatenate(column) for column in zip(*parts, strict=True))
    who = np.repeat(list("abcd"), [4000, 400, 400, 400])
    assert fit_temperature(y, p).temperature > 1.2 * fit_temperature(y, p, who).temperature
    assert fit_temperature(y, p, who).patients == 4
    assert fit_temperature(y, p, np.full(len(y), "")) == fit_temperature(y, p)


def test_equal_patients_give_the_steadier_temperature() -> None:
    """Why they are the default: 29 patients of uneven size, each with slope and shift of their own."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(60):
        sizes = np.exp(rng.normal(4.3, 1.2, 29)).astype(int).clip(13, 1600)
        who = np.repeat(np.arange(29), sizes)
        logits = rng.normal(-1, 2, len(who))
        y = rng.random(len(who)) < expit(logits)
        p = expit(1.8 * (np.exp(rng.normal(0, 0.3, 29))[who] * logits + rng.normal(0, 1, 29)[who]))
        found.append((fit_temperature(y, p).temperature, fit_temperature(y, p, who).temperature))
    patches, patients = np.std(found, axis=0)
    assert patients < 0.8 * patches


def test_is_what_the_predictor_applies() -> None:
    p = np.random.default_rng(0).random(100).astype(np.float32)
    p[:3] = 0, 1, 1e-9

    class Engine:
        name = "fake"

        def run(self, batches, out) -> None:
            for where, _ in batches:
                out[where] = p[where[1]]

    patches = np.zeros((100, 50, 50, 3), np.uint8)
    served = Predictor(Engine(), temperature=1.7).predict(patches)
    assert Scaling(1.7).apply(p) == pytest.approx(served, abs=1e-6)


@pytest.mark.parametrize("scaling", [Scaling(), Scaling(2.2), Scaling(0.7, 0.9), Scaling(1.0, -1.0)])
def test_undo_gives_the_networks_probabilities_back_from_float32(scaling: Scaling) -> None:
    p = np.linspace(0.001, 0.999, 99)
    assert scaling.undo(scaling.apply(p).astype(np.float32)) == pytest.approx(p, abs=2e-6)


def test_cross_fitting_never_uses_the_patient_itself() -> None:
    """Patient a alone is overconfident, and is not helped by their own labels."""
    parts = [drawn(600, 4.0)] + [drawn(600, 1.0, seed=seed) for seed in (1, 2, 3)]
    y, p = (np.concatenate(column) for column in zip(*parts, strict=True))
    who = np.repeat(list("abcd"), 600)
    found = cross_fitted(y, p, who, folds=9)
    assert len(found.scalings) == 4
    for patient in "abcd":
        own = who == patient
        (fold,) = np.unique(found.fold[own])
        expected = fit_temperature(y[~own], p[~own], who[~own])
        assert found.scalings[fold].temperature == pytest.approx(expected.temperature)
        assert found.probs[own] == pytest.approx(expected.apply(p[own]))
    assert found.scalings[found.fold[0]].temperature == pytest.approx(1, abs=0.2)
    shuffled = np.random.default_rng(0).permutation(len(y))
    again = cross_fitted(y[shuffled], p[shuffled], who[shuffled], folds=9)
    assert again.probs == pytest.approx(found.probs[shuffled])


@pytest.mark.parametrize(("who", "folds"), [("aaaa", 5), ("ab b", 5), ("abab", 1)])
def test_cross_fitting_needs_patients(who: str, folds: int) -> None:
    ids = [name.strip() for name in who]
    with pytest.raises(RunError, match="two patients"):
        cross_fitted([0, 1, 0, 1], [0.1, 0.6, 0.7, 0.9], ids, folds=folds)


def test_a_fold_of_one_class_leaves_the_others_alone() -> None:
    found = cross_fitted([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9], list("aabb"))
    assert [scaling.fitted for scaling in found.scalings] == [False, False]
    assert found.probs.tolist() == [0.1, 0.6, 0.4, 0.9]

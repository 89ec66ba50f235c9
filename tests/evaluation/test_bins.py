"""Equal-mass bins with ties, and intervals of shares that know of patients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ductal.errors import RunError
from ductal.evaluation.arrays import patient_numbers, patient_weights
from ductal.evaluation.bins import clustered_share, design_effect, equal_mass_bins

VALUES = st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0]) | st.floats(0, 1), min_size=1, max_size=80)


def test_bins_hold_the_same_number_where_values_differ() -> None:
    assert np.bincount(equal_mass_bins(np.random.default_rng(0).permutation(45), 15)).tolist() == [3] * 15
    assert equal_mass_bins([0.3, 0.1, 0.2, 0.4], 2).tolist() == [1, 0, 0, 1]


@settings(max_examples=200, deadline=None)
@given(VALUES, st.integers(1, 20))
def test_bins_are_ordered_share_ties_and_leave_no_gap(values: list[float], bins: int) -> None:
    given_values = np.array(values)
    number = equal_mass_bins(given_values, bins)
    assert sorted(set(number.tolist())) == list(range(number.max() + 1))
    assert number.max() < bins
    order = np.argsort(given_values)
    assert (np.diff(number[order]) >= 0).all()
    assert all(np.unique(number[given_values == value]).size == 1 for value in values)


def test_one_value_is_one_bin_and_nothing_is_none() -> None:
    assert equal_mass_bins([0.2] * 9, 15).tolist() == [0] * 9
    assert equal_mass_bins([], 15).size == 0


def test_independent_patches_have_wilsons_interval() -> None:
    """Wilson 1927 for 3 of 10: 0.1078 to 0.6032."""
    found = clustered_share([1, 1, 1, 0, 0, 0, 0, 0, 0, 0])
    assert found == pytest.approx((0.3, 0.1078, 0.6032), abs=1e-4)


def test_patches_of_one_patient_count_less() -> None:
    hit = np.repeat([1, 0, 0, 1, 0, 0, 0, 0, 1, 0], 20)
    alone, together = clustered_share(hit), clustered_share(hit, np.repeat(np.arange(10), 20))
    assert together.value == alone.value == 0.3
    # Patients that agree in all their patches are 10 observations (x 10 / 9 in the variance), not 200.
    assert together.high - together.low > 3.5 * (alone.high - alone.low)


def test_a_share_of_none_counts_patients() -> None:
    assert clustered_share(np.zeros(400), np.repeat([1, 2, 3, 4], 100)).high > 0.5
    assert clustered_share(np.zeros(400)).high < 0.01


def test_a_least_design_effect_stands_in_where_none_can_be_seen() -> None:
    nobody, who = np.zeros(400), np.repeat([1, 2, 3, 4], 100)
    assert clustered_share(nobody, who, least_effect=4.0).high < clustered_share(nobody, who).high / 5
    hit, many = np.random.default_rng(0).random(400) < 0.1, np.arange(400) % 20
    assert clustered_share(hit, many, least_effect=9.0).high > clustered_share(hit, many).high


def test_the_design_effect_is_the_size_of_patients_that_agree_with_themselves() -> None:
    # And 5 / 4, since five patients estimate a variance.
    assert design_effect(np.repeat([1, 0, 0, 0, 1], 30), np.repeat(range(5), 30)) == pytest.approx(30 * 5 / 4)
    independent = np.random.default_rng(1).random(9000) < 0.3
    assert design_effect(independent, np.arange(9000) % 90) == pytest.approx(1, abs=0.3)


def test_undefined_is_nan() -> None:
    for hit, who in (([], []), ([1, 0], ["a", "a"]), ([1, 1], ["a", "b"])):
        assert np.isnan(design_effect(hit, who))
    assert np.isnan(clustered_share([])).all()
    assert np.isnan(clustered_share([1, 0], ["a", "a"])[1:]).all()
    with pytest.raises(RunError, match="one patient id"):
        clustered_share([1, 0], ["a"])


def test_the_interval_covers_what_it_claims() -> None:
    """25 patients of 5 to 200 patches, whose shares vary about 0.2."""
    rng = np.random.default_rng(1)
    covered, naive = 0, 0
    for _ in range(400):
        sizes = rng.integers(5, 200, 25)
        hit = rng.random(sizes.sum()) < np.repeat(rng.beta(2, 8, 25), sizes)
        _, low, high = clustered_share(hit, np.repeat(np.arange(25), sizes))
        covered += low <= 0.2 <= high
        _, low, high = clustered_share(hit)
        naive += low <= 0.2 <= high
    assert covered > 0.92 * 400
    assert naive < 0.7 * 400


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=60))
def test_the_share_is_inside_its_interval(rows: list[tuple[bool, int]]) -> None:
    value, low, high = clustered_share([hit for hit, _ in rows], [who for _, who in rows])
    assert np.isnan(low) or 0 <= low <= value <= high <= 1


def test_unknown_patients_are_patients_of_their_own() -> None:
    assert np.unique(patient_numbers(["", "a", "", "a"], 4)).size == 3
    assert patient_weights(["a", "a", "a", "b"], 4) == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2])
    assert patient_weights(["", ""], 2).tolist() == [1, 1]

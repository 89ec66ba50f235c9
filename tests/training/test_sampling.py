"""Balanced sampling: classes and patients fill the places of an epoch as they should, exactly and by key."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ductal.training.feature_cache import CachedFeed
from ductal.training.pipeline import TrainingFeed, epoch_order
from ductal.training.recipe import Augment
from ductal.training.sampling import MOST_DRAWS, Expected, draw_epoch, expected_draws

# Patient a has 6 patches without and 2 with IDC, b 20 and 0, c 2 and 10.
PATIENTS = np.array(["a"] * 8 + ["b"] * 20 + ["c"] * 12)
LABELS = np.array([0] * 6 + [1] * 2 + [0] * 20 + [0] * 2 + [1] * 10, np.int8)


def places(expected: Expected, patient: str, label: int) -> float:
    return float(expected.draws[(patient == PATIENTS) & (label == LABELS)].sum())


def test_patches_as_they_are_need_no_numbers() -> None:
    assert expected_draws("patches", LABELS, PATIENTS) is None


def test_classes_by_hand() -> None:
    found = expected_draws("classes", LABELS, PATIENTS)
    assert found is not None
    np.testing.assert_allclose(found.draws, np.where(LABELS == 1, 20 / 12, 20 / 28))


def test_patients_by_hand() -> None:
    found = expected_draws("patients", LABELS, PATIENTS)
    assert found is not None
    # Without IDC: 20 places for three patients; c can fill 2 x 4 of them, more than its third.
    assert [places(found, patient, 0) for patient in "abc"] == pytest.approx([20 / 3] * 3)
    # With IDC: 20 places for two; a can fill 8, so c fills the other 12.
    assert [places(found, patient, 1) for patient in "ac"] == pytest.approx([8, 12])


COHORTS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 1)), min_size=2, max_size=120
).filter(lambda rows: len({label for _, label in rows}) == 2)


@settings(max_examples=60, deadline=None)
@given(COHORTS, st.sampled_from(["classes", "patients"]), st.integers(0, 9))
def test_an_epoch_is_drawn_as_expected(rows: list[tuple[int, int]], sampling: str, epoch: int) -> None:
    patients, labels = np.array([str(who) for who, _ in rows]), np.array([label for _, label in rows])
    planned = expected_draws(sampling, labels, patients)  # type: ignore[arg-type]
    assert planned is not None
    expected = planned.draws
    n = len(rows)
    assert (expected > 0).all()
    most = max(MOST_DRAWS, *(n / 2 / (labels == label).sum() for label in (0, 1)))
    assert expected.max() <= most * (1 + 1e-9) or sampling == "classes"
    for label in (0, 1):
        assert expected[labels == label].sum() == pytest.approx(n / 2)
        if sampling == "patients":  # nobody has more than another who could take more
            each = {who: expected[(labels == label) & (patients == who)] for who in set(patients[labels == label])}
            open_ = [part.sum() for part in each.values() if part[0] < most * (1 - 1e-9)]
            assert np.ptp(open_) < 1e-6 if open_ else True
            assert all(part.sum() <= min(open_) + 1e-6 for part in each.values()) if open_ else True
    counts = np.bincount(draw_epoch(planned, 5, epoch), minlength=n)
    for label in (0, 1):
        assert abs(counts[labels == label].sum() - n / 2) < 1
    assert counts.sum() == n
    assert (abs(counts - expected) < 1 + 1e-6).all()


def test_the_draw_is_unbiased_and_keyed_by_seed_and_epoch() -> None:
    expected = expected_draws("patients", LABELS, PATIENTS)
    assert expected is not None
    drawn = [draw_epoch(expected, 1, epoch) for epoch in range(400)]
    mean = np.mean([np.bincount(one, minlength=len(LABELS)) for one in drawn], axis=0)
    np.testing.assert_allclose(mean, expected.draws, atol=0.12)
    np.testing.assert_array_equal(drawn[7], draw_epoch(expected, 1, 7))
    assert (draw_epoch(expected, 2, 7) != drawn[7]).any()
    assert len({one.tobytes() for one in drawn}) > 350


def test_a_patch_that_is_drawn_twice_is_augmented_twice() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 50, 50, 3), dtype=np.uint8)
    rows, labels = np.zeros(40, np.int64), LABELS
    expected = expected_draws("classes", labels, PATIENTS)
    feed = TrainingFeed(
        pixels, rows, labels, np.ones(40), augment=Augment(), batch_size=40, seed=1, expected=expected
    )
    patches, y, _ = next(feed.dataset().as_numpy_iterator())
    assert y.mean() == 0.5
    assert len({patch.tobytes() for patch in patches}) == 8  # all that D4 makes of one patch
    order = [chosen for chosen, _ in epoch_order(1, 0, 40, 7, expected=expected)]
    np.testing.assert_array_equal(np.concatenate(order)[14:], np.concatenate(
        [chosen for chosen, _ in epoch_order(1, 0, 40, 7, 2, expected)]
    ))  # fmt: skip


def test_stored_activations_are_drawn_in_the_same_way() -> None:
    features = np.stack(np.meshgrid(np.arange(3), np.arange(40), indexing="ij"), -1).astype(np.float16)
    expected = expected_draws("patients", LABELS, PATIENTS)
    feed = CachedFeed(tuple(features), LABELS, np.ones(40), batch_size=16, seed=2, expected=expected)
    x = np.concatenate([batch[0] for batch in feed.dataset().as_numpy_iterator()])
    patches = x[:, 1].astype(int)
    np.testing.assert_array_equal(np.sort(patches), draw_epoch(expected, 2, 0))
    repeated = [x[patches == patch, 0] for patch in np.unique(patches)]
    assert any(len(set(views)) > 1 for views in repeated)

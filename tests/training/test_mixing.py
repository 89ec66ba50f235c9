"""MixUp and CutMix: pixels, labels and weights of a mixed patch are those of its two parts by their shares."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ductal.training.mixing import MIXING_DRAWS, mix, mixing_draws
from ductal.training.pipeline import TrainingFeed
from ductal.training.recipe import Augment

B = 6
PATCHES = np.random.default_rng(0).integers(0, 256, (B, 50, 50, 3), dtype=np.uint8)
LABELS = np.array([[0], [1], [1], [0], [1], [0]], np.float32)
WEIGHTS = np.array([1, 2, 2, 1, 2, 1], np.float32)
BEFORE = np.roll(np.arange(B), 1)


def mixed(numbers: np.ndarray, weights: np.ndarray = WEIGHTS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    found = mix(tf.constant(PATCHES), tf.constant(LABELS), tf.constant(weights), tf.constant(numbers, tf.float32))
    return tuple(part.numpy() for part in found)


def numbers(share: float, cut: bool, place: tuple[float, float] = (0.5, 0.5)) -> np.ndarray:
    return np.tile(np.array([share, cut, *place], np.float32), (B, 1))


def test_mixup_by_hand() -> None:
    x, y, w = mixed(numbers(0.75, cut=False))
    exact = 0.75 * PATCHES + 0.25 * PATCHES[BEFORE].astype(float)
    assert abs(x - exact).max() <= 0.5
    np.testing.assert_allclose(w, 0.75 * WEIGHTS + 0.25 * WEIGHTS[BEFORE])
    # The second has label 1 and weight 2, the one before it 0 and 1.
    assert y[1, 0] == pytest.approx(0.75 * 2 / (0.75 * 2 + 0.25 * 1))
    assert y[2, 0] == 1.0
    assert (x.dtype, y.dtype, w.dtype) == (np.uint8, np.float32, np.float32)


def test_cutmix_by_hand() -> None:
    x, y, w = mixed(numbers(0.75, cut=True), np.ones(B, np.float32))  # a quarter of the area: 25 x 25, in the middle
    inside = np.zeros((50, 50), bool)
    inside[13:38, 13:38] = True
    assert inside.mean() == 0.25
    found = (x != PATCHES).any(axis=(0, 3))
    assert found[14:37, 14:37].all()
    assert found.sum() in (24 * 24, 25 * 25)
    kept = 1 - found.mean()
    np.testing.assert_array_equal(x[:, found], PATCHES[BEFORE][:, found])
    np.testing.assert_array_equal(x[:, ~found], PATCHES[:, ~found])
    np.testing.assert_allclose(y, kept * LABELS + (1 - kept) * LABELS[BEFORE], rtol=1e-6)
    np.testing.assert_allclose(w, 1.0, rtol=1e-6)


def test_a_rectangle_at_the_corner_counts_only_the_pixels_it_covers() -> None:
    x, y, _ = mixed(numbers(0.75, cut=True, place=(0.0, 0.0)), np.ones(B, np.float32))
    changed = (x != PATCHES).any(axis=(0, 3))
    assert changed.mean() == pytest.approx(1 / 16, abs=0.01)
    assert not changed[13:].any()
    assert not changed[:, 13:].any()
    np.testing.assert_allclose(y[1, 0], 1 - changed.mean(), rtol=1e-6)


def test_a_share_of_one_is_the_patch_itself() -> None:
    for cut in (False, True):
        x, y, w = mixed(numbers(1.0, cut=cut))
        np.testing.assert_array_equal(x, PATCHES)
        np.testing.assert_array_equal(y, LABELS)
        np.testing.assert_array_equal(w, WEIGHTS)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 99), st.sampled_from([(0.2, 0.0), (0.0, 1.0), (0.4, 1.0)]), st.integers(0, 1))
def test_the_loss_is_that_of_both_patches_by_share(epoch: int, alphas: tuple[float, float], smoothed: int) -> None:
    drawn = mixing_draws(7, epoch, B, *alphas)
    x, y, w = mixed(drawn)
    probs = np.random.default_rng(epoch).uniform(0.05, 0.95, (B, 1)).astype(np.float32)
    loss = keras.losses.BinaryCrossentropy(label_smoothing=0.1 * smoothed, reduction=None)

    def of(labels: np.ndarray) -> np.ndarray:
        return np.asarray(loss(labels, probs))

    ones = mixed(drawn, np.ones(B, np.float32))[1][:, 0]  # shares show in labels of weight 1
    share = np.where(LABELS[:, 0] == LABELS[BEFORE, 0], np.nan, np.where(LABELS[:, 0] == 1, ones, 1 - ones))
    both = share * WEIGHTS * of(LABELS) + (1 - share) * WEIGHTS[BEFORE] * of(LABELS[BEFORE])
    known = ~np.isnan(share)
    assert known.any()
    np.testing.assert_allclose((w * of(y))[known], both[known], rtol=2e-3)
    assert ((y >= 0) & (y <= 1)).all()
    assert (w > 0).all()
    assert (np.minimum(PATCHES, PATCHES[BEFORE]) <= x).all()
    assert (x <= np.maximum(PATCHES, PATCHES[BEFORE])).all()


@settings(max_examples=30, deadline=None)
@given(st.floats(0.0, 10.0), st.floats(0.0, 10.0), st.integers(0, 50))
def test_numbers_are_keyed_by_seed_and_epoch_and_within_bounds(mixup: float, cutmix: float, epoch: int) -> None:
    found = mixing_draws(1, epoch, 40, mixup, cutmix)
    assert (found.shape, found.dtype) == ((40, MIXING_DRAWS), np.float32)
    assert ((found >= 0) & (found <= 1)).all()
    np.testing.assert_array_equal(found, mixing_draws(1, epoch, 40, mixup, cutmix))
    for other in (mixing_draws(2, epoch, 40, mixup, cutmix), mixing_draws(1, epoch + 1, 40, mixup, cutmix)):
        assert (other[:, 2:] != found[:, 2:]).mean() > 0.9
    if not (mixup and cutmix):
        assert (found[:, 1] == float(bool(cutmix))).all()


def test_shares_have_the_beta_distribution_and_both_kinds_are_as_likely() -> None:
    found = mixing_draws(3, 0, 20_000, 0.4, 2.0)
    assert found[:, 1].mean() == pytest.approx(0.5, abs=0.02)
    for kind, alpha in ((0, 0.4), (1, 2.0)):
        share = found[found[:, 1] == kind, 0]
        assert share.mean() == pytest.approx(0.5, abs=0.02)
        assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), abs=0.01)


def feed(**settings: float) -> TrainingFeed:
    rows = np.arange(B)
    labels = LABELS[:, 0].astype(np.int8)
    return TrainingFeed(
        PATCHES, rows, labels, WEIGHTS, augment=Augment(d4=False), batch_size=4, seed=1, **settings
    )


def test_batches_of_a_feed_are_mixed_and_a_later_start_gives_the_same() -> None:
    plain, source = (feed(**alphas) for alphas in ({}, {"mixup": 1.0, "cutmix": 1.0}))
    for each in (plain, source):
        each.epoch = 3
    whole = [[part.numpy() for part in batch] for batch in source.dataset()]
    assert [len(batch[0]) for batch in whole] == [4, 2]
    assert all((a != b[0]).any() for (a, *_), b in zip(whole, plain.dataset().as_numpy_iterator(), strict=True))
    rest = [[part.numpy() for part in batch] for batch in source.dataset(skip=1)]
    assert [part.tobytes() for part in rest[0]] == [part.tobytes() for part in whole[1]]


def test_a_last_batch_of_one_patch_stays_as_it_is() -> None:
    one = [tf.constant(part[:1]) for part in (PATCHES, LABELS, WEIGHTS)]
    for found, given_ in zip(mix(*one, tf.constant(numbers(0.3, cut=False)[:1])), one, strict=True):
        np.testing.assert_allclose(found.numpy(), given_.numpy(), rtol=1e-6)

"""Augmentation: D4 is exact, settings of zero change nothing, and every draw can be repeated."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ductal.inference.predictor import d4_views
from ductal.training.augment import DRAWS, draws, make_augment
from ductal.training.recipe import Augment

PATCHES = np.random.default_rng(2).integers(0, 256, (64, 50, 50, 3), dtype=np.uint8)
NUMBERS = draws(1, 0, 64)


def augmented(patches: np.ndarray = PATCHES, numbers: np.ndarray = NUMBERS, **settings: float) -> np.ndarray:
    augment = make_augment(Augment.model_validate({"d4": False} | settings))
    result = augment(tf.constant(patches), tf.constant(numbers))
    assert result.dtype == tf.uint8
    return result.numpy()


def test_d4_alone_is_an_exact_permutation_and_all_eight_occur() -> None:
    found = augmented(d4=True)
    views = np.stack(d4_views(PATCHES))  # (8, n, 50, 50, 3)
    same = (views == found).all(axis=(2, 3, 4))
    assert (same.sum(axis=0) == 1).all()
    assert same.any(axis=1).all()


def test_the_eight_views_are_the_symmetries_of_the_square() -> None:
    views = d4_views(PATCHES[:1])
    assert len({view.tobytes() for view in views}) == 8
    twice = [again.tobytes() for view in views for again in d4_views(view)]
    assert set(twice) == {view.tobytes() for view in views}


def test_d4_is_uniform() -> None:
    corner = np.zeros((4000, 2, 2, 3), np.uint8)
    corner[:, 0, 0], corner[:, 0, 1] = 1, 2
    found = augmented(corner, draws(0, 0, 4000), d4=True)[..., 0].reshape(4000, -1)
    counts = np.unique(found, axis=0, return_counts=True)[1]
    assert len(counts) == 8
    assert (abs(counts - 500) < 100).all()


def test_nothing_asked_nothing_changed() -> None:
    np.testing.assert_array_equal(augmented(), PATCHES)


@pytest.mark.parametrize("name", ["rotation_degrees", "zoom", "shift", "stain"])
def test_centred_draws_leave_a_patch_as_it_is_and_others_change_it(name: str) -> None:
    strength = {"rotation_degrees": 15.0}.get(name, 0.1)
    centred = np.full((64, DRAWS), 0.5, np.float32)
    assert abs(augmented(numbers=centred, **{name: strength}).astype(int) - PATCHES).max() <= 1
    changed = (augmented(**{name: strength}) != PATCHES).any(axis=(1, 2, 3))
    assert changed.all()


def test_a_patch_is_augmented_the_same_in_any_batch() -> None:
    settings = {"d4": True, "rotation_degrees": 15.0, "zoom": 0.1, "shift": 0.06, "stain": 0.1}
    whole = augmented(**settings)
    order = np.random.default_rng(0).permutation(64)[:7]
    alone = augmented(PATCHES[order], NUMBERS[order], **settings)
    # Products of matrices are summed in another order for another batch size: one level of 255 at most.
    assert abs(alone.astype(int) - whole[order]).max() <= 1


def test_draws_are_keyed_by_seed_epoch_and_patch() -> None:
    first = draws(1, 0, 64)
    assert first.shape == (64, DRAWS)
    assert first.dtype == np.float32
    assert ((first >= 0) & (first < 1)).all()
    np.testing.assert_array_equal(first, draws(1, 0, 64))
    np.testing.assert_array_equal(first[:10], draws(1, 0, 10))
    for other in (draws(2, 0, 64), draws(1, 1, 64)):
        assert (other != first).mean() > 0.99
    assert len(np.unique(first, axis=0)) == 64


def test_a_constant_patch_stays_constant_under_geometry() -> None:
    flat = np.full((64, 50, 50, 3), 137, np.uint8)
    found = augmented(flat, d4=True, rotation_degrees=180.0, zoom=0.5, shift=0.5)
    np.testing.assert_array_equal(found, flat)


def test_small_rotation_keeps_the_mean_colour() -> None:
    smooth = np.linspace(60, 200, 50)[None, :, None, None] * np.ones((64, 1, 50, 3))
    found = augmented(smooth.astype(np.uint8), rotation_degrees=15.0)
    assert abs(found.mean(axis=(1, 2, 3)) - smooth.astype(np.uint8).mean()).max() < 2
    assert abs(found[:, 25, 25].astype(int) - 130).max() < 5


def test_shift_moves_by_the_share_of_the_side_that_was_asked() -> None:
    dot = np.zeros((2, 50, 50, 3), np.uint8)
    dot[:, 25, 25] = 255
    numbers = np.full((2, DRAWS), 0.5, np.float32)
    numbers[0, 3], numbers[1, 4] = 1.0, 0.0  # x by +1 strength, y by -1
    found = augmented(dot, numbers, shift=0.1)
    assert np.argwhere(found[0, :, :, 0] > 200).tolist() == [[25, 20]]
    assert np.argwhere(found[1, :, :, 0] > 200).tolist() == [[30, 25]]


def test_stain_jitter_leaves_white_nearly_white() -> None:
    white = np.full((64, 50, 50, 3), 255, np.uint8)
    found = augmented(white, stain=0.1)
    assert found.shape == white.shape
    assert found.min() >= 245


def test_stain_jitter_changes_depth_of_colour_by_about_its_strength() -> None:
    purple = np.broadcast_to(np.array([140, 80, 150], np.uint8), (64, 50, 50, 3))
    found = augmented(np.ascontiguousarray(purple), stain=0.1)
    density = -np.log((found[:, 0, 0].astype(float) + 1) / 256)
    ratio = density / -np.log((purple[:, 0, 0].astype(float) + 1) / 256)
    assert 0.8 < ratio.min() < 0.97
    assert 1.03 < ratio.max() < 1.2
    assert (found == found[:, :1, :1]).all()  # one change for the whole patch

"""RandAugment: as many operations as asked for, none of a size that was not, and each does what it is called."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageFilter

from ductal.data.stain import STAINS
from ductal.training.augment import DRAWS, draws, make_augment
from ductal.training.randaugment import MORE_DRAWS, OPERATIONS, adjust_colours, changes
from ductal.training.recipe import Augment, RandAugment

NAMES = list(OPERATIONS)
PATCHES = np.random.default_rng(2).integers(30, 226, (16, 50, 50, 3), dtype=np.uint8)
FINE = np.linspace(80, 220, 50)[None, :, None, None] * np.ones((1, 1, 50, 3))  # rows get brighter downwards


def only(name: str, size: float, n: int = 1) -> np.ndarray:
    """Numbers that draw the operation `name` alone, at this share of its largest size."""
    numbers = np.zeros((n, MORE_DRAWS), np.float32)
    numbers[:, NAMES.index(name)] = 0.9
    numbers[:, len(NAMES) :] = (size + 1) / 2
    return numbers


def augmented(patches: np.ndarray, more: np.ndarray, operations: int = 1, strength: float = 1.0) -> np.ndarray:
    chosen = Augment(d4=False, randaugment=RandAugment(operations=operations, strength=strength))
    numbers = np.concatenate([np.full((len(patches), DRAWS), 0.5, np.float32), more], axis=1)
    return make_augment(chosen)(tf.constant(patches.astype(np.uint8)), tf.constant(numbers)).numpy()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.floats(0.01, 1.0), st.integers(0, 99))
def test_so_many_operations_are_drawn_and_none_goes_too_far(operations: int, strength: float, epoch: int) -> None:
    chosen = Augment(randaugment=RandAugment(operations=operations, strength=strength))
    numbers = draws(3, epoch, 20, chosen)[:, DRAWS:]
    found = changes(tf.constant(numbers), RandAugment(operations=operations, strength=strength))
    sizes = np.stack([found[name].numpy() for name in NAMES], axis=1)
    assert (np.count_nonzero(sizes, axis=1) == operations).all()
    assert (abs(sizes) <= strength * np.array(list(OPERATIONS.values())) * (1 + 1e-6)).all()


def test_each_operation_is_drawn_as_often_as_the_others_and_in_both_directions() -> None:
    numbers = draws(1, 0, 9000, Augment(randaugment=RandAugment()))[:, DRAWS:]
    found = changes(tf.constant(numbers), RandAugment(operations=2))
    for name in NAMES:
        size = found[name].numpy()
        assert (size != 0).mean() == pytest.approx(2 / 9, abs=0.02)
        assert abs(size.mean()) < 0.02


def test_the_other_numbers_are_those_of_a_recipe_without_it() -> None:
    with_it = draws(5, 2, 30, Augment(randaugment=RandAugment()))
    assert with_it.shape == (30, DRAWS + MORE_DRAWS)
    np.testing.assert_array_equal(with_it[:, :DRAWS], draws(5, 2, 30))
    assert not np.intersect1d(with_it[:, :DRAWS], with_it[:, DRAWS:]).size > 5


def test_operations_of_size_nothing_change_nothing() -> None:
    neutral = np.full((16, MORE_DRAWS), 0.5, np.float32)
    assert abs(augmented(PATCHES, neutral, operations=9).astype(int) - PATCHES).max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_every_operation_changes_a_patch_and_the_other_direction_otherwise(name: str) -> None:
    one, other = (augmented(PATCHES, only(name, size, 16)) for size in (0.8, -0.8))
    for found, against in ((one, PATCHES), (other, PATCHES), (one, other)):
        assert (found != against).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize(
    ("name", "enhance"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
@pytest.mark.parametrize("size", [-0.5, 0.4])
def test_colours_change_as_pillow_changes_them(name: str, enhance: type, size: float) -> None:
    expected = [np.asarray(enhance(Image.fromarray(patch)).enhance(1 + size * OPERATIONS[name])) for patch in PATCHES]
    found = augmented(PATCHES, only(name, size, 16))
    assert abs(found.astype(int) - np.stack(expected)).max() <= 2  # Pillow rounds its greys


def test_sharpness_at_its_end_is_pillows_smoothing() -> None:
    sizes = {name: tf.zeros(16) for name in NAMES} | {"sharpness": -tf.ones(16)}
    found = adjust_colours(tf.constant(PATCHES, tf.float32), sizes).numpy()
    expected = np.stack([np.asarray(Image.fromarray(patch).filter(ImageFilter.SMOOTH)) for patch in PATCHES])
    assert abs(found - expected)[:, 1:-1, 1:-1].max() <= 1  # Pillow leaves the border as it is


@pytest.mark.parametrize(("name", "stain"), [("haematoxylin", 0), ("eosin", 1)])
def test_a_stain_gets_deeper_and_the_other_stays(name: str, stain: int) -> None:
    depth = np.array([0.4, 0.3, 0.0])
    patch = np.broadcast_to(256 * np.exp(-depth @ STAINS) - 1, (1, 50, 50, 3)).round()
    found = augmented(patch, only(name, 0.5))[0, 0, 0].astype(float)
    after = -np.log((found + 1) / 256) @ np.linalg.inv(STAINS)
    expected = depth.copy()
    expected[stain] *= 1 + 0.5 * OPERATIONS[name]
    np.testing.assert_allclose(after, expected, atol=0.02)


def test_zoom_rotation_and_shear_move_pixels_as_they_are_called() -> None:
    slope = (FINE[0, 2, 0, 0] - FINE[0, 0, 0, 0]) / 2
    inside = slice(18, 32)  # no border comes in here
    gradient = {}
    for name in ("zoom", "rotation", "shear"):
        found = augmented(FINE, only(name, 0.5))[0, inside, inside, 0].astype(float)
        gradient[name] = (np.diff(found, axis=0).mean() / slope, np.diff(found, axis=1).mean() / slope)
    angle = 0.5 * OPERATIONS["rotation"]
    assert gradient["zoom"] == pytest.approx((np.exp(0.5 * OPERATIONS["zoom"]), 0.0), abs=0.05)
    assert gradient["rotation"] == pytest.approx((np.cos(angle), np.sin(angle)), abs=0.05)
    assert gradient["shear"] == pytest.approx((1.0, 0.0), abs=0.05)  # along x, which this patch does not see
    turned = augmented(FINE.transpose(0, 2, 1, 3), only("shear", 0.5))[0, inside, inside, 0].astype(float)
    shift = 0.5 * OPERATIONS["shear"]
    assert (np.diff(turned, axis=0).mean() / slope, np.diff(turned, axis=1).mean() / slope) == pytest.approx(
        (shift, 1.0), abs=0.05
    )

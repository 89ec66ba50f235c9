"""Means over neighbours: counted by hand, with missing ones, and the same however a slide lies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ductal.context.neighbourhood import ring_means, window_means
from ductal.errors import DataError
from ductal.slides.grid import TileGrid

#  1  2  .  .
#  .  4  .  .      dots: no patch
#  .  .  .  8
GRID = TileGrid(np.array([0, 1, 1, 3]), np.array([0, 0, 1, 2]), (3, 4))
VALUES = np.array([1.0, 2.0, 4.0, 8.0])


def test_means_are_over_the_patches_that_are_there() -> None:
    np.testing.assert_allclose(window_means(GRID, VALUES, 3), [7 / 3, 7 / 3, 7 / 3, 8])
    np.testing.assert_allclose(window_means(GRID, VALUES, 5), [7 / 3, 15 / 4, 15 / 4, 14 / 3])
    np.testing.assert_allclose(window_means(GRID, VALUES, 1), VALUES)
    np.testing.assert_allclose(window_means(GRID, VALUES, 9), np.full(4, 15 / 4))


def test_a_patch_without_a_value_is_missing_for_its_neighbours() -> None:
    found = window_means(GRID, np.array([1.0, np.nan, 4.0, np.nan]), 3)
    np.testing.assert_allclose(found, [2.5, 2.5, 2.5, np.nan])


def test_vectors_are_averaged_one_by_one() -> None:
    both = np.stack([VALUES, -VALUES], axis=1)
    found = window_means(GRID, both, 3)
    np.testing.assert_allclose(found[:, 0], window_means(GRID, VALUES, 3))
    np.testing.assert_allclose(found[:, 1], -found[:, 0])


def test_rings_leave_the_inner_patches_out() -> None:
    means, shares = ring_means(GRID, VALUES[:, None], 2)
    np.testing.assert_allclose(means[0, :, 0], [3, 2.5, 1.5, 8])  # the last has no neighbour: itself
    np.testing.assert_allclose(shares[0], [2 / 8, 2 / 8, 2 / 8, 0])
    np.testing.assert_allclose(means[1, :, 0], [1, 8, 8, 3])
    np.testing.assert_allclose(shares[1], [0, 1 / 16, 1 / 16, 2 / 16])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 5]))
def test_turning_and_flipping_a_slide_changes_nothing(seed: int, window: int) -> None:
    rng = np.random.default_rng(seed)
    there = rng.random((5, 7)) < 0.6
    there[0, 0] = True
    values = np.where(there, rng.normal(size=there.shape), np.nan)

    def means(field: np.ndarray) -> np.ndarray:
        rows, columns = np.nonzero(np.isfinite(field))
        grid = TileGrid(columns, rows, field.shape)
        own = field[rows, columns]
        rings, shares = ring_means(grid, own[:, None], 2)
        parts = [window_means(grid, own, window), *rings[:, :, 0], *shares]
        return np.stack([grid.raster(part) for part in parts], axis=-1)

    np.testing.assert_allclose(means(np.rot90(values)[:, ::-1]), np.rot90(means(values))[:, ::-1], atol=1e-12)


@pytest.mark.parametrize(("values", "window"), [(VALUES, 4), (VALUES, 0), (VALUES[:3], 3)])
def test_what_cannot_be_averaged_is_refused(values: np.ndarray, window: int) -> None:
    with pytest.raises(DataError):
        window_means(GRID, values, window)

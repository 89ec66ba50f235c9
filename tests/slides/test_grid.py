"""The grid of a slide's patches."""

import numpy as np
import pytest

from ductal.errors import DataError
from ductal.slides.grid import TileGrid


def test_patches_come_to_lie_where_their_corners_say() -> None:
    grid = TileGrid.from_pixels(np.array([1350, 1400, 1350]), np.array([1100, 1100, 1200]))
    assert grid.shape == (3, 2)
    raster = grid.raster(np.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(raster, [[1, 2], [np.nan, np.nan], [3, np.nan]])
    assert grid.raster(np.zeros((3, 50, 50, 3), np.uint8), 255).shape == (3, 2, 50, 50, 3)


@pytest.mark.parametrize(("x", "y"), [([-1, 50], [0, 0]), ([0, 0], [50, 50]), ([], [])])
def test_unknown_or_double_places_are_refused(x: list[int], y: list[int]) -> None:
    with pytest.raises(DataError):
        TileGrid.from_pixels(np.array(x, np.int64), np.array(y, np.int64))

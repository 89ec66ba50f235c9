"""Outlines of masks: areas, holes, corners that touch; and GeoJSON that QuPath imports."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ductal.slides.reader import open_slide
from ductal.slides.regions import find_regions, signed_area, to_geojson
from ductal.slides.tiling import Tiling


def inside(ring: list[tuple[int, int]], x: float, y: float) -> bool:
    """Whether a point lies in a ring, by counting sides to its right."""
    crossings = 0
    for (x0, y0), (_, y1) in pairwise(ring):
        crossings += x0 > x and min(y0, y1) < y < max(y0, y1)
    return crossings % 2 == 1


@settings(max_examples=150)
@given(arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7))))
def test_outlines_enclose_the_tiles_and_nothing_else(mask: np.ndarray) -> None:
    regions = find_regions(mask)
    drawn = np.zeros(mask.shape, int)
    for region in regions:
        rings = [region.outer, *region.holes]
        assert signed_area(region.outer) > 0
        assert all(signed_area(hole) < 0 for hole in region.holes)
        assert sum(signed_area(ring) for ring in rings) == len(region.rows)
        for ring in rings:
            assert ring[0] == ring[-1]
            steps = np.diff(ring, axis=0)
            assert ((steps != 0).sum(axis=1) == 1).all()
            turns = np.concatenate([steps, steps[:1]])
            assert ((turns[:-1] * turns[1:]).sum(axis=1) == 0).all()  # no corner on a straight side
            assert len(set(ring[:-1])) == len(ring) - 1  # never through a corner twice
        for row, column in np.ndindex(mask.shape):
            within = [inside(ring, column + 0.5, row + 0.5) for ring in rings]
            drawn[row, column] += within[0] and not any(within[1:])
    np.testing.assert_array_equal(drawn, mask)
    sizes = [len(region.rows) for region in regions]
    assert sizes == sorted(sizes, reverse=True)


def test_a_ring_has_a_hole() -> None:
    mask = np.ones((5, 5), bool)
    mask[1:4, 1:4] = False
    mask[2, 2] = True
    ring, island = find_regions(mask)
    assert sorted(ring.outer[:-1]) == [(0, 0), (0, 5), (5, 0), (5, 5)]
    assert [sorted(hole[:-1]) for hole in ring.holes] == [[(1, 1), (1, 4), (4, 1), (4, 4)]]
    assert sorted(island.outer[:-1]) == [(2, 2), (2, 3), (3, 2), (3, 3)]


def test_nothing_gives_no_region() -> None:
    assert find_regions(np.zeros((4, 4), bool)) == []


def test_geojson_of_a_known_square(square: Path) -> None:
    mask = np.zeros((5, 6), bool)
    mask[1:3, 2:4] = True
    mask[4, 5] = True
    probs = np.where(mask, 0.9, 0.1)
    probs[1, 2] = 0.7
    with open_slide(square) as slide:
        tiling = Tiling(slide, 4.0)
        found = to_geojson(find_regions(mask), tiling, probs, "x")
        again = to_geojson(find_regions(mask), tiling, probs, "x")
    assert found == again
    assert found["type"] == "FeatureCollection"
    first, second = found["features"]
    assert (first["type"], first["geometry"]["type"]) == ("Feature", "Polygon")
    (ring,) = first["geometry"]["coordinates"]
    np.testing.assert_allclose(sorted(ring[:-1]), [[800, 400], [800, 1200], [1600, 400], [1600, 1200]], atol=0.05)
    assert ring[0] == ring[-1]
    properties = first["properties"]
    assert properties["objectType"] == "annotation"
    assert properties["classification"] == {"name": "Tumor", "color": [200, 0, 0]}
    measurements = properties["measurements"]
    assert measurements["area_um2"] == pytest.approx(400 * 400, rel=1e-3)
    assert (measurements["mean_probability"], measurements["tiles"]) == (0.85, 4)
    assert first["id"] != second["id"]


def test_regions_end_where_the_slide_ends(square: Path) -> None:
    with open_slide(square) as slide:
        tiling = Tiling(slide, 4.7)  # 470 px: the last tiles reach over the edge
        mask = np.ones(tiling.shape, bool)
        found = to_geojson(find_regions(mask), tiling, mask.astype(float), "x")
    (ring,) = found["features"][0]["geometry"]["coordinates"]
    assert sorted(ring[:-1]) == [[0, 0], [0, 2000], [2400, 0], [2400, 2000]]
    assert found["features"][0]["properties"]["measurements"]["area_um2"] == pytest.approx(1.2e6, rel=1e-3)

"""Outlines of neighbouring tiles, as GeoJSON that QuPath imports.

QuPath reads a FeatureCollection whose features carry `objectType`, `classification` and `measurements`, with
coordinates in pixels of the full resolution from the upper left corner. The geometry follows RFC 7946: closed rings,
the outer one turning from x towards y, holes the other way.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from ductal.slides.tiling import Tiling

CLASS_NAME, CLASS_COLOUR = "Tumor", [200, 0, 0]  # QuPath's own class of that name, and its colour
Corner = tuple[int, int]  # (column, row) of a corner of the grid
Ring = list[Corner]  # closed: the last corner is the first


@dataclass(frozen=True)
class Region:
    """Tiles that touch by their sides.

    Attributes:
        outer: outline, in corners of the grid.
        holes: outlines of what is not part of it.
        rows: int64 (n,) of its tiles.
        columns: int64 (n,).
    """

    outer: Ring
    holes: list[Ring]
    rows: np.ndarray
    columns: np.ndarray


def find_regions(mask: np.ndarray) -> list[Region]:
    """The regions of a mask, bool (rows, columns), the largest first."""
    labels, _ = ndimage.label(mask)  # by sides, not by corners
    found = []
    for number, part in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[part] == number
        top, left = part[0].start, part[1].start
        rings = [[(x + left, y + top) for x, y in ring] for ring in _rings(inside)]
        outer = max(rings, key=signed_area)  # holes have negative areas
        rows, columns = np.nonzero(inside)
        found.append(Region(outer, [ring for ring in rings if ring is not outer], rows + top, columns + left))
    return sorted(found, key=lambda region: -len(region.rows))


def signed_area(ring: list[Any]) -> float:
    """Area of a closed ring: positive where it turns from x towards y."""
    x, y = np.asarray(ring, np.float64).T
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2)


def _rings(mask: np.ndarray) -> list[Ring]:
    """Outlines of a mask, the mask on the right hand in a picture whose y points down, straight runs as one."""
    ahead = _sides(mask)
    rings = []
    while ahead:
        start = corner = next(iter(ahead))
        ring, before = [corner], None
        while True:
            after = _turn(ahead[corner], before)
            ahead[corner].remove(after)
            if not ahead[corner]:
                del ahead[corner]
            if before is not None and after == before:
                ring.pop()
            corner, before = (corner[0] + after[0], corner[1] + after[1]), after
            ring.append(corner)
            if corner == start:
                break
        rings.append(_from_a_bend(ring))
    return rings


def _sides(mask: np.ndarray) -> dict[Corner, list[Corner]]:
    """Directions that lead on from each corner along the sides between mask and no mask."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    ahead: dict[Corner, list[Corner]] = {}
    for outside, shift, step in (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),  # above: to the right
        (padded[1:-1, 2:], (1, 0), (0, 1)),  # on the right: down
        (padded[2:, 1:-1], (1, 1), (-1, 0)),  # below: to the left
        (padded[1:-1, :-2], (0, 1), (0, -1)),  # on the left: up
    ):
        for row, column in np.argwhere(inside & ~outside).tolist():
            ahead.setdefault((column + shift[0], row + shift[1]), []).append(step)
    return ahead


def _turn(ways: list[Corner], before: Corner | None) -> Corner:
    """The way to go on: to the left where two tiles touch by a corner, so that no ring meets a corner twice."""
    if before is None or len(ways) == 1:
        return ways[0]
    left = (before[1], -before[0])
    return left if left in ways else ways[0]


def _from_a_bend(ring: Ring) -> Ring:
    """The ring without its first corner where that lies on a straight side."""
    (x0, y0), (x1, y1), (x2, y2) = ring[-2], ring[0], ring[1]
    return [*ring[1:-1], ring[1]] if (x1 - x0) * (y2 - y1) == (y1 - y0) * (x2 - x1) else ring


def to_geojson(regions: list[Region], tiling: Tiling, probs: np.ndarray, identity: str) -> dict[str, Any]:
    """A FeatureCollection of annotations.

    Args:
        regions: of the tiling's grid.
        tiling: gives coordinates and areas.
        probs: float (rows, columns), probability of IDC.
        identity: makes the annotations' ids, so that the same analysis always writes the same file.
    """
    features = []
    for number, region in enumerate(regions, start=1):
        rings = [_in_pixels(ring, tiling) for ring in (region.outer, *region.holes)]
        area_um2 = sum(signed_area(ring) for ring in rings) * tiling.slide.mpp**2
        values = probs[region.rows, region.columns]
        features.append(
            {
                "type": "Feature",
                "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{identity} {number}")),
                "geometry": {"type": "Polygon", "coordinates": rings},
                "properties": {
                    "objectType": "annotation",
                    "name": f"IDC region {number}",
                    "classification": {"name": CLASS_NAME, "color": CLASS_COLOUR},
                    "isLocked": False,
                    "measurements": {
                        "mean_probability": round(float(values.mean()), 4),
                        "max_probability": round(float(values.max()), 4),
                        "area_um2": round(area_um2, 1),
                        "tiles": len(values),
                    },
                },
            }
        )
    return {"type": "FeatureCollection", "features": features}


def _in_pixels(ring: Ring, tiling: Tiling) -> list[list[float]]:
    """Corners in full-resolution pixels, not beyond the slide's edge."""
    width, height = tiling.slide.size
    corners = [(min(x * tiling.side_px, width), min(y * tiling.side_px, height)) for x, y in ring]
    return [[round(x, 2), round(y, 2)] for x, y in corners]

"""The files of a finished job, and its regions at another threshold."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ductal.slides.outputs import HEATMAP, REGIONS, SUMMARY
from ductal.slides.reader import Slide
from ductal.slides.regions import find_regions, to_geojson
from ductal.slides.tiling import TILE, Tiling
from ductal.web.job_child import GRID, TABLE, THUMBNAIL

GEOJSON = "application/geo+json"
# Name and media type of what can be fetched; no other name is ever joined to a path.
RESULTS = {
    THUMBNAIL: "image/png",
    HEATMAP: "image/png",
    TABLE: "text/csv",
    REGIONS: GEOJSON,
    SUMMARY: "application/json",
    GRID: "application/json",
}


@dataclass
class _Closed:
    """Sizes of a slide whose pixels are no longer there."""

    sizes: list[tuple[int, int]]
    downsamples: list[float] = field(default_factory=lambda: [1.0])

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image.Image:  # noqa: ARG002
        """See `Source.read`."""
        raise AssertionError("the slide was deleted when its job ended")

    def close(self) -> None:
        """See `Source.close`."""


def regions_at(folder: Path, threshold: float, identity: str) -> bytes:
    """The regions of a finished job at and above another threshold, as GeoJSON.

    Args:
        folder: of its results.
        threshold: probability.
        identity: of the analysis, from its summary.
    """
    grid: dict[str, Any] = json.loads((folder / GRID).read_text(encoding="utf-8"))
    found = [np.nan if one is None else one for one in grid["probabilities"]]
    probs = np.array(found, np.float32).reshape(grid["rows"], grid["columns"])
    source = _Closed([(grid["width_px"], grid["height_px"])])
    slide = Slide(Path(), grid["mpp"], None, "", source)
    tiling = Tiling(slide, grid["tile_px"] * grid["mpp"] / TILE)
    regions = find_regions(np.nan_to_num(probs, nan=-1.0) >= threshold)
    collection = to_geojson(regions, tiling, probs, f"{identity} {threshold}")
    return json.dumps(collection, allow_nan=False).encode()

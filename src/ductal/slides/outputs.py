"""The files of a slide's folder: tables, grid of probabilities, regions, summary, and a page that explains them."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ductal.errors import DataError
from ductal.record import to_json
from ductal.slides.judging import Judged
from ductal.slides.regions import find_regions, to_geojson
from ductal.slides.tiling import Tiling
from ductal.slides.tissue import Gate

SUMMARY, HEATMAP, REGIONS, GRID = "summary.json", "heatmap.png", "regions.geojson", "probabilities.ome.tif"
_README = """{slide}: where a network finds invasive ductal carcinoma (IDC). Research use only; no diagnosis.

{heatmap:<26}the slide, and the probability of IDC over it
{regions:<26}regions above the threshold, for QuPath: drag the file onto the open slide
tiles.csv, tiles.parquet  every tile: place in pixels of the full resolution, gate, share of tissue, probability
{grid:<26}probabilities as an image, a pixel a tile, with its size in um; nan where none was computed
{summary:<26}areas, counts, flags, and what it was computed with

Gates: tissue was judged; glass, pen, fold and blur were not, and are never called tumour.
"""


def tile_table(judged: Judged, tiling: Tiling, threshold: float) -> pd.DataFrame:
    """Every tile but glass: place in the grid and in full-resolution pixels, gate, tissue share, probability, tumour.

    `probability` is nan and `tumour` False where the gate is not "tissue".
    """
    rows, columns = np.nonzero(judged.gates != Gate.glass)
    boxes = tiling.boxes(rows, columns)
    probs = judged.probs[rows, columns]
    names = np.array([gate.name for gate in Gate])
    return pd.DataFrame(
        {
            "column": columns,
            "row": rows,
            **{name: np.round(boxes[:, at], 2) for at, name in enumerate("xywh")},
            "gate": names[judged.gates[rows, columns]],
            "tissue_share": np.round(judged.shares[rows, columns].astype(np.float64), 4),
            "probability": probs,
            "tumour": np.nan_to_num(probs, nan=-1.0) >= threshold,
        }
    )


def measure(judged: Judged, tiling: Tiling, threshold: float) -> dict[str, Any]:
    """Areas in mm2, counts and means of a slide.

    Tumour area is that of whole tiles, as the regions show it. The share compares the tissue of tumour tiles with
    that of all tiles but glass and pen.
    """
    rows, columns = np.indices(judged.gates.shape)
    boxes = tiling.boxes(rows.ravel(), columns.ravel())
    mm2 = (boxes[:, 2] * boxes[:, 3]).reshape(judged.gates.shape) * (tiling.slide.mpp / 1000.0) ** 2
    tissue = mm2 * judged.shares * ~np.isin(judged.gates, (Gate.glass, Gate.pen))
    called = judged.gates == Gate.tissue
    probs = judged.probs[called].astype(np.float64)
    tumour = np.nan_to_num(judged.probs, nan=-1.0) >= threshold
    return {
        "tumour_area_mm2": round(float(mm2[tumour].sum()), 4),
        "tumour_tissue_mm2": round(float(tissue[tumour].sum()), 4),
        "tissue_area_mm2": round(float(tissue.sum()), 4),
        "judged_tissue_mm2": round(float(tissue[called].sum()), 4),
        "tumour_share_of_tissue": round(float(tissue[tumour].sum() / max(tissue.sum(), 1e-12)), 4),
        "tumour_tiles": int(tumour.sum()),
        "tiles": {gate.name: int((judged.gates == gate).sum()) for gate in Gate},
        "mean_probability": round(float(probs.mean()), 4),
        "mean_confidence": round(float(np.maximum(probs, 1 - probs).mean()), 4),
    }


def write_grid(path: Path, judged: Judged, tiling: Tiling, name: str, identity: str) -> None:
    """The probabilities as an OME-TIFF, float32 (rows, columns): a pixel is a tile, with its size and place in um.

    The file's UUID follows from `identity`, so that equal results are equal files.
    """
    tifffile = import_tifffile()
    middle = tiling.tile_um / 2  # OME gives the place of a pixel by its middle
    tifffile.imwrite(
        path,
        judged.probs,
        ome=True,
        compression="zlib",
        photometric="minisblack",
        resolution=(1e4 / tiling.tile_um,) * 2,
        resolutionunit="CENTIMETER",
        metadata={
            "axes": "YX",
            # tifffile would take the time and the address of the machine.
            "UUID": str(uuid.uuid5(uuid.NAMESPACE_OID, identity)),
            "Name": f"probability of IDC, {name}",
            "PhysicalSizeX": tiling.tile_um,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": tiling.tile_um,
            "PhysicalSizeYUnit": "µm",
            "Channel": {"Name": ["probability of IDC"]},
            "Plane": {
                "PositionX": [middle], "PositionXUnit": ["µm"], "PositionY": [middle], "PositionYUnit": ["µm"],
            },
        },
    )  # fmt: skip


def import_tifffile() -> Any:
    """The library, or an error that says how to get it."""
    try:
        import tifffile
    except ImportError as error:
        raise DataError("tifffile is not installed. Install it: pip install 'ductal[slides]'.") from error
    return tifffile


def write_folder(
    folder: Path, judged: Judged, tiling: Tiling, overview: np.ndarray, summary: dict[str, Any]
) -> None:
    """Write everything into an existing, empty folder."""
    from ductal.slides.heatmap import draw_heatmap

    name, threshold = tiling.slide.name, summary["threshold"]
    table = tile_table(judged, tiling, threshold)
    table.to_csv(folder / "tiles.csv", index=False, float_format="%.6g")
    table.to_parquet(folder / "tiles.parquet", index=False)
    write_grid(folder / GRID, judged, tiling, name, summary["identity"])
    regions = find_regions(np.nan_to_num(judged.probs, nan=-1.0) >= threshold)
    collection = to_geojson(regions, tiling, judged.probs, summary["identity"])
    (folder / REGIONS).write_text(json.dumps(collection, allow_nan=False), encoding="utf-8")
    draw_heatmap(folder / HEATMAP, judged, tiling, overview, regions, summary)
    (folder / SUMMARY).write_text(to_json({**summary, "regions": len(regions)}), encoding="utf-8")
    files = {"heatmap": HEATMAP, "regions": REGIONS, "grid": GRID, "summary": SUMMARY}
    (folder / "README.txt").write_text(_README.format(slide=name, **files), encoding="utf-8")

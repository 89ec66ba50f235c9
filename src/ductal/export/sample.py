"""The patches an export is checked on, and calibrated with: the run's own where its cohort is there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ductal.data.cohort import Cohort
from ductal.data.split import Split
from ductal.data.synthetic_tissue import TILE, draw_slide
from ductal.errors import DataError, ExportError, RunError
from ductal.export.quantise import CALIBRATION_PATCHES

CHECKED = 256
JUDGED = 2000  # for what 16 and 8 bits cost, which fewer patches do not tell


@dataclass(frozen=True)
class Sample:
    """Patches to check an export on.

    Attributes:
        patches: uint8 (n, 50, 50, 3).
        source: what they are, in words.
        labels: int8 (n,), of real patches; else None.
        calibration: uint8 (m, 50, 50, 3) training patches where 8 bits need them.
    """

    patches: np.ndarray
    source: str
    labels: np.ndarray | None = None
    calibration: np.ndarray | None = None


def take_sample(folder: Path, record: dict[str, Any], cohort: Path | None, precision: str) -> Sample:
    """Validation patches, evenly over the run's cohort, or drawn ones where the cohort is not there.

    Args:
        folder: the run.
        record: its `run.json`.
        cohort: where the cohort is, if not where the record says.
        precision: int8 also needs training patches; test patients are never read.

    Raises:
        DataError, RunError: `cohort` is none, or not that of the run.
        ExportError: int8 without the cohort.
    """
    patches = _cohort_of(record, cohort)
    if patches is None:
        if precision == "int8":
            raise ExportError(
                "8 bits are calibrated on the run's training patches and judged on its validation patches, and its "
                "cohort is not where it was. Name it with --cohort, or choose --precision float16."
            )
        return Sample(synthetic_patches(CHECKED), "synthetic patches, since the run's cohort is not here")
    split = Split.load(folder / "split.json")
    part = "val" if split.parts.get("val") else "train"
    rows = split.rows(patches, "val" if part == "val" else "train")
    rows = _evenly(rows, CHECKED if precision == "float32" else JUDGED)
    kind = "synthetic " if patches.info.synthetic else ""
    what = "validation" if part == "val" else "training"
    calibration = None
    if precision == "int8":
        # The networks of a cross-fitted ensemble were trained on its validation patients.
        trained = split.rows(patches, "val" if split.cross_fitted else "train")
        calibration = patches.pixels[_evenly(trained, CALIBRATION_PATCHES)]
    return Sample(
        patches.pixels[rows], f"{kind}{what} patches of the run's cohort", patches.labels[rows], calibration
    )


def synthetic_patches(count: int, seed: int = 0) -> np.ndarray:
    """uint8 (count, 50, 50, 3), drawn."""
    slide = draw_slide(np.random.default_rng(seed), count, 0.4)
    cut = [slide.pixels[y * TILE : (y + 1) * TILE, x * TILE : (x + 1) * TILE] for x, y in slide.tiles]
    return np.stack(cut[:count])


def _cohort_of(record: dict[str, Any], named: Path | None) -> Cohort | None:
    recorded = record.get("cohort_folder")
    if named is None and recorded is None:
        return None
    try:
        cohort = Cohort.open(named or str(recorded))
    except DataError:
        if named is not None:
            raise
        return None
    if cohort.info.fingerprint == record.get("cohort", {}).get("fingerprint"):
        return cohort
    if named is None:
        return None  # another cohort took its place
    raise RunError(f"{named} is not the cohort this run was trained on. Name that one, or leave --cohort out.")


def _evenly(rows: np.ndarray, count: int) -> np.ndarray:
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]

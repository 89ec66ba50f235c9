"""One patient's slide put together again from its patches: what is where, and how well it was called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ductal.data.cohort import PATCH_SHAPE, Cohort
from ductal.data.naming import parse_patch_name
from ductal.evaluation.metrics import binary_metrics
from ductal.slides.grid import TileGrid

PITCH_PX = PATCH_SHAPE[0]
OUTCOMES = ("TN", "FP", "FN", "TP")
FIGURES = ("roc_auc", "balanced_accuracy", "f1", "recall", "specificity")


@dataclass(frozen=True, eq=False)
class RebuiltSlide:
    """A patient's patches on their grid, with truth and call.

    Attributes:
        patient: whose slide it is.
        role: in words, what the run knows of the patient ("validation patient", ...).
        track: "patch-only" or "slide context".
        grid: places of the n patches; its shape also covers the patches that were left out.
        left_out: (columns, rows) of patches that are in the archive and could not be used, int64 (m,) each.
        patch_ids: n names.
        labels: int8 (n,), IDC = 1.
        probs: float64 (n,), calibrated.
        threshold: a patch is called IDC from this probability on.
        spacing_um: micrometres a pixel; None where unknown.
        rows: int64 (n,), rows of the cohort's table.
    """

    patient: str
    role: str
    track: str
    grid: TileGrid
    left_out: tuple[np.ndarray, np.ndarray]
    patch_ids: list[str]
    labels: np.ndarray
    probs: np.ndarray
    threshold: float
    spacing_um: float | None
    rows: np.ndarray

    @property
    def outcomes(self) -> np.ndarray:
        """int64 (n,), positions in `OUTCOMES`."""
        called = self.probs >= self.threshold
        return 2 * (self.labels == 1) + called

    @property
    def patch_mm2(self) -> float:
        """Area of a patch in square millimetres; nan where the spacing is unknown."""
        return float("nan") if self.spacing_um is None else (PITCH_PX * self.spacing_um / 1000) ** 2

    def missing(self) -> int:
        """How many places of the grid hold no patch, those left out among them."""
        return int(np.prod(self.grid.shape)) - len(self.labels)

    def figures(self) -> dict[str, Any]:
        """One row of `rebuilt.csv`.

        patient, role, track, patches, left_out, idc, called, threshold; roc_auc, balanced_accuracy, f1, recall
        (sensitivity) and specificity (nan where the slide has one class only); tp, fp, tn, fn; spacing_um,
        tissue_mm2, tumour_mm2 (by the labels) and tumour_mm2_model (by the calls), nan where the spacing is unknown.
        """
        found = binary_metrics(self.labels, self.probs, self.threshold)
        idc, called = int((self.labels == 1).sum()), int((self.probs >= self.threshold).sum())
        return {
            "patient": self.patient,
            "role": self.role,
            "track": self.track,
            "patches": len(self.labels),
            "left_out": len(self.left_out[0]),
            "idc": idc,
            "called": called,
            "threshold": self.threshold,
            **{name: found[name] for name in FIGURES},
            **{name: int(found[name]) for name in ("tp", "fp", "tn", "fn")},
            "spacing_um": float("nan") if self.spacing_um is None else self.spacing_um,
            "tissue_mm2": len(self.labels) * self.patch_mm2,
            "tumour_mm2": idc * self.patch_mm2,
            "tumour_mm2_model": called * self.patch_mm2,
        }

    def table(self) -> pd.DataFrame:
        """Each patch: patch_id, column, row (in patches, from 0), label, probability, called, outcome."""
        return pd.DataFrame(
            {
                "patch_id": self.patch_ids,
                "column": self.grid.columns,
                "row": self.grid.rows,
                "label": self.labels,
                "probability": self.probs,
                "called": (self.probs >= self.threshold).astype(int),
                "outcome": np.array(OUTCOMES)[self.outcomes],
            }
        )

    def tissue(self, pixels: np.ndarray, px_per_patch: int = PITCH_PX, fill: int = 255) -> np.ndarray:
        """The slide's image, uint8 (height * px, width * px, 3), `fill` where there is no patch.

        Args:
            pixels: the cohort's, uint8 (N, 50, 50, 3).
            px_per_patch: a divisor of 50; below 50, blocks of pixels are averaged.
            fill: grey value, 0 to 255.
        """
        height, width = self.grid.shape
        whole = np.full((height, px_per_patch, width, px_per_patch, 3), fill, np.uint8)
        step = PITCH_PX // px_per_patch
        for row, y, x in zip(self.rows, self.grid.rows, self.grid.columns, strict=True):
            patch = pixels[row].reshape(px_per_patch, step, px_per_patch, step, 3)
            whole[y, :, x] = np.rint(patch.mean(axis=(1, 3))).astype(np.uint8) if step > 1 else pixels[row]
        return whole.reshape(height * px_per_patch, width * px_per_patch, 3)


def places(cohort: Cohort, patient: str, rows: np.ndarray) -> tuple[TileGrid, tuple[np.ndarray, np.ndarray]]:
    """The grid of a patient's patches, and (columns, rows) of those in quarantine, on the same grid.

    Raises:
        DataError: a patch has no place, or two lie at one.
    """
    x, y = (cohort.table[name].to_numpy(np.int64)[rows] for name in ("x", "y"))
    grid = TileGrid.from_pixels(x, y)
    out_x, out_y = _quarantined(cohort, patient)
    left = min([int(x.min()) // PITCH_PX, *(out_x // PITCH_PX)])
    top = min([int(y.min()) // PITCH_PX, *(out_y // PITCH_PX)])
    columns, lines = x // PITCH_PX - left, y // PITCH_PX - top
    out_columns, out_rows = out_x // PITCH_PX - left, out_y // PITCH_PX - top
    shape = (int(max([*lines, *out_rows])) + 1, int(max([*columns, *out_columns])) + 1)
    grid = TileGrid(columns, lines, shape)
    free = np.isnan(grid.raster(np.zeros(len(rows))))[out_rows, out_columns]
    return grid, (out_columns[free], out_rows[free])


def _quarantined(cohort: Cohort, patient: str) -> tuple[np.ndarray, np.ndarray]:
    """x and y of a patient's patches that could not be used, int64 (m,) each, where their names tell."""
    table = cohort.quarantine
    names = [parse_patch_name(name) for name in table.loc[table["patient"] == patient, "name"]]
    known = [name for name in names if name is not None]
    return np.array([name.x for name in known], np.int64), np.array([name.y for name in known], np.int64)

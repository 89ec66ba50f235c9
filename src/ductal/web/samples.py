"""Images to try: drawn by a program, or of patients of a cohort that the run was not trained on."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ductal.data.cohort import Cohort
from ductal.data.split import Split
from ductal.data.synthetic_tissue import draw_slide
from ductal.web.schemas import Sample

EACH = 4  # patches of each class
SEED = 20
PITCH = 50
REGION_TILES = (8, 12)  # rows, columns of the largest region
URL = "/api/v1/samples/"
_LABELS: tuple[Literal["not_cancer", "cancer"], ...] = ("not_cancer", "cancer")
_WORDS = ("no carcinoma", "carcinoma")


@dataclass(frozen=True)
class Samples:
    """Entries of the list, and the PNG of each by its name."""

    entries: list[Sample]
    pngs: dict[str, bytes]

    @classmethod
    def synthetic(cls) -> Samples:
        """Drawn tissue, the same each time."""
        slide = draw_slide(np.random.default_rng(SEED), 60, 0.4)
        samples = cls([], {})
        inner = _by_depth(slide.tiles)
        for label in (1, 0):
            for number, row in enumerate([row for row in inner if slide.labels[row] == label][:EACH], start=1):
                x, y = slide.tiles[row] * PITCH
                samples._add(
                    f"synthetic-{_LABELS[label].replace('_', '-')}-{number}", f"Drawn {_WORDS[label]} {number}",
                    "synthetic", "patch", label, slide.pixels[y : y + PITCH, x : x + PITCH],
                )  # fmt: skip
        samples._add("synthetic-region", "Drawn region", "synthetic", "region", None, slide.pixels)
        return samples

    @classmethod
    def of_cohort(cls, cohort: Cohort, split: Split) -> Samples:
        """Patches of validation patients, and what lies around one of them.

        Raises:
            DataError: the split is of another cohort.
        """
        rows = split.rows(cohort, "val")
        rng = np.random.default_rng(SEED)
        samples = cls([], {})
        origin: Literal["synthetic", "cohort"] = "synthetic" if cohort.info.synthetic else "cohort"
        for label in (1, 0):
            mine = rows[cohort.labels[rows] == label]
            for number, row in enumerate(rng.permutation(mine)[:EACH].tolist(), start=1):
                samples._add(
                    f"validation-{_LABELS[label].replace('_', '-')}-{number}",
                    f"Validation patient, {_WORDS[label]} {number}", origin, "patch", label, cohort.pixels[row],
                )  # fmt: skip
        region = _region(cohort, rows)
        if region is not None:
            samples._add("validation-region", "Region of a validation patient", origin, "region", None, region)
        return samples

    def _add(
        self,
        name: str,
        title: str,
        origin: Literal["synthetic", "cohort"],
        kind: Literal["patch", "region"],
        label: int | None,
        pixels: np.ndarray,
    ) -> None:
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
        self.pngs[name] = buffer.getvalue()
        told = None if label is None else _LABELS[label]
        self.entries.append(Sample(name=name, title=title, origin=origin, kind=kind, label=told, url=f"{URL}{name}"))


def load_samples(run_folder: Path, cohort_folder: Path | None) -> Samples:
    """Those of a cohort that the user names, else drawn ones.

    Raises:
        DataError: no cohort there, or not the run's split.
    """
    if cohort_folder is None:
        return Samples.synthetic()
    return Samples.of_cohort(Cohort.open(cohort_folder), Split.load(run_folder / "split.json"))


def _by_depth(tiles: np.ndarray) -> list[int]:
    """Numbers of tiles, those in the middle of the tissue first."""
    distance = np.abs(tiles - tiles.mean(axis=0)).sum(axis=1)
    return [int(number) for number in np.argsort(distance, kind="stable")]


def _region(cohort: Cohort, rows: np.ndarray) -> np.ndarray | None:
    """The fullest rectangle of one patient's patches that is asked about, uint8 (h, w, 3), white where none is."""
    table = cohort.table.iloc[rows]
    placed = table["x"].to_numpy() >= 0
    if not placed.any():
        return None
    patient = table.loc[placed, "patient"].value_counts().index[0]
    chosen = rows[placed & (table["patient"] == patient).to_numpy()]
    x, y = (cohort.table.iloc[chosen][axis].to_numpy(np.int64) // PITCH for axis in ("x", "y"))
    filled = np.zeros((y.max() + 1 + REGION_TILES[0], x.max() + 1 + REGION_TILES[1]), np.int64)
    filled[y, x] = 1
    sums = np.lib.stride_tricks.sliding_window_view(filled, REGION_TILES).sum(axis=(2, 3))
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    picture = np.full((REGION_TILES[0] * PITCH, REGION_TILES[1] * PITCH, 3), 255, np.uint8)
    for row, column, tile in zip(y - top, x - left, chosen.tolist(), strict=True):
        if 0 <= row < REGION_TILES[0] and 0 <= column < REGION_TILES[1]:
            corner = (row * PITCH, column * PITCH)
            picture[corner[0] : corner[0] + PITCH, corner[1] : corner[1] + PITCH] = cohort.pixels[tile]
    return picture

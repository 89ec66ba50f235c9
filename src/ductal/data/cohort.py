"""A prepared cohort: decoded patches in one memory-mapped array, and one table row for each."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel

from ductal.data.naming import is_plain
from ductal.errors import DataError
from ductal.loading.links import is_plain_file, link_text
from ductal.loading.records import read_json, read_table

PIXELS = "patches.npy"
TABLE = "patches.parquet"
QUARANTINE = "quarantine.parquet"
INFO = "cohort.json"
FILES = (PIXELS, TABLE, QUARANTINE, INFO)

PATCH_SHAPE = (50, 50, 3)
# Which kinds of NumPy's types a column may have.
_KINDS = {"patch_id": "OU", "patient": "OU", "x": "iu", "y": "iu", "label": "iu", "sha1": "OU", "selected": "b"}
COLUMNS = tuple(_KINDS)
QUARANTINE_COLUMNS = ("name", "patient", "label", "reason", "detail")


class CohortInfo(BaseModel):
    """What a cohort is and where it came from; `cohort.json`, and part of every run's record.

    `fingerprint` identifies the content (see `fingerprint_of`). `selection` holds what was asked
    for: ``{"patients": K | None, "limit_per_class": K | None, "seed": int}``. `spacing_um` is the
    pixel size in micrometres where it is known.
    """

    name: str
    source_kind: str
    synthetic: bool
    has_patients: bool
    fingerprint: str
    n_patches: int
    n_patients: int
    n_positive: int
    quarantined: dict[str, int]
    selection: dict[str, int | None]
    notes: list[str]
    spacing_um: float | None = None
    ductal_version: str
    created: str


class PatchView:
    """Chosen rows of a pixel array, gathered only when indexed, so that a part of a cohort costs no memory.

    ``len(view)``, ``view[3]`` and ``view[a:b]`` behave as on the uint8 array (n, 50, 50, 3) it stands for.
    """

    def __init__(self, pixels: np.ndarray, rows: np.ndarray) -> None:
        self._pixels, self._rows = pixels, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self._pixels[self._rows[index]]


@dataclass(frozen=True, eq=False)
class Cohort:
    """The patches of a study, decoded and checked once; made by `ductal.data.store.prepare`.

    Attributes:
        folder: where it lives.
        info: see `CohortInfo`.
        table: one row per patch, sorted by patient, y, x: patch_id (unique str), patient (str, ""
            when unknown), x and y (int32, -1 when unknown), label (int8, IDC = 1), sha1 (hex, of
            the decoded pixels), selected (bool: training may use the row; metrics use all rows).
        pixels: uint8 (N, 50, 50, 3), RGB, memory-mapped read-only; row i belongs to table row i.
        quarantine: the files left out: name, patient, label, reason, detail.
    """

    folder: Path
    info: CohortInfo
    table: pd.DataFrame
    pixels: np.ndarray
    quarantine: pd.DataFrame

    @classmethod
    def open(cls, folder: str | Path, fingerprint: str | None = None) -> Cohort:
        """Open a prepared cohort without reading its pixels into memory.

        Args:
            folder: what `ductal.data.store.prepare` wrote.
            fingerprint: what its content must be (`CohortInfo.fingerprint`); None takes any.

        Raises:
            DataError: the folder is no cohort, its files do not agree with each other, or it is another one.
        """
        folder = Path(folder)
        if not (folder / INFO).is_file():
            raise DataError(
                f"{folder} is not a prepared cohort (it has no {INFO}). Run `ductal prepare` first, "
                "or name the folder that it wrote."
            )
        if odd := next((folder / name for name in FILES if not is_plain_file(folder / name)), None):
            raise DataError(link_text(odd))
        try:
            info = CohortInfo.model_validate(read_json(folder / INFO))
            table = read_table(folder / TABLE, COLUMNS)
            quarantine = read_table(folder / QUARANTINE, QUARANTINE_COLUMNS)
            pixels = np.load(folder / PIXELS, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # NumPy has kinds of Python's own parser for a damaged header
            raise _disagree(folder, f"a file cannot be read: {error}") from error
        problem = _disagreement(info, table, pixels, quarantine)
        if problem:
            raise _disagree(folder, problem)
        if fingerprint not in (None, info.fingerprint):
            raise DataError(
                f"{folder} has been replaced by another cohort since this work began. Leave the folder alone while "
                "something trains on it, and begin again."
            )
        return cls(folder, info, table, pixels, quarantine)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def labels(self) -> np.ndarray:
        """int8 (N,): 1 for IDC, 0 for not."""
        return self.table["label"].to_numpy(np.int8)

    def view(self, rows: np.ndarray) -> PatchView:
        """The patches of `rows`, read when they are used."""
        return PatchView(self.pixels, rows)

    @property
    def groups(self) -> np.ndarray:
        """str (N,): what must stay on one side of a split; the patient, or the content hash where unknown."""
        column = "patient" if self.info.has_patients else "sha1"
        return self.table[column].to_numpy(dtype=str)


def fingerprint_of(table: pd.DataFrame) -> str:
    """Hex SHA-1 over the sorted lines ``<patch_id> <patient> <label> <sha1>``: equal for equal content in any order.

    The patient is in it because the same patches of other patients are divided otherwise.
    """
    columns = (table[name] for name in ("patch_id", "patient", "label", "sha1"))
    lines = sorted(" ".join(map(str, row)) + "\n" for row in zip(*columns, strict=True))
    return hashlib.sha1("".join(lines).encode()).hexdigest()


def _disagree(folder: Path, problem: str) -> DataError:
    return DataError(
        f"The cohort in {folder} is damaged or incomplete: {problem}. "
        "Run `ductal prepare` again with the same source and folder."
    )


def _disagreement(
    info: CohortInfo, table: pd.DataFrame, pixels: np.ndarray, quarantine: pd.DataFrame
) -> str | None:
    """The first way in which the files of a cohort contradict each other, or None."""
    odd = [name for name, kinds in _KINDS.items() if table[name].dtype.kind not in kinds or table[name].isna().any()]
    if odd:
        return f"{TABLE} has values in {', '.join(odd)} that no cohort has"
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != PATCH_SHAPE:
        return f"{PIXELS} holds {pixels.dtype} {pixels.shape}, not uint8 (N, 50, 50, 3)"
    if not len(table) == len(pixels) == info.n_patches:
        return f"{INFO} says {info.n_patches} patches, {TABLE} has {len(table)}, {PIXELS} has {len(pixels)}"
    if not all(isinstance(name, str) and (is_plain(name) or not name) for name in table["patient"].unique()):
        return f"{TABLE} has a patient who cannot be part of a file name"
    if not table["patch_id"].is_unique:
        return f"{TABLE} names a patch twice"
    if not table["label"].isin((0, 1)).all() or int(table["label"].sum()) != info.n_positive:
        return f"the labels in {TABLE} are not the {info.n_positive} positives that {INFO} says"
    if len(quarantine) != sum(info.quarantined.values()):
        return f"{QUARANTINE} does not hold the files that {INFO} says were left out"
    return None

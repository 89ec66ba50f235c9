"""From a source to a prepared cohort: every patch decoded once, checked, written whole or not at all."""

from __future__ import annotations

import os
import shutil
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pandas as pd

from ductal.data import cohort as files
from ductal.data.class_folders import export_folders
from ductal.data.cohort import Cohort, CohortInfo, fingerprint_of
from ductal.data.layout import patch_id_of
from ductal.data.quality import Inspected, inspect_chunk
from ductal.data.sources import Source, open_source
from ductal.data.workers import ordered_map
from ductal.errors import DataError, StorageError
from ductal.files import atomic_folder, write_text
from ductal.machine import available_cores

__all__ = ["export_folders", "prepare"]

Progress = Callable[[int, int], None]

_CHUNK = 256  # 1.9 MB of pixels: small beside a worker, large beside the cost of a message
_PATCH_BYTES = int(np.prod(files.PATCH_SHAPE))
_ROW_BYTES = 120  # table row on disk: a hash and a name that barely compress, and numbers
_PER_WORKER = 2000  # below this, starting a process takes longer than the work


def prepare(
    source: str | Path,
    out: str | Path,
    *,
    patients: int | None = None,
    limit_per_class: int | None = None,
    seed: int = 42,
    patients_csv: str | Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Cohort:
    """Decode and check every patch of a source once, and write the cohort folder `out`.

    The result does not depend on `workers`. Unusable files go to the quarantine (see
    `ductal.data.quality.RULES`) and never stop the work.

    Args:
        source: a zip (read in place) or a folder, in any layout of `ductal.data.layout`.
        out: the cohort's folder; an earlier cohort there is replaced when the new one is whole.
        patients: keep this many patients, drawn from the sorted ids with `seed`.
        limit_per_class: mark at most this many random patches per class of each patient as `selected`
            for training. Metrics use all rows all the same.
        seed: of both draws.
        patients_csv: patients of class folders; see `open_source`.
        workers: processes; by default one per core, and one for a small source.
        progress: called with (done, total) files.

    Raises:
        DataError: nothing usable in the source, only one class, or `out` holds something else.
        UnsafeArchiveError: the zip could do harm.
        StorageError: too little space, or the disk refused the write.
    """
    source, out = Path(source), Path(out)
    for name, value in (("patients", patients), ("limit_per_class", limit_per_class), ("workers", workers)):
        if value is not None and value < 1:
            raise DataError(f"{name} must be at least 1. Received: {value}.")
    _check_target(source, out)
    opened = open_source(source, patients_csv)
    notes = list(opened.notes)
    if patients is not None:
        opened = _draw_patients(opened, patients, seed, notes)
    _check_unique(opened)
    _check_classes(source, {entry.label for entry in opened.entries})
    _check_space(out, len(opened.entries))
    selection = {"patients": patients, "limit_per_class": limit_per_class, "seed": seed}
    with atomic_folder(out) as folder:
        decoded = _decode(opened, folder / files.PIXELS, workers, progress)
        table, quarantine = _tables(opened, decoded)
        if table.empty:
            raise DataError(
                f"None of the {len(quarantine):,} patches in {source} can be used; the first, "
                f"{quarantine['name'][0]!r}: {quarantine['detail'][0]}. Check the archive or fetch it again."
            )
        _check_classes(source, set(table["label"]))
        table["selected"] = _select(table, limit_per_class, seed)
        info = _describe(opened, table, quarantine, selection, notes)
        _write_parquet(table, folder / files.TABLE)
        _write_parquet(quarantine, folder / files.QUARANTINE)
        write_text(folder / files.INFO, info.model_dump_json(indent=2) + "\n")
    return Cohort.open(out)


def _check_target(source: Path, out: Path) -> None:
    if (source / files.INFO).is_file():
        raise DataError(f"{source} is already a prepared cohort. Use it as it is: `ductal run {source}`.")
    if source.exists() and source.resolve().is_relative_to(out.resolve()):
        raise DataError(
            f"{out} holds the source {source} and would be replaced. Choose another folder to write to."
        )
    if out.is_dir():
        blocked = any(out.iterdir()) and not (out / files.INFO).is_file()
    else:
        blocked = out.exists() or out.is_symlink()
    if blocked:
        raise DataError(
            f"{out} exists and is not a cohort, so it is not replaced. Choose another or remove it."
        )


def _draw_patients(source: Source, count: int, seed: int, notes: list[str]) -> Source:
    if not source.has_patients:
        raise DataError(
            f"patients={count} cannot be drawn from {source.path}: its patches have no patient ids. "
            "Give a patients CSV, or leave the option out."
        )
    known = sorted({entry.patient for entry in source.entries})
    if count >= len(known):
        if count > len(known):
            notes.append(f"{count} patients were asked for; the source has {len(known)}, and all were kept.")
        return source
    drawn = set(np.random.default_rng(seed).choice(known, count, replace=False).tolist())
    return source.only([row for row, entry in enumerate(source.entries) if entry.patient in drawn])


def _check_unique(source: Source) -> None:
    seen: dict[str, str] = {}
    for entry in source.entries:
        other = seen.setdefault(patch_id_of(entry), entry.name)
        if other is not entry.name:
            raise DataError(
                f"{source.path}: {other!r} and {entry.name!r} would get one patch id. Rename or remove one."
            )


def _check_classes(source: Path, labels: set[int]) -> None:
    if len(labels) < 2:
        only = ", ".join(str(label) for label in labels)
        raise DataError(
            f"{source} has only one class ({only}) among the patches to be used; training and metrics need "
            "both 0 (not cancer) and 1 (IDC). Add patches of the other class or keep more patients."
        )


def _check_space(out: Path, count: int) -> None:
    needed = count * (_PATCH_BYTES + _ROW_BYTES) + 2**20
    place = out.absolute()
    while not place.exists():
        place = place.parent
    available = shutil.disk_usage(place).free
    if available < needed:
        raise StorageError(
            f"{out} needs {needed / 2**20:,.0f} MB and {available / 2**20:,.0f} MB are free. "
            "Nothing was written. Free space, choose another disk, or keep fewer patients."
        )


class _Decoded(NamedTuple):
    sha1: list[str]  # one per entry, "" where it was left out
    faults: list[tuple[int, str, str]]  # (row of the entry, reason, detail)


def _decode(source: Source, path: Path, workers: int | None, progress: Progress | None) -> _Decoded:
    """Write the good patches to `path` in the order of the entries; plain writes, so no page stays mapped."""
    total = len(source.entries)
    if workers is None:
        workers = min(available_cores(), max(1, total // _PER_WORKER))
    reader = source.chunk_reader()
    starts = range(0, total, _CHUNK)
    jobs = ((reader, source.chunk(start, start + _CHUNK), min(_CHUNK, total - start)) for start in starts)
    sha1: list[str] = []
    faults: list[tuple[int, str, str]] = []
    with path.open("wb") as handle, closing(ordered_map(inspect_chunk, jobs, workers)) as results:
        _write_header(handle, 0)
        for start, result in zip(starts, results, strict=True):
            _append(handle, result)
            sha1 += result.sha1
            faults += [(start + position, reason, detail) for position, reason, detail in result.faults]
            if progress is not None:
                progress(len(sha1), total)
        handle.seek(0)
        _write_header(handle, total - len(faults))
        handle.flush()
        os.fsync(handle.fileno())
    return _Decoded(sha1, faults)


def _write_header(handle: BinaryIO, count: int) -> None:
    # numpy pads the header for growth of the first axis, so the second header covers the first exactly.
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *files.PATCH_SHAPE)}
    np.lib.format.write_array_header_1_0(handle, header)


def _append(handle: BinaryIO, result: Inspected) -> None:
    if result.pixels.size:
        handle.write(result.pixels.data)


def _tables(source: Source, decoded: _Decoded) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The cohort's table (without `selected`) and its quarantine."""
    rows = [(entry, digest) for entry, digest in zip(source.entries, decoded.sha1, strict=True) if digest]
    table = pd.DataFrame(
        {
            "patch_id": pd.array([patch_id_of(entry) for entry, _ in rows], dtype="str"),
            "patient": pd.array([entry.patient for entry, _ in rows], dtype="str"),
            "x": np.array([entry.x for entry, _ in rows], np.int32),
            "y": np.array([entry.y for entry, _ in rows], np.int32),
            "label": np.array([entry.label for entry, _ in rows], np.int8),
            "sha1": pd.array([digest for _, digest in rows], dtype="str"),
        }
    )
    left_out = [(source.entries[row], reason, detail) for row, reason, detail in decoded.faults]
    quarantine = pd.DataFrame(
        {
            "name": pd.array([entry.name for entry, _, _ in left_out], dtype="str"),
            "patient": pd.array([entry.patient for entry, _, _ in left_out], dtype="str"),
            "label": np.array([entry.label for entry, _, _ in left_out], np.int8),
            "reason": pd.array([reason for _, reason, _ in left_out], dtype="str"),
            "detail": pd.array([detail for _, _, detail in left_out], dtype="str"),
        }
    )
    return table, quarantine


def _select(table: pd.DataFrame, limit: int | None, seed: int) -> np.ndarray:
    """bool (N,): at most `limit` random rows per patient and class.

    Each draw is keyed by (seed, patient, class), so it is the same whichever other patients there are.
    """
    if limit is None:
        return np.ones(len(table), bool)
    selected = np.zeros(len(table), bool)
    for group, rows in table.groupby(["patient", "label"], sort=False).indices.items():
        rng = np.random.default_rng([seed, zlib.crc32(repr(group).encode())])
        selected[rng.permutation(rows)[:limit]] = True
    return selected


def _describe(
    source: Source,
    table: pd.DataFrame,
    quarantine: pd.DataFrame,
    selection: dict[str, int | None],
    notes: list[str],
) -> CohortInfo:
    return CohortInfo(
        name=source.path.resolve().stem if source.path.is_file() else source.path.resolve().name,
        source_kind=source.kind,
        synthetic=source.synthetic,
        has_patients=source.has_patients,
        fingerprint=fingerprint_of(table),
        n_patches=len(table),
        n_patients=table["patient"].nunique() if source.has_patients else 0,
        n_positive=int(table["label"].sum()),
        quarantined=dict(sorted(Counter(quarantine["reason"]).items())),
        selection=selection,
        notes=notes,
        ductal_version=_version(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _version() -> str:
    try:
        return metadata.version("ductal")
    except metadata.PackageNotFoundError:
        return "not installed"


def _write_parquet(table: pd.DataFrame, path: Path) -> None:
    table.to_parquet(path, engine="pyarrow", compression="zstd", index=False)

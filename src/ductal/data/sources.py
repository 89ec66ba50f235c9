"""Open an archive or folder of patches, whatever its layout, without reading their pixels."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ductal.data.archive import MAX_ENTRY_BYTES, ZipReader, read_index
from ductal.data.layout import (
    LAYOUTS,
    NO_PATIENTS,
    Entry,
    drop_second_copies,
    find_patches,
    patients_of_classes,
)
from ductal.data.quality import Reader
from ductal.errors import DataError


@dataclass(frozen=True)
class Source:
    """The patches that a zip or folder holds, and how to read them.

    Attributes:
        kind: "zip", "folder" or "class-folders" (the latter in a zip or a folder).
        path: the zip or folder.
        entries: one per patch, sorted by patient, y, x and name; every patch once.
        notes: what a reader of a report should know.
        has_patients: whether every entry has a patient.
        synthetic: whether a SYNTHETIC.txt says that the patches were drawn by a program.
    """

    kind: str
    path: Path
    entries: list[Entry]
    notes: list[str]
    has_patients: bool
    synthetic: bool
    _reader: Reader
    _locations: np.ndarray  # aligned with the entries: LOCATION items (zip) or names (folder)

    def chunk_reader(self) -> Reader:
        """A picklable callable for worker processes: it takes a `chunk` and yields each file."""
        return self._reader

    def chunk(self, start: int, stop: int) -> Any:
        """What `chunk_reader` needs to read the entries start .. stop-1; small and picklable."""
        return self._locations[start:stop]

    def only(self, rows: Sequence[int]) -> Source:
        """The same source restricted to the entries at `rows`, in that order."""
        return replace(
            self,
            entries=[self.entries[row] for row in rows],
            _locations=self._locations[np.asarray(rows, int)],
        )


def open_source(path: str | Path, patients_csv: str | Path | None = None) -> Source:
    """List the patches of a zip (in place) or a folder, in any of the layouts of `ductal.data.layout`.

    Args:
        path: the archive or the folder.
        patients_csv: for class folders, a CSV with the columns file,patient and optionally x,y.

    Raises:
        UnsafeArchiveError: the zip could do harm; see `ductal.data.archive.read_index`.
        DataError: nothing there, no patches in it, names and folders that contradict each other, or a
            CSV that does not match.
    """
    path = Path(path)
    names, locations, mark, reader = _list_zip(path) if path.is_file() else _list_folder(path)
    found = find_patches(names)
    if not found.entries:
        raise _nothing_found(path, names, found.unplaced)
    found, notes = drop_second_copies(found, mark)
    entries, has_patients = found.entries, True
    if found.class_folders:
        entries, has_patients = patients_of_classes(entries, Path(patients_csv) if patients_csv else None)
    elif patients_csv:
        raise DataError(
            f"{path} has patient folders, so {patients_csv} would be ignored. Leave the patients CSV out."
        )
    if not has_patients:
        notes.append(NO_PATIENTS)
    if found.unplaced:
        notes.append(
            f"{len(found.unplaced):,} images outside the layout were ignored, such as {found.unplaced[0]!r}."
        )
    inner = "zip" if path.is_file() else "folder"
    kind = "class-folders" if found.class_folders else inner
    source = Source(
        kind,
        path,
        entries,
        notes,
        has_patients,
        found.synthetic,
        reader,
        locations[np.asarray(found.rows, int)],
    )
    return source.only(sorted(range(len(entries)), key=lambda row: _order(entries[row])))


def _order(entry: Entry) -> tuple[str, int, int, str]:
    return entry.patient, entry.y, entry.x, entry.name


_Listing = tuple[list[str], np.ndarray, Callable[[int], int], Reader]


def _list_zip(path: Path) -> _Listing:
    index = read_index(path)
    return index.names, index.locations, lambda row: int(index.locations["crc"][row]), ZipReader(path)


def _list_folder(root: Path) -> _Listing:
    if not root.is_dir():
        raise DataError(
            f"{root} does not exist. Give the path of the archive (a zip) or of the unpacked folder; "
            "`ductal fetch` gets the archive from its official address."
        )
    names = sorted(_walk(root))
    # Second copies in a folder are compared by size only: reading each twice would double the time.
    return names, np.array(names, object), lambda row: (root / names[row]).stat().st_size, FolderReader(root)


def _walk(root: Path) -> Iterator[str]:
    """Posix paths of all files below `root`; linked folders are not entered, as they could form a circle."""
    for folder, _, files in os.walk(root, onerror=_unreadable):
        relative = Path(folder).relative_to(root).as_posix()
        prefix = "" if relative == "." else f"{relative}/"
        yield from (f"{prefix}{file}" for file in files)


def _unreadable(error: OSError) -> None:
    raise DataError(
        f"{error.filename} cannot be read: {error.strerror}. Check its permissions, then run it again."
    ) from error


def _nothing_found(path: Path, names: list[str], unplaced: list[str]) -> DataError:
    if not names:
        seen = "it is empty"
    elif unplaced:
        seen = f"{len(unplaced):,} images fit no layout, such as {unplaced[0]!r}"
    else:
        seen = f"none of its {len(names):,} files is a PNG, JPEG or TIFF in place, such as {names[0]!r}"
    archives = [name for name in names if name.lower().endswith(".zip")]
    hint = f" Or name the archive itself: {path / archives[0]}." if archives and path.is_dir() else ""
    return DataError(f"No patches found in {path}: {seen}. {LAYOUTS}{hint}")


class FolderReader:
    """Reads files below a folder by name; picklable. Yields (content, "") or (None, what is wrong)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, names: np.ndarray) -> Iterator[tuple[bytes | None, str]]:
        for name in names:
            try:
                with open(self.root / name, "rb", opener=_without_waiting) as handle:
                    if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
                        yield None, "file: a pipe or device"
                        continue
                    content = handle.read(MAX_ENTRY_BYTES + 1)
            except OSError as error:
                yield None, f"file: {error.strerror or error}"
                continue
            if len(content) > MAX_ENTRY_BYTES:
                yield None, f"file: over {MAX_ENTRY_BYTES // 2**20} MiB"
            else:
                yield content, ""


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; of a pipe, do not wait for somebody who writes to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))

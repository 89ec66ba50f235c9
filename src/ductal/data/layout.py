"""From file names to patches: which layout it is, and what patient, place and class each file has."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ductal.data.naming import is_plain, parse_patch_name
from ductal.errors import DataError

CLASS_FOLDERS = {"not_cancer": 0, "cancer": 1}
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
SYNTHETIC_MARKER = "SYNTHETIC.txt"
LAYOUTS = (
    "Understood are <patient>/<0|1>/<image> at any depth (the official archive, and Kaggle's), and two "
    "folders cancer/ and not_cancer/ of images."
)
NO_PATIENTS = (
    "No patient ids: the names are not those of the archive and no patients CSV was given. The split cannot "
    "be by patient, only by content, so figures come out too high where one patient is on both sides."
)
_PATIENT_CLASSES = {"0": 0, "1": 1}


class Entry(NamedTuple):
    """One patch file: its posix path inside the source, patient ("" unknown), x, y (-1 unknown), label."""

    name: str
    patient: str
    x: int
    y: int
    label: int


class Found(NamedTuple):
    """The patches among the names of a source.

    `entries` and `rows` have equal length; `rows` are positions in the list of names. `unplaced` are
    images that fit no layout. `class_folders` and `synthetic` (a SYNTHETIC.txt was met) describe the whole.
    """

    entries: list[Entry]
    rows: list[int]
    unplaced: list[str]
    class_folders: bool
    synthetic: bool


def patch_id_of(entry: Entry) -> str:
    """The file stem of a genuine name; of any other, the path inside the source without its suffix."""
    stem = entry.name.rpartition(".")[0]
    return stem.rpartition("/")[2] if parse_patch_name(entry.name) else stem


def find_patches(names: list[str]) -> Found:
    """Recognise the patches among posix paths.

    Raises:
        DataError: a genuine name contradicts its folder, or two layouts are mixed.
    """
    by_patient: list[tuple[Entry, int]] = []
    by_class: list[tuple[Entry, int]] = []
    unplaced: list[str] = []
    synthetic = False
    for row, name in enumerate(names):
        if name.startswith((".", "__MACOSX/")) or "/." in name:
            continue
        parts = name.split("/")
        synthetic = synthetic or parts[-1] == SYNTHETIC_MARKER
        if not parts[-1].lower().endswith(IMAGE_SUFFIXES):
            continue
        label = _class_folder(parts)
        if label is not None:
            by_class.append((_class_entry(name, label), row))
            continue
        entry = _patient_entry(name, parts)
        if entry is None:
            unplaced.append(name)
        else:
            by_patient.append((entry, row))
    if by_class and by_patient:
        raise DataError(
            f"Two layouts are mixed: {by_class[0][0].name!r} lies in a class folder and "
            f"{by_patient[0][0].name!r} in a patient's. Give each a source of its own."
        )
    found = by_class or by_patient
    return Found(
        [entry for entry, _ in found], [row for _, row in found], unplaced, bool(by_class), synthetic
    )


def _class_folder(parts: list[str]) -> int | None:
    # At the top, or inside the one folder that zip tools like to add.
    for part in parts[:-1][:2]:
        label = CLASS_FOLDERS.get(part.lower())
        if label is not None:
            return label
    return None


def _class_entry(name: str, label: int) -> Entry:
    genuine = parse_patch_name(name)
    if genuine is None:
        return Entry(name, "", -1, -1, label)
    if genuine.label != label:
        raise _contradiction(name, f"class {genuine.label}", f"class {label}")
    return Entry(name, *genuine)


def _patient_entry(name: str, parts: list[str]) -> Entry | None:
    label = _PATIENT_CLASSES.get(parts[-2]) if len(parts) > 1 else None
    patient = parts[-3] if label is not None and len(parts) > 2 else None
    genuine = parse_patch_name(parts[-1])
    if genuine is None:
        if patient is None or label is None or not is_plain(patient):
            return None
        return Entry(name, patient, -1, -1, label)
    if label is not None and genuine.label != label:
        raise _contradiction(name, f"class {genuine.label}", f"class {label}")
    if patient is not None and genuine.patient != patient:
        raise _contradiction(name, f"patient {genuine.patient}", f"patient {patient}")
    return Entry(name, *genuine)


def _contradiction(name: str, in_name: str, in_folder: str) -> DataError:
    return DataError(
        f"The name of {name!r} says {in_name}, its folder says {in_folder}. "
        "Move the file to the right folder or remove it: one of the two is wrong."
    )


def drop_second_copies(found: Found, mark: Callable[[int], int]) -> tuple[Found, list[str]]:
    """Keep every genuine patch once, the copy nearest the top: Kaggle's archive nests a second copy.

    Files with other names are all kept; equal names in different folders are then different patches.

    Args:
        found: what `find_patches` returned.
        mark: for a row, a number that differs where the content differs (CRC-32, or the size in bytes).

    Returns:
        What is left, and notes on what was ignored.
    """
    kept: dict[str, int] = {}
    ignored: list[tuple[int, int]] = []  # positions (dropped, kept)
    for position, entry in enumerate(found.entries):
        if entry.x < 0:  # not a genuine name
            continue
        key = entry.name.rpartition("/")[2].rpartition(".")[0]
        other = kept.setdefault(key, position)
        if other != position:
            first, second = sorted((other, position), key=lambda p: _depth(found.entries[p].name))
            kept[key] = first
            ignored.append((second, first))
    if not ignored:
        return found, []
    notes = [
        f"{len(ignored):,} second copies ignored: the source holds patches twice, as Kaggle's archive does."
    ]
    differing = [
        dropped for dropped, first in ignored if mark(found.rows[dropped]) != mark(found.rows[first])
    ]
    if differing:
        notes.append(
            f"{len(differing):,} of the second copies differ in content from the copy that was kept (the one "
            f"nearest the top), such as {found.entries[differing[0]].name!r}."
        )
    dropped = {position for position, _ in ignored}
    keep = [position for position in range(len(found.entries)) if position not in dropped]
    entries, rows = [found.entries[p] for p in keep], [found.rows[p] for p in keep]
    return found._replace(entries=entries, rows=rows), notes


def _depth(name: str) -> tuple[int, str]:
    return name.count("/"), name


def patients_of_classes(entries: list[Entry], patients_csv: Path | None) -> tuple[list[Entry], bool]:
    """Give the images of class folders their patients, from a CSV or from genuine names.

    Returns:
        The entries, and whether they have patients.

    Raises:
        DataError: the CSV and the files do not match, or only some of the names are genuine.
    """
    if patients_csv is not None:
        return _join(entries, patients_csv, _read_csv(patients_csv)), True
    unknown = [entry.name for entry in entries if not entry.patient]
    if unknown and len(unknown) < len(entries):
        raise DataError(
            f"{len(unknown):,} of {len(entries):,} images have no patient in their name: {_some(unknown)}. "
            "Give a patients CSV (columns file,patient) for all of them, or remove them."
        )
    return entries, not unknown


def _read_csv(path: Path) -> dict[str, Entry]:
    """The rows of a patients CSV by file; the label in them is meaningless."""
    rows: dict[str, Entry] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            if not {"file", "patient"} <= set(reader.fieldnames or ()):
                raise DataError(
                    f"{path} needs the columns file,patient (x,y may follow). Received: {reader.fieldnames}."
                )
            for row in reader:
                file = (row["file"] or "").strip().replace("\\", "/").removeprefix("./")
                patient = (row["patient"] or "").strip()
                if not file or not is_plain(patient) or file in rows:
                    raise DataError(
                        f"{path}, line {reader.line_num}: file and patient must be filled in, each file listed once, "
                        "and a patient have at most 100 characters that a file name can have. "
                        f"Received: file={file[:200]!r}, patient={patient[:200]!r}."
                    )
                x, y = (_coordinate(row.get(axis)) for axis in ("x", "y"))
                rows[file] = Entry(file, patient, x, y, -1)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read as a CSV in UTF-8: {error}. Save it again as such."
        ) from error
    except DataError:
        raise
    except ValueError as error:
        raise DataError(
            f"{path}: x and y must be whole numbers of pixels ({error}). Correct the row."
        ) from error
    return rows


def _coordinate(text: str | None) -> int:
    value = int(text or -1)
    if not -1 <= value < 10**8:
        raise ValueError(f"{value} is out of range")
    return value


def _join(entries: list[Entry], path: Path, rows: dict[str, Entry]) -> list[Entry]:
    joined, missing = [], []
    unused = dict(rows)
    for entry in entries:
        base = PurePosixPath(entry.name).name
        row = rows.get(entry.name) or rows.get(base)
        if row is None:
            missing.append(entry.name)
            continue
        if unused.pop(row.name, None) is None:
            raise DataError(
                f"{path}: {row.name!r} fits more than one image, such as {entry.name!r}. "
                "Write the path in the folder, not the bare name."
            )
        if entry.patient and entry.patient != row.patient:
            raise DataError(
                f"{path} says patient {row.patient!r} for {entry.name!r}, its name says {entry.patient!r}. "
                "Correct the CSV."
            )
        x, y = (entry.x, entry.y) if entry.x > 0 else (row.x, row.y)
        joined.append(Entry(entry.name, row.patient, x, y, entry.label))
    if missing:
        raise DataError(f"{path} has no row for {len(missing):,} of the images: {_some(missing)}. Add them.")
    if unused:
        raise DataError(
            f"{path} lists {len(unused):,} files that are not there: {_some(list(unused))}. "
            "Correct the names or remove the rows."
        )
    return joined


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown + (", ..." if len(names) > 5 else "")

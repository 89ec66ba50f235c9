"""Write a cohort as two folders of images, ``cancer/`` and ``not_cancer/``, for other tools."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pandas as pd
from PIL import Image

from ductal.data.cohort import Cohort
from ductal.data.layout import CLASS_FOLDERS, SYNTHETIC_MARKER
from ductal.data.naming import parse_patch_name
from ductal.errors import DataError
from ductal.files import atomic_folder, write_text

PATIENTS_CSV = "patients.csv"
_FOLDER_OF = {label: folder for folder, label in CLASS_FOLDERS.items()}


def export_folders(
    cohort: Cohort, out: str | Path, progress: Callable[[int, int], None] | None = None
) -> int:
    """Write the selected patches as PNG files under ``out/cancer`` and ``out/not_cancer``.

    File names are the patch ids, so genuine names stay genuine. Where patients are known but not in the
    names, ``patients.csv`` (file,patient,x,y) is written beside; a synthetic cohort keeps its marker. The
    result can be prepared again. An earlier export in `out` is replaced.

    Args:
        cohort: only its rows with `selected` are written.
        out: a folder that is new, empty or an earlier export.
        progress: called with (done, total) patches.

    Returns:
        The number of patches written.

    Raises:
        DataError: `out` holds something else, or two patches would get the same file name.
        StorageError: the disk refused the write.
    """
    out = Path(out)
    _check_target(out)
    rows = cohort.table[cohort.table["selected"]]
    names = _file_names(rows)
    with atomic_folder(out) as folder:
        for class_folder in CLASS_FOLDERS:
            (folder / class_folder).mkdir()
        for done, (row, name) in enumerate(zip(rows.index, names, strict=True), start=1):
            target = folder / name
            if name.count("/") > 1:
                target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(cohort.pixels[row]).save(target, format="PNG")
            if progress is not None:
                progress(done, len(rows))
        if cohort.info.has_patients and not all(parse_patch_name(name) for name in names):
            _write_patients(folder / PATIENTS_CSV, rows, names)
        if cohort.info.synthetic:
            write_text(
                folder / SYNTHETIC_MARKER, "These patches were drawn by a program; they show no tissue.\n"
            )
    return len(rows)


def _check_target(out: Path) -> None:
    ours = {*CLASS_FOLDERS, PATIENTS_CSV, SYNTHETIC_MARKER}
    foreign = {item.name for item in out.iterdir()} - ours if out.is_dir() else set()
    if foreign or (out.exists() and not out.is_dir()):
        what = f"holds {sorted(foreign)[0]!r}" if foreign else "is a file"
        raise DataError(f"{out} {what}, so it is not replaced by an export. Choose a new or empty folder.")


def _file_names(rows: pd.DataFrame) -> list[str]:
    """Relative posix paths; a class folder that is already in a patch id is not written twice."""
    names = []
    for patch_id, label in zip(rows["patch_id"], rows["label"], strict=True):
        parts = PurePosixPath(patch_id).parts
        in_class = [place for place, part in enumerate(parts[:-1]) if part.lower() in CLASS_FOLDERS]
        inner = parts[in_class[0] + 1 :] if in_class else parts
        if ".." in inner or inner[0] == "/":
            raise DataError(
                f"The patch id {patch_id!r} points outside the folder to write. Prepare the cohort again."
            )
        names.append("/".join((_FOLDER_OF[label], *inner)) + ".png")
    if len(set(names)) < len(names):
        twice = pd.Series(names)[pd.Series(names).duplicated()].iloc[0]
        raise DataError(
            f"Two patches would both be written as {twice!r}. Rename one in the source and prepare again."
        )
    return names


def _write_patients(path: Path, rows: pd.DataFrame, names: list[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(("file", "patient", "x", "y"))
        writer.writerows(zip(names, rows["patient"], rows["x"], rows["y"], strict=True))

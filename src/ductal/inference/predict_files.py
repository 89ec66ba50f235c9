"""Probabilities for image files, folders, archives and cohorts, written as a CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from ductal.data.archive import ZipReader, read_index
from ductal.data.cohort import INFO, Cohort
from ductal.data.naming import parse_patch_name
from ductal.data.quality import inspect
from ductal.data.sources import FolderReader
from ductal.errors import DataError
from ductal.files import atomic_file
from ductal.inference.engines import EngineName
from ductal.inference.predictor import PATCH_SHAPE, Predictor

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
CHUNK = 1024
Contents = Iterator[tuple[bytes | None, str]]


def predict_source(
    run_folder: str | Path,
    source: str | Path,
    out: str | Path,
    *,
    d4: bool = False,
    engine: EngineName = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Predict every image of `source` and write `out`.

    Args:
        run_folder: a finished run.
        source: an image, a folder of images (searched to any depth), a zip, or a prepared cohort.
        out: the CSV: file, patient, x, y (where the name tells them), probability of IDC, cancer
            (probability at or above the run's threshold), problem. An image that is not a whole 50 x 50
            patch gets a problem, and neither a probability nor a class.
        d4: average over the 8 rotations and flips of each patch.
        engine: see `Predictor.from_run`.
        progress: called with (images done, images in all).

    Returns:
        The table that was written.

    Raises:
        DataError: nothing to predict there. UnsafeArchiveError: a hostile zip.
        RunError: not a finished run. StorageError: the disk refused the write.
    """
    predictor = Predictor.from_run(run_folder, d4=d4, engine=engine)
    source = Path(source)
    if (source / INFO).is_file():
        cohort = Cohort.open(source)
        names = cohort.table["patch_id"].tolist()
        probs = predictor.predict(cohort.pixels, progress=progress)
        problems = [""] * len(names)
    else:
        names, contents = _images(source)
        probs, problems = _predict_contents(predictor, contents, len(names), progress)
    parsed = [parse_patch_name(name) for name in names]
    # Not "False" for an image without a probability: it would be counted as a negative.
    cancer = pd.array(predictor.called(probs), dtype="boolean")
    cancer[np.isnan(probs)] = pd.NA
    table = pd.DataFrame(
        {
            "file": names,
            "patient": [name.patient if name else "" for name in parsed],
            "x": pd.array([name.x if name else None for name in parsed], dtype="Int32"),
            "y": pd.array([name.y if name else None for name in parsed], dtype="Int32"),
            "probability": probs,
            "cancer": cancer,
            "problem": problems,
        }
    )
    with atomic_file(Path(out)) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")
    return table


def read_patches(
    source: str | Path, limit: int | None = None
) -> tuple[list[str], np.ndarray, list[str]]:
    """Images of `source`, decoded; for more than memory holds, see `predict_source`.

    Args:
        source: as for `predict_source`.
        limit: at most this many, evenly over the source, in its order.

    Returns:
        (names, patches, problems) of n images: patches uint8 (n, 50, 50, 3), black where `problems` says why the
        image is not usable; a problem is "" otherwise.

    Raises:
        DataError: no images there. UnsafeArchiveError: a hostile zip.
    """
    source = Path(source)
    if (source / INFO).is_file():
        cohort = Cohort.open(source)
        names = cohort.table["patch_id"].tolist()
        rows = _spread(len(names), limit)
        return [names[row] for row in rows], np.array(cohort.pixels[rows]), [""] * len(rows)
    names, contents = _images(source, limit)
    patches, problems = _decode(contents, len(names))
    return names, patches, problems


def _predict_contents(
    predictor: Predictor, contents: Contents, total: int, progress: Callable[[int, int], None] | None
) -> tuple[np.ndarray, list[str]]:
    probs = np.full(total, np.nan, np.float32)
    problems: list[str] = []
    while len(problems) < total:
        patches, troubles = _decode(contents, min(CHUNK, total - len(problems)))
        good = np.flatnonzero([not trouble for trouble in troubles])
        if len(good):
            probs[len(problems) + good] = predictor.predict(patches, good)
        problems += troubles
        if progress:
            progress(len(problems), total)
    return probs, problems


def _decode(contents: Contents, count: int) -> tuple[np.ndarray, list[str]]:
    """The next `count` patches, uint8 (count, 50, 50, 3), and what is wrong with each, or ""; one file at a time."""
    patches = np.zeros((count, *PATCH_SHAPE), np.uint8)
    problems = []
    for position, (content, trouble) in enumerate(islice(contents, count)):
        pixels, reason, detail = inspect(content) if content is not None else (None, "undecodable", trouble)
        problems.append(f"{reason}: {detail}" if reason else "")
        if pixels is not None and not reason:
            patches[position] = pixels
    return patches, problems


def _spread(count: int, limit: int | None) -> np.ndarray:
    """At most `limit` of so many rows, evenly spaced."""
    return np.linspace(0, count - 1, min(count, limit or count)).astype(np.int64)


def _images(source: Path, limit: int | None = None) -> tuple[list[str], Contents]:
    """Names of the images in a file, folder or zip, at most `limit`, and their contents in that order."""
    if source.is_file() and source.suffix.lower() not in SUFFIXES:
        index = read_index(source)
        chosen = [row for row, name in enumerate(index.names) if name.lower().endswith(SUFFIXES)]
        chosen = [chosen[at] for at in _spread(len(chosen), limit)]
        names = [index.names[row] for row in chosen]
        contents: Contents = ZipReader(source)(index.locations[chosen])
    else:
        files = [source] if source.is_file() else sorted(source.rglob("*"))
        files = [file for file in files if file.is_file() and file.suffix.lower() in SUFFIXES]
        files = [files[at] for at in _spread(len(files), limit)]
        names = [file.name if file == source else file.relative_to(source).as_posix() for file in files]
        root = source.parent if source.is_file() else source
        contents = FolderReader(root)(np.array([file.relative_to(root) for file in files], object))
    if not names:
        raise DataError(
            f"There are no images in {source}. Give a {', '.join(SUFFIXES)} file, a folder or zip of them, "
            "or a prepared cohort."
        )
    return names, contents

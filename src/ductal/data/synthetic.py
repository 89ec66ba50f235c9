"""The embedded default: a synthetic cohort in the archive's own layout, for demonstrations and tests.

The images are drawn by `ductal.data.synthetic_tissue`. They show that the pipeline works; they say
nothing about breast cancer, and figures made on them are never results.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ductal.data.layout import SYNTHETIC_MARKER
from ductal.data.naming import format_patch_name
from ductal.data.synthetic_tissue import TILE, draw_slide
from ductal.data.workers import ordered_map
from ductal.errors import DataError
from ductal.files import atomic_file, atomic_folder
from ductal.machine import available_cores

FOLDER = "IDC_synthetic_ps50_idx5"
FIRST_PATIENT = 90001  # out of the range of the archive's own ids
NOTICE = (
    "These are synthetic images, drawn by a program (ductal, make_synthetic).\n"
    "They show no patient and no tissue. Use them to try and to test software only:\n"
    "figures measured on them must never be reported as results.\n"
)

_MAX_PATIENTS = 99999 - FIRST_PATIENT + 1
_MAX_PATCHES = 10_000  # a slide is drawn whole in memory, about 100 bytes a pixel
_SMALL_SHARE = 0.009  # patches cut off by the slide's edge, as in the archive
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # fixed, so that equal seeds give equal archives

_WORTH_WORKERS = 4000  # patches; below, starting worker processes takes longer than drawing in this one

Files = list[tuple[str, bytes]]  # (name in the archive, content)


def make_synthetic(
    out: str | Path,
    *,
    patients: int = 24,
    patches_per_patient: int = 60,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a synthetic cohort with the layout and file names of the genuine archive.

    Each patient is one virtual slide cut into 50 x 50 px patches on a grid; neighbours continue each other.
    About 28 % of the patches are carcinoma (5 to 60 % of a patient), about 2 % of the labels are wrong (at
    tumour borders) and about 0.9 % of the patches are smaller than 50 px. Memory holds one slide a worker.

    Args:
        out: the archive to write when it ends in ".zip", otherwise a folder.
        patients: number of patients, 1 to 9,999; ids start at 90001.
        patches_per_patient: patches of each patient, 4 to 10,000.
        seed: equal seeds (with equal numbers) give identical bytes, whatever `workers` is.
        workers: processes; by default one for each core, or one alone for a small cohort.
        progress: called with (patches done, patches in all) after each patient.

    Returns:
        The path written; it holds `IDC_synthetic_ps50_idx5/`, with `SYNTHETIC.txt` in it.

    Raises:
        DataError: a number is out of range, or `out` is a folder with something else in it.
        StorageError: the disk is full, read-only or refused the write.
    """
    out = Path(out)
    if workers is None:
        workers = available_cores() if patients * patches_per_patient >= _WORTH_WORKERS else 1
    _check(out, patients, patches_per_patient, seed, workers)
    # Closing the stream ends its worker processes, also when a write fails.
    with closing(_stream(patients, patches_per_patient, seed, workers, progress)) as batches:
        if out.suffix.lower() == ".zip":
            _write_zip(out, batches)
        else:
            _write_folder(out, batches)
    return out


def _check(out: Path, patients: int, patches_per_patient: int, seed: int, workers: int) -> None:
    for name, value, low, high in (
        ("patients", patients, 1, _MAX_PATIENTS),
        ("patches_per_patient", patches_per_patient, 4, _MAX_PATCHES),
        ("seed", seed, 0, 2**63),
        ("workers", workers, 1, 1024),
    ):
        if not low <= value <= high:
            raise DataError(
                f"A synthetic cohort needs {name} from {low} to {high}. Received: {name}={value}."
            )
    if out.suffix.lower() == ".zip":
        if out.is_dir():
            raise DataError(f"{out} is a folder, so no archive can be written there. Choose another name.")
        return
    foreign = out.exists() and not (out / FOLDER / SYNTHETIC_MARKER).exists()
    if foreign and (not out.is_dir() or any(out.iterdir())):
        raise DataError(
            f"{out} exists and is not a synthetic cohort, so it will not be replaced. Choose a new folder."
        )


def _stream(
    patients: int,
    patches_per_patient: int,
    seed: int,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> Generator[Files, None, None]:
    """Yield the marker file, then the files of one patient after the other."""
    # The marker comes first: even an interrupted copy of the cohort says what it is.
    yield [(f"{FOLDER}/{SYNTHETIC_MARKER}", NOTICE.encode("utf-8"))]
    draw = partial(_patient_files, n_patches=patches_per_patient, seed=seed)
    for done, files in enumerate(ordered_map(draw, range(patients), workers), start=1):
        yield files
        if progress is not None:
            progress(done * patches_per_patient, patients * patches_per_patient)


def _positive_share(index: int, seed: int) -> float:
    """Tumour share of a patient, 0.05 to 0.6, mean 0.28; golden-ratio steps spread it evenly."""
    start = np.random.default_rng(seed).random()
    return float(0.05 + 0.55 * ((start + index * 0.6180339887) % 1.0) ** 1.4)


def _patient_files(index: int, n_patches: int, seed: int) -> Files:
    """Draw the slide of patient number `index` and return its patches as (name, PNG bytes)."""
    rng = np.random.default_rng([seed, index])
    slide = draw_slide(rng, n_patches, _positive_share(index, seed))
    patient = str(FIRST_PATIENT + index)
    small = int((index + 1) * n_patches * _SMALL_SHARE) - int(index * n_patches * _SMALL_SHARE)
    # The right edge of the scan is where patches are cut off.
    cut = set(np.argsort(-slide.tiles[:, 0], kind="stable")[:small].tolist())
    files = []
    for number, (column, row) in enumerate(slide.tiles.tolist()):
        label = int(slide.labels[number])
        x, y = column * TILE, row * TILE
        width = int(rng.integers(8, TILE - 2)) if number in cut else TILE
        name = format_patch_name(patient, x + 1, y + 1, label)
        buffer = io.BytesIO()
        Image.fromarray(slide.pixels[y : y + TILE, x : x + width]).save(buffer, "PNG", compress_level=4)
        files.append((f"{FOLDER}/{patient}/{label}/{name}", buffer.getvalue()))
    return files


def _write_zip(out: Path, batches: Iterator[Files]) -> None:
    with atomic_file(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for files in batches:
            for name, content in files:
                entry = zipfile.ZipInfo(name, _ZIP_DATE)
                entry.create_system = 3  # "Unix" on every system, for identical bytes
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, content)


def _write_folder(out: Path, batches: Iterator[Files]) -> None:
    with atomic_folder(out) as temporary:
        for files in batches:
            for name, content in files:
                path = temporary / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

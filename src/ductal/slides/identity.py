"""What a slide's result was made from: the slide, the run and the settings, as digests."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ductal.errors import DataError, RunError
from ductal.inference.encoder import ABOUT, ENCODER_FOLDER
from ductal.inference.predictor import MEMBERS

FORMAT = 1  # of the folder; a result of another format is computed anew
_END_BYTES = 1 << 20


def identity_files(run_folder: Path) -> list[Path]:
    """The files of a run that determine its probabilities; `ABOUT` holds the digests of an encoder's others."""
    files = [run_folder / "model.keras", *sorted((run_folder / MEMBERS).glob("*/model.keras"))]
    files += [path.parent / name for path in files for name in ("calibration.json", f"{ENCODER_FOLDER}/{ABOUT}")]
    return list(filter(Path.is_file, files))


def run_identity(run_folder: Path) -> dict[str, Any]:
    """Name of a run and SHA-256 of its `identity_files`. Raises RunError."""
    digests = {}
    try:
        for path in identity_files(run_folder):
            with path.open("rb") as handle:
                digests[path.relative_to(run_folder).as_posix()] = hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise RunError(f"{run_folder} cannot be read ({error}). Name a folder under runs/.") from error
    return {"name": run_folder.resolve().name, "sha256": digests}


def slide_fingerprint(path: Path) -> str:
    """A digest of a slide's files: sizes, and the first and last MiB; reading gigabytes would take minutes.

    A file of MRXS has its pixels in a folder beside it.

    Raises:
        DataError: one of them cannot be read.
    """
    digest = hashlib.sha256()
    beside = path.with_suffix("") if path.suffix.lower() == ".mrxs" else None
    try:
        for file in [path, *(sorted(beside.iterdir()) if beside is not None and beside.is_dir() else [])]:
            size = file.stat().st_size
            digest.update(f"{file.name} {size}\n".encode())
            with file.open("rb") as handle:
                digest.update(handle.read(_END_BYTES))
                handle.seek(max(0, size - _END_BYTES))
                digest.update(handle.read(_END_BYTES))
    except OSError as error:  # whose own text has names of files, which may name a patient
        raise DataError(f"{path} cannot be read ({error.strerror}). Check its permissions; copy it again.") from error
    return digest.hexdigest()


def pseudonym_of(path: Path) -> str:
    """A name for a slide that is the same in every call, and says nothing of its file's name. Raises DataError."""
    return f"slide-{slide_fingerprint(path)[:12]}"


def identity_of(parts: dict[str, Any]) -> str:
    """One digest of everything a result depends on; equal ones need not be computed again."""
    text = json.dumps({"format": FORMAT, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()

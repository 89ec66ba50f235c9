"""What every run folder records, whoever writes it: data, split, audit, versions, predictions."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ductal.data.audit import AuditReport
from ductal.data.cohort import Cohort
from ductal.data.split import Split
from ductal.errors import RunError
from ductal.files import atomic_file
from ductal.inference.encoder import ABOUT, ENCODER_FOLDER


def check_run_target(out: Path, sources: Sequence[Path]) -> None:
    """Before the work of making the run folder `out`, which replaces what is there.

    Args:
        out: what will be written; absent, empty, or an earlier run.
        sources: what it is made from, and must not be in it.

    Raises:
        RunError: `out` is something else, or holds one of `sources`.
    """
    blocked = any(out.iterdir()) and not (out / "run.json").is_file() if out.is_dir() else os.path.lexists(out)
    if blocked:
        raise RunError(f"{out} exists and is not a run, so it is not replaced by one. Name a new folder under runs/.")
    for source in sources:
        if source.resolve().is_relative_to(out.resolve()):
            raise RunError(f"{out} holds {source}, which is needed, and would be replaced. Name another folder.")


def describe_data(cohort: Cohort, split: Split, audit: AuditReport) -> dict[str, Any]:
    """The cohort, split and audit blocks of `run.json`."""
    return {
        "cohort": cohort.info.model_dump(mode="json"),
        "cohort_folder": str(cohort.folder.resolve()),
        "split": {
            "id": split.identity,
            "name": split.name,
            "seed": split.seed,
            "fold": split.fold,
            "by": split.by,
            "counts": split.count(cohort),
            "trained_on": len(split.rows(cohort, "train")),
            "cross_fitted": split.cross_fitted,
            "notes": split.notes,
        },
        "audit": audit.model_dump(mode="json"),
    }


def to_json(data: Any) -> str:
    """Strict JSON: an undefined figure (nan) is null."""
    return json.dumps(_without_nan(data), indent=2, allow_nan=False) + "\n"


def _without_nan(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _without_nan(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_without_nan(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def package_versions(*names: str) -> dict[str, str]:
    """Versions of Python and of installed packages."""
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def predictions_of(cohort: Cohort, rows: np.ndarray, probs: np.ndarray) -> pd.DataFrame:
    """What was said of some rows of a cohort: patch_id, patient, label, prob (float32)."""
    table = cohort.table.iloc[rows][["patch_id", "patient", "label"]].reset_index(drop=True)
    return table.assign(prob=probs.astype(np.float32))


def save_predictions(folder: Path, part: str, predictions: pd.DataFrame) -> None:
    """Write `predictions/<part>.parquet`, as from `predictions_of`, whole or not at all.

    Raises:
        StorageError: the disk refused the write.
    """
    with atomic_file(folder / "predictions" / f"{part}.parquet") as temporary:
        predictions.to_parquet(temporary, index=False)


def model_digest(run_folder: Path) -> str:
    """Hex SHA-256 over the run's network and what names its encoder, or over those of an ensemble in order."""
    digest = hashlib.sha256()
    for path in sorted(run_folder.glob("members/*/model.keras")) or [run_folder / "model.keras"]:
        for file in filter(Path.is_file, (path, path.parent / ENCODER_FOLDER / ABOUT)):
            with file.open("rb") as handle:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()

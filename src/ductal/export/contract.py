"""`ductal.json`, which lies beside every exported model: what it takes, what it gives, where it is from."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ductal.export.formats import Format
from ductal.export.graph import INPUT, OUTPUT, LoadedRun
from ductal.export.parity import Comparison
from ductal.export.sample import Sample
from ductal.loading.records import read_json
from ductal.record import package_versions

CONTRACT = "ductal.json"
USE = "Research use only. Not a medical device."


def about(folder: Path, run: LoadedRun, record: dict[str, Any]) -> dict[str, Any]:
    """What a program needs to use the probabilities; also put into the model where its format has metadata."""
    settings = read_json(folder / "calibration.json")
    cohort = record.get("cohort", {})
    trained_on = {key: cohort.get(key) for key in ("name", "fingerprint", "synthetic")}
    return {
        "input": {
            "name": INPUT, "dtype": "uint8", "shape": [None, 50, 50, 3],
            "values": "RGB, 0 to 255, not rescaled; 50 px at the spacing of the training patches",
        },
        "output": {
            "name": OUTPUT, "dtype": "float32", "shape": [None],
            "values": "calibrated probability of invasive ductal carcinoma",
        },
        "labels": settings.get("labels", {"0": "not_cancer", "1": "cancer"}),
        "threshold": run.threshold,
        "rule": "label 1 where probability >= threshold, else 0",
        "spacing_um": settings.get("spacing_um"),
        "use": USE + (" Trained on synthetic images: of no use on tissue." if cohort.get("synthetic") else ""),
        "run": {
            "name": record.get("name", folder.name),
            "trained_on": trained_on,
            "split": record.get("split", {}).get("id"),
            "models": [
                {
                    "file": item.name, "sha256": item.sha256,
                    "temperature": item.temperature, "bias": item.bias,
                }
                for item in run.networks
            ],
            "temperature": run.temperature,
            "bias": run.bias,
            "d4": run.d4,
        },
    }  # fmt: skip


def contract(
    told: dict[str, Any], to: str, chosen: Format, precision: str, folder: Path,
    compared: Comparison, sample: Sample, speed: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """All of `ductal.json`, for the files that are in `folder`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CONTRACT)
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    libraries = ("ductal", "tensorflow", "keras", "numpy", *chosen.packages.values())
    settings = {"openvino": {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32"}}
    return {
        "format": to,
        "precision": precision,
        "model": chosen.model,
        "inside_the_model": chosen.inside,
        "run_with": settings.get(to, {}),
        **told,
        "bytes": sum(sizes.values()),
        "files": {name: {"bytes": size, "sha256": _digest(folder / name)} for name, size in sizes.items()},
        "parity": {"patches": len(sample.patches), "source": sample.source, **asdict(compared)},
        "speed": {**speed, "batch": 64},
        "versions": package_versions(*(libraries + (("nncf",) if precision == "int8" else ()))),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()

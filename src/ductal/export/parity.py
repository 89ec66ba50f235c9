"""The gate: an exported model must give the run's probabilities, by its own runtime, or there is no export."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import ductal
from ductal.errors import ExportError
from ductal.evaluation.metrics import binary_metrics
from ductal.export.formats import BOUNDS, INT8_COST, Format
from ductal.export.reference import Reference
from ductal.machine import available_cores

MINUTES = 30  # after which a runtime is taken to hang
TIMED_SECONDS = 1.0  # how long its speed is measured


@dataclass(frozen=True)
class Comparison:
    """What the gate found: all of it goes into `ductal.json`."""

    largest_difference: float
    mean_difference: float
    bound: float
    reference_resolution: float
    calls_changed: int
    reference_range: tuple[float, float]
    cost: dict[str, dict[str, float]]


def run_exported(to: str, chosen: Format, folder: Path, precision: str, patches: np.ndarray) -> Any:
    """Run the model in `folder` by the runtime of the format `to`, in a fresh process.

    Returns:
        probabilities float32 (n,), and the runtime's version and images/s.

    Raises:
        ExportError: the runtime cannot load or run it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "patches.bin", Path(scratch) / "probabilities.bin"
        np.ascontiguousarray(patches).tofile(source)
        files = [str(source), str(target)]
        model = str((folder / chosen.model).resolve())
        if to == "tfjs":
            command = ["node", str(Path(__file__).with_name("check_tfjs.cjs")), model, *files, str(TIMED_SECONDS)]
        else:
            settings = [to, model, precision, str(available_cores())]
            command = [sys.executable, "-m", "ductal.export.runtimes", *settings, *files]
            command += ["--seconds", str(TIMED_SECONDS)]
        told = _answer(command, chosen)
        return np.fromfile(target, np.float32), told


def _answer(command: list[str], chosen: Format) -> dict[str, Any]:
    home = str(Path(ductal.__file__).parent.parent)
    known = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH")))),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    try:
        ended = subprocess.run(command, capture_output=True, text=True, env=known, timeout=60 * MINUTES, check=False)
    except subprocess.TimeoutExpired:
        raise ExportError(f"{chosen.title} did not finish within {MINUTES} minutes. Nothing was kept.") from None
    if ended.returncode == 3 and command[0] == "node":
        raise ExportError(
            f"An export to tfjs is checked by TensorFlow.js itself: {ended.stderr.strip()}. "
            "Install it: npm install @tensorflow/tfjs @tensorflow/tfjs-backend-wasm, in the folder where you call "
            "ductal (or in one that NODE_PATH names). Or export to litert or onnx, which run in a browser too."
        )
    if ended.returncode:
        why = (ended.stderr.strip().splitlines() or [f"it ended with {ended.returncode}"])[-1]
        raise ExportError(f"{chosen.title} cannot run what was written ({why}). Nothing was kept.")
    answer: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
    return answer


def compare(
    reference: Reference, found: np.ndarray, precision: str, *, threshold: float, labels: np.ndarray | None
) -> Comparison:
    """Compare an export's probabilities with the run's.

    Args:
        reference: of the run.
        found: float32 (n,), of the exported model.
        precision: sets the bounds.
        threshold: of the run.
        labels: int8 (n,) of real patches, for what 16 and 8 bits cost; else None.

    Raises:
        ExportError: a bound is passed, or a probability, of the run or of the export, is missing or no number.
    """
    expected = reference.probs
    _check_numbers(expected, found)
    apart = np.abs(found.astype(np.float64) - expected)
    changed = (found >= threshold) != (expected >= threshold)
    compared = Comparison(
        float(apart.max()), float(apart.mean()), BOUNDS[precision], reference.resolution, int(changed.sum()),
        (float(expected.min()), float(expected.max())), _cost(expected, found, threshold, labels),
    )  # fmt: skip
    if reference.distance(found).max() > compared.bound:
        raise ExportError(
            f"The exported model is not the run: its probabilities differ by up to {compared.largest_difference:.2g} "
            f"on {len(expected)} patches, and {compared.bound:g} is allowed in {precision}. Nothing was kept. "
            "Choose another format or precision, and report this."
        )
    for name, allowed in INT8_COST.items() if precision == "int8" and compared.cost else ():
        run, export = compared.cost[name]["run"], compared.cost[name]["export"]
        if run - export > allowed:
            raise ExportError(
                f"8 bits cost too much: {name.replace('_', ' ')} falls from {run:.3f} to {export:.3f} on "
                f"{len(expected)} validation patches, and {allowed:g} is allowed. Nothing was kept. "
                "Choose --precision float16."
            )
    return compared


def _cost(
    reference: np.ndarray, found: np.ndarray, threshold: float, labels: np.ndarray | None
) -> dict[str, dict[str, float]]:
    """AUC and balanced accuracy of run and export, where both classes are there."""
    if labels is None or len(set(labels.tolist())) < 2:
        return {}
    run, export = (binary_metrics(labels, np.clip(probs, 0, 1), threshold) for probs in (reference, found))
    return {name: {"run": run[name], "export": export[name]} for name in INT8_COST}


def _check_numbers(expected: np.ndarray, found: np.ndarray) -> None:
    """What is no number passes every bound, since no comparison with it is true."""
    unknown = int((~np.isfinite(expected)).sum())
    if unknown:
        raise ExportError(
            f"The run itself gives no number for {unknown} of {len(expected)} patches, so that no export can be "
            "compared with it. Nothing was kept. Train it anew."
        )
    if found.shape != expected.shape or not np.isfinite(found).all():
        raise ExportError(
            f"The exported model gives {found.shape} probabilities, {int((~np.isfinite(found)).sum())} of them no "
            f"numbers, for {len(expected)} patches. Nothing was kept. Choose another format."
        )

"""What a run can be exported to, in which precisions, how far it may be off, and what each needs installed."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib import util

from ductal.errors import ExportError

# Largest difference in probability from the run in float32. Those of 16 and 8 bits were set by judgement; what each
# export differs by is measured and written down.
BOUNDS = {"float32": 1e-4, "float16": 0.005, "bfloat16": 0.05, "int8": 0.3}
# 8 bits move single patches; what they may cost is told by the labels: drop of AUC and of balanced accuracy.
INT8_COST = {"roc_auc": 0.01, "balanced_accuracy": 0.02}


@dataclass(frozen=True)
class Format:
    """A format of exported models.

    Attributes:
        title: what it is called.
        model: the file or folder of the model inside the export.
        precisions: those it can have; the first is the default.
        packages: what writing and checking it needs, as import name to name on the package index.
        inside: what the model itself holds beside the network; the rest is in `ductal.json`.
        why_not: the reason why a precision that is not in `precisions` is missing.
    """

    title: str
    model: str
    precisions: tuple[str, ...]
    packages: dict[str, str]
    inside: str
    why_not: str = ""


_CALIBRATED = "preprocessing, temperature and bias"
_LABELLED = f"{_CALIBRATED}, and label map and threshold as metadata"
FORMATS = {
    "openvino": Format(
        "OpenVINO IR", "model.xml", ("float32", "float16", "bfloat16", "int8"), {"openvino": "openvino"}, _LABELLED
    ),
    "onnx": Format(
        "ONNX", "model.onnx", ("float32", "float16"),
        {"tf2onnx": "tf2onnx", "onnx": "onnx", "onnxruntime": "onnxruntime"}, _LABELLED,
        "ONNX Runtime computes in float32 on a CPU, and 8 bits are calibrated for OpenVINO only",
    ),
    "litert": Format(
        "LiteRT (TensorFlow Lite)", "model.tflite", ("float32", "float16"), {"ai_edge_litert": "ai-edge-litert"},
        _CALIBRATED, "LiteRT computes in float32 on a CPU, and 8 bits are calibrated for OpenVINO only",
    ),
    "savedmodel": Format(
        "TensorFlow SavedModel", "saved_model", ("float32",), {}, _CALIBRATED,
        "a SavedModel holds its weights as the network computes with them",
    ),
    "tfjs": Format(
        "TensorFlow.js graph model", "model.json", ("float32", "float16"), {}, _LABELLED,
        "TensorFlow.js computes in float32",
    ),
}  # fmt: skip


def checked_format(to: str, precision: str) -> Format:
    """The format named `to`, if it can be had in `precision` here.

    Raises:
        ExportError: no such format or precision, or a package is missing.
    """
    if to not in FORMATS:
        raise ExportError(f"There is no format {to!r}. Choose one of {', '.join(FORMATS)}.")
    chosen = FORMATS[to]
    if precision not in BOUNDS:
        raise ExportError(f"There is no precision {precision!r}. Choose one of {', '.join(BOUNDS)}.")
    if precision not in chosen.precisions:
        raise ExportError(
            f"{chosen.title} is not written in {precision}: {chosen.why_not}. "
            f"Choose --precision {' or '.join(chosen.precisions)}, or --to openvino."
        )
    needed = chosen.packages | ({"nncf": "nncf"} if precision == "int8" else {})
    missing = [package for module, package in needed.items() if util.find_spec(module) is None]
    if missing:
        raise ExportError(
            f"An export to {to} in {precision} needs packages that are not installed: {', '.join(missing)}. "
            "Install them: pip install -c constraints.txt '.[export]'"
        )
    if to == "tfjs" and shutil.which("node") is None:
        raise ExportError(
            "An export to tfjs is checked by TensorFlow.js itself, which needs Node.js, and there is no command "
            "`node`. Install Node.js 18 or later, or export to litert or onnx, which run in a browser too (by "
            "LiteRT.js and ONNX Runtime Web)."
        )
    if precision == "bfloat16":
        _refuse_without_bfloat16()
    return chosen


def _refuse_without_bfloat16() -> None:
    from ductal.machine import cpu

    if not cpu().has_bfloat16:
        raise ExportError(
            "This processor does not compute in bfloat16, so that the difference it makes cannot be measured here. "
            "Export in float32: on a processor that has it, the same file runs in bfloat16 too."
        )

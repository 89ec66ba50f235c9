"""Run an exported model by its format's own runtime, in a process that holds nothing else.

    python -m ductal.export.runtimes FORMAT MODEL PRECISION THREADS PATCHES PROBABILITIES [--seconds S]

PATCHES is a file of uint8 patches, 7500 bytes each; the probabilities are written as float32. Prints one JSON object
with the version of the runtime and the images/s of batches of 64, one after the other, over at least S seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 64
Run = Callable[[np.ndarray], np.ndarray]


def open_openvino(model: Path, precision: str, threads: int) -> tuple[Run, str]:
    """OpenVINO, in float32 unless the export is for bfloat16."""
    import openvino

    hint = "bf16" if precision == "bfloat16" else "f32"
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    return lambda batch: compiled({"patches": batch})["probability"], openvino.__version__


def open_onnx(model: Path, _precision: str, threads: int) -> tuple[Run, str]:
    """ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(["probability"], {"patches": batch})[0], onnxruntime.__version__


def open_litert(model: Path, _precision: str, threads: int) -> tuple[Run, str]:
    """LiteRT's interpreter."""
    from importlib.metadata import version

    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(model), num_threads=threads).get_signature_runner("serving_default")
    return lambda batch: runner(patches=batch)["probability"], version("ai-edge-litert")


def open_savedmodel(model: Path, _precision: str, threads: int) -> tuple[Run, str]:
    """TensorFlow without Keras."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    loaded: Any = tf.saved_model.load(str(model))
    serve = loaded.signatures["serving_default"]
    return lambda batch: serve(patches=tf.constant(batch))["probability"].numpy(), tf.__version__


OPENERS = {
    "openvino": open_openvino, "onnx": open_onnx, "litert": open_litert, "savedmodel": open_savedmodel,
}  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser()
    for name in ("to", "model", "precision", "threads", "source", "target"):
        parser.add_argument(name)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    run, version = OPENERS[options.to](Path(options.model), options.precision, int(options.threads))
    patches = np.fromfile(options.source, np.uint8).reshape(-1, 50, 50, 3)
    batches = [patches[start : start + BATCH] for start in range(0, len(patches), BATCH)]
    np.concatenate([run(batch) for batch in batches]).astype(np.float32).tofile(options.target)
    done, started, seconds = 0, time.perf_counter(), 0.0
    while not done or seconds < options.seconds:  # the pass above made everything ready
        for batch in batches:
            run(batch)
        done, seconds = done + len(patches), time.perf_counter() - started
    print(json.dumps({"runtime": version, "images_per_second": done / seconds}))


if __name__ == "__main__":
    main()

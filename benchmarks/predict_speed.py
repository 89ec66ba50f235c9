"""Prediction: the Predictor against raw OpenVINO at the same batch size, and against Keras `predict` in float32.

    python benchmarks/predict_speed.py RUN [--patches N] [--batch B] [--repeats R]

RUN is a run folder. The patches are random, which costs the same as tissue. Prints one JSON object with images/s
(medians) and ratios; all three take uint8 patches from one array in memory.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ductal.inference.engines import IR_FOLDER, OpenVINOEngine, load_keras
from ductal.inference.predictor import Predictor


def rate(work: Callable[[], object], images: int, repeats: int) -> float:
    """Images per second of the median pass, after one that is not timed."""
    work()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return images / float(np.median(seconds))


def raw_openvino(run: Path, patches: np.ndarray, batch: int, precision: str) -> Callable[[], object]:
    """The least that OpenVINO itself needs: its own queue, batches cut beforehand, results thrown away."""
    import openvino

    settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": precision}
    compiled = openvino.Core().compile_model(run / IR_FOLDER / "model.xml", "CPU", settings)
    queue = openvino.AsyncInferQueue(compiled)
    tensors = [openvino.Tensor(patches[start : start + batch]) for start in range(0, len(patches), batch)]

    def work() -> None:
        for tensor in tensors:
            queue.start_async({0: tensor})
        queue.wait_all()

    return work


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--patches", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    shape = (options.patches, 50, 50, 3)
    patches = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    predictor = Predictor.from_run(options.run, engine="openvino")
    assert isinstance(predictor.engine, OpenVINOEngine)
    model = load_keras(options.run / "model.keras")
    settings = {"batch_size": options.batch}
    found = {
        "predictor": rate(lambda: predictor.predict(patches, **settings), len(patches), options.repeats),
        "raw_openvino": rate(
            raw_openvino(options.run, patches, options.batch, predictor.engine.precision),
            len(patches),
            options.repeats,
        ),
        "keras_float32": rate(
            lambda: model.predict(patches, verbose=0, batch_size=options.batch), len(patches), options.repeats
        ),
    }
    result = {name: round(value, 1) for name, value in found.items()} | {
        "precision": predictor.engine.precision,
        "batch": options.batch,
        "share_of_raw_openvino": round(found["predictor"] / found["raw_openvino"], 3),
        "ratio_to_keras": round(found["predictor"] / found["keras_float32"], 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

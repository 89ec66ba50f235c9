"""What runs a finished model: OpenVINO on a CPU where it is installed, else TensorFlow.

OpenVINO's form of a model is made once, by TensorFlow, and kept in the run folder (``openvino/``), so that later
predictions start without TensorFlow. It belongs to one ``model.keras`` and to one user; see `ir_cache`.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from importlib import util
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from ductal.errors import RunError, StorageError
from ductal.files import atomic_folder
from ductal.inference import ir_cache
from ductal.inference.encoder import ENCODER_FOLDER, OnnxEncoder, has_encoder, open_encoder
from ductal.inference.ir_cache import IR_FOLDER
from ductal.loading.keras_file import load_model_file
from ductal.loading.records import read_json
from ductal.machine import thread_limit

EngineName = Literal["auto", "openvino", "tensorflow"]
Where = tuple[int, slice]  # (view, positions) in the array of results


class Engine(Protocol):
    """Runs batches of uint8 patches. `streams` is how many of them it computes side by side."""

    name: str
    streams: int

    def run(self, batches: Iterable[tuple[Where, np.ndarray]], out: np.ndarray) -> None:
        """Write the probabilities of each batch, uint8 (b, 50, 50, 3), to its place in `out`, float32 (views, n)."""


class TensorFlowEngine:
    """A Keras model on whatever device TensorFlow has."""

    name = "tensorflow"
    streams = 1  # a batch keeps all cores busy

    def __init__(self, model: Any) -> None:
        self._model = model

    def run(self, batches: Iterable[tuple[Where, np.ndarray]], out: np.ndarray) -> None:
        """See `Engine.run`."""
        for where, batch in batches:
            out[where] = np.asarray(self._model.predict_on_batch(batch))[:, 0]


class EncoderEngine:
    """A frozen ONNX encoder and the Keras head that was trained on its features.

    Args:
        encoder: the encoder.
        head: float32 features (n, d) to float32 (n, 1).
    """

    streams = 1  # a batch keeps all cores busy

    def __init__(self, encoder: OnnxEncoder, head: Any) -> None:
        self._encoder, self._head, self.name = encoder, head, encoder.runtime

    def run(self, batches: Iterable[tuple[Where, np.ndarray]], out: np.ndarray) -> None:
        """See `Engine.run`. Raises RunError where the encoder gives no finite features."""
        for where, batch in batches:
            out[where] = np.asarray(self._head.predict_on_batch(self._encoder.features(batch)))[:, 0]


class OpenVINOEngine:
    """A model on the CPU, several batches at a time.

    Args:
        model: an OpenVINO model or the path of one (`.xml`), uint8 (n, 50, 50, 3) to float32 (n, 1).
        exact: compute in float32; else in bfloat16 where the CPU has it, which moves probabilities by up to 0.02.
    """

    name = "openvino"

    def __init__(self, model: Any, *, exact: bool = True) -> None:
        import openvino

        settings: dict[str, Any] = {"PERFORMANCE_HINT": "THROUGHPUT"}
        settings |= {"INFERENCE_PRECISION_HINT": "f32"} if exact else {}
        settings |= {"INFERENCE_NUM_THREADS": limit} if (limit := thread_limit()) else {}
        self._compiled = openvino.Core().compile_model(model, "CPU", settings)
        self.streams = int(self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self.precision = str(self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string())

    def run(self, batches: Iterable[tuple[Where, np.ndarray]], out: np.ndarray) -> None:
        """See `Engine.run`."""
        # A ring of requests, waited for in the order they were started. No callbacks: one that holds Python's lock
        # while the model is destroyed would wait for ever.
        running: deque[tuple[Any, Where]] = deque()
        def collect() -> Any:
            request, where = running.popleft()
            request.wait()
            out[where] = request.get_output_tensor(0).data[:, 0]
            return request

        for number, (where, batch) in enumerate(batches):
            request = self._compiled.create_infer_request() if number < self.streams else collect()
            request.set_input_tensor(0, openvino_tensor(batch))
            request.start_async()
            running.append((request, where))
        while running:
            collect()


def openvino_tensor(batch: np.ndarray) -> Any:
    """`batch` as an OpenVINO tensor of its own memory."""
    import openvino

    return openvino.Tensor(np.ascontiguousarray(batch))


def open_engine(run_folder: Path, name: EngineName = "auto", *, exact: bool = False) -> Engine:
    """The engine for `run_folder/model.keras`.

    A run on an ONNX encoder has an engine of its own: "auto" is what `ductal.inference.onnx_runtimes` chooses,
    "openvino" OpenVINO or an error, and TensorFlow cannot run it.

    Args:
        run_folder: a finished run.
        name: "auto" is OpenVINO where it is installed, can run the model and there is no NVIDIA GPU, else TensorFlow.
        exact: compute in float32 also where the run was trained in 16 bits.

    Raises:
        RunError: the model cannot be loaded; or OpenVINO is asked for, and not installed or unable to run it.
    """
    if has_encoder(run_folder):
        return _open_on_encoder(run_folder, name)
    if name == "openvino" and not is_installed():
        raise RunError("The engine openvino is not installed. Install it: pip install openvino, or use tensorflow.")
    if name == "openvino" or (name == "auto" and is_installed() and not has_gpu()):
        # A network that learned in 16 bits loses nothing by predicting in them; another does, and may gain no speed.
        in_float32 = exact or _precision(run_folder) == "float32"
        try:
            return _open_openvino(run_folder, exact=in_float32)
        except RunError:
            raise
        except Exception as error:  # OpenVINO has kinds of its own, and plain RuntimeErrors
            if name == "openvino":
                raise RunError(
                    f"OpenVINO cannot run {run_folder / 'model.keras'} ({error}). Use the engine tensorflow."
                ) from error
    return TensorFlowEngine(load_keras(run_folder / "model.keras"))


def is_installed() -> bool:
    """Whether OpenVINO is."""
    return util.find_spec("openvino") is not None


def _precision(run_folder: Path) -> str:
    """What the run trained in."""
    try:
        return str(read_json(run_folder / "run.json")["precision"])
    except (OSError, ValueError, KeyError):  # a model without its record: nothing is taken for granted
        return "float32"


def load_keras(path: Path) -> Any:
    """The network of a `.keras` file, whoever wrote it, that takes patches; see `ductal.loading.keras_file`.

    Raises:
        RunError: it cannot be loaded, or is the head of an ONNX encoder.
    """
    model = load_model_file(path)
    if len(model.input_shape) == 2:
        raise RunError(
            f"{path} is a head on a frozen ONNX encoder, whose layers Keras does not have: no Grad-CAM, embeddings "
            "or export. There are `ductal explain --method occlusion` and `ductal context --heads smoothing`."
            if has_encoder(path.parent)
            else f"{path} is a head without its encoder: the folder {ENCODER_FOLDER} is missing. "
            "Copy the whole run again."
        )
    return model


def _open_on_encoder(run_folder: Path, name: EngineName) -> EncoderEngine:
    if name == "tensorflow":
        raise RunError(
            f"{run_folder} stands on an ONNX encoder, which TensorFlow cannot run. Use the engine auto: OpenVINO or "
            "ONNX Runtime."
        )
    if name == "openvino" and not is_installed():
        raise RunError("The engine openvino is not installed. Install it: pip install openvino, or use auto.")
    encoder = open_encoder(run_folder, "openvino" if name == "openvino" else None)
    head = load_model_file(run_folder / "model.keras")
    if head.input_shape != (None, encoder.width):
        raise RunError(
            f"The network in {run_folder} takes {head.input_shape}, and its encoder gives {encoder.width} features a "
            "patch: they do not belong together. Copy the whole run again, or train the recipe again."
        )
    return EncoderEngine(encoder, head)


def has_gpu() -> bool:
    """Whether TensorFlow has an NVIDIA GPU to use."""
    if shutil.which("nvidia-smi") is None:  # without the driver's tool, TensorFlow need not be asked
        return False
    from ductal.console import quiet_tensorflow

    quiet_tensorflow()
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def _open_openvino(run_folder: Path, *, exact: bool) -> OpenVINOEngine:
    """From the OpenVINO model in the run, made now where it is missing, damaged, of another network or user."""
    source, folder = run_folder / "model.keras", run_folder / IR_FOLDER
    if ir_cache.is_ours(run_folder):
        with suppress(RuntimeError):  # made by another version
            return OpenVINOEngine(folder / ir_cache.MODEL, exact=exact)
    converted = _convert(load_keras(source))
    import openvino

    # A read-only run or a full disk: converted anew each time. OpenVINO tells the latter as a RuntimeError.
    with suppress(StorageError, RuntimeError), atomic_folder(folder) as temporary:
        openvino.save_model(converted, temporary / ir_cache.MODEL, compress_to_fp16=False)
        ir_cache.seal(source, temporary)
    return OpenVINOEngine(converted, exact=exact)


def _convert(model: Any) -> Any:
    import openvino
    import tensorflow as tf

    forward = tf.function(lambda patches: model(patches, training=False))
    signature = tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)
    return openvino.convert_model(forward.get_concrete_function(signature))

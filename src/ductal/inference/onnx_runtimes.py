"""What runs an ONNX encoder on this machine: ONNX Runtime on an NVIDIA GPU, else OpenVINO, else ONNX Runtime."""

from __future__ import annotations

import math
import os
import shutil
from importlib import util
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from ductal.errors import RunError
from ductal.machine import thread_limit

MAX_VALUES = 2**28  # that an operation may compute for one patch; ViT-g/14 at 224 px has 1.6e6
Layout = Literal["nchw", "nhwc"]
Runtime = Literal["openvino", "onnxruntime"]
_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class Session(Protocol):
    """A loaded encoder.

    Attributes:
        name: what runs it: "openvino" and "onnxruntime" on the CPU, "onnxruntime-cuda" on an NVIDIA GPU.
        batch: the only number of patches it takes at once; None for any.
    """

    name: str
    batch: int | None

    def run(self, pixels: np.ndarray) -> np.ndarray:
        """The chosen output for float32 pixels in the encoder's layout."""


def open_session(
    path: Path, input_px: int, layout: Layout, output: str | None, runtime: Runtime | None = None
) -> Session:
    """Load an ONNX file that `onnx_files` has let through.

    Args:
        path: the file.
        input_px, layout, output: see `ductal.inference.encoder.EncoderInput`.
        runtime: what shall run it. None is ONNX Runtime where it can use an NVIDIA GPU, else OpenVINO where that is
            installed, else ONNX Runtime.

    Raises:
        RunError: no runtime is installed, or a network that takes or gives something else; the reason alone.
    """
    kinds: dict[Runtime, type[_OpenVINO] | type[_OnnxRuntime]] = {"openvino": _OpenVINO, "onnxruntime": _OnnxRuntime}
    wanted = runtime or ("onnxruntime" if _can_use_cuda() else None)
    kind = next((kinds[name] for name in kinds if wanted in (name, None) and util.find_spec(name) is not None), None)
    if kind is None:
        missing = f"{runtime} is not" if runtime else "neither OpenVINO nor ONNX Runtime is"
        raise RunError(f"{missing} installed (pip install {runtime or 'openvino'})")
    try:
        return kind(path, input_px, layout, output)
    except RunError:
        raise
    except Exception as error:  # both have kinds of their own, and plain RuntimeErrors
        raise RunError(f"{kind.name} cannot load it ({str(error).strip()[:300]})") from error


def _can_use_cuda() -> bool:
    """Whether ONNX Runtime is installed as it is for NVIDIA GPUs, and their driver's tool is there."""
    if util.find_spec("onnxruntime") is None or shutil.which("nvidia-smi") is None:
        return False
    import onnxruntime

    return _CUDA in onnxruntime.get_available_providers()


class _OpenVINO:
    name = "openvino"

    def __init__(self, path: Path, input_px: int, layout: Layout, output: str | None) -> None:
        import openvino

        core = openvino.Core()
        model = core.read_model(path)
        self._output = _chosen([_name(end, output) for end in model.outputs], output)
        shapes = [[dim.get_length() if dim.is_static else None for dim in end.partial_shape] for end in model.inputs]
        kinds = [end.element_type.to_string() for end in model.inputs]
        self.batch = check_input(shapes, kinds, input_px, layout)
        self._type = {"f32": np.float32, "f16": np.float16}[kinds[0]]
        sides = (3, input_px, input_px) if layout == "nchw" else (input_px, input_px, 3)
        model.reshape([self.batch or 1, *sides])
        _check_sizes(model)
        model.reshape([self.batch or -1, *sides])
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        settings |= {"INFERENCE_NUM_THREADS": limit} if (limit := thread_limit()) else {}
        self._compiled = core.compile_model(model, "CPU", settings)

    def run(self, pixels: np.ndarray) -> np.ndarray:
        """See `Session.run`."""
        request = self._compiled.create_infer_request()  # of its own: callers may be several threads
        request.infer([pixels.astype(self._type, copy=False)])
        return np.array(request.get_output_tensor(self._output).data)


class _OnnxRuntime:
    name = "onnxruntime"

    def __init__(self, path: Path, input_px: int, layout: Layout, output: str | None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = thread_limit() or 0
        options.log_severity_level = 3
        # TF32, which is the default on newer GPUs, rounds to 10 bits.
        cuda = [(_CUDA, {"use_tf32": "0"})] if _CUDA in onnxruntime.get_available_providers() else []
        if cuda:  # else TensorFlow, which the head needs, takes all of the GPU's memory when it begins
            os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        self._session = onnxruntime.InferenceSession(str(path), options, providers=[*cuda, _CPU])
        if _CUDA in self._session.get_providers():  # not where its libraries are missing
            self.name = "onnxruntime-cuda"
        inputs = self._session.get_inputs()
        ends = [end.name for end in self._session.get_outputs()]
        self._output, self._input = ends[_chosen(ends, output)], inputs[0].name if inputs else ""
        shapes = [[dim if isinstance(dim, int) else None for dim in end.shape] for end in inputs]
        kinds = [{"tensor(float)": "f32", "tensor(float16)": "f16"}.get(end.type, end.type) for end in inputs]
        self.batch = check_input(shapes, kinds, input_px, layout)
        self._type = {"f32": np.float32, "f16": np.float16}[kinds[0]]

    def run(self, pixels: np.ndarray) -> np.ndarray:
        """See `Session.run`."""
        given = {self._input: pixels.astype(self._type, copy=False)}
        return np.asarray(self._session.run([self._output], given)[0])


def check_input(shapes: list[list[int | None]], kinds: list[str], input_px: int, layout: Layout) -> int | None:
    """The batch that an encoder is fixed to, or None; None in `shapes` is any size.

    Raises:
        RunError: it does not have one input of floating-point images of that size.
    """
    if len(shapes) != 1 or kinds[0] not in ("f32", "f16"):
        raise RunError(f"it takes {len(shapes)} inputs of types {', '.join(kinds)}, not one of float32 or float16")
    wanted = [3, input_px, input_px] if layout == "nchw" else [input_px, input_px, 3]
    shape = shapes[0]
    if len(shape) != 4 or any(has not in (None, needs) for has, needs in zip(shape[1:], wanted, strict=True)):
        raise RunError(
            f"its input is {_words(shape)}, and the recipe says {layout} with input_px = {input_px}, which is "
            f"{_words([None, *wanted])}"
        )
    return shape[0]


def _chosen(names: list[str], output: str | None) -> int:
    if output is None and len(names) == 1:
        return 0
    if output is None or output not in names:
        asked = f"no output {output!r}" if output else "several outputs and the recipe names none"
        raise RunError(f"it has {asked}; set output to one of: {', '.join(names[:20])}")
    return names.index(output)


def _name(end: Any, output: str | None) -> str:
    """An output may have several names in OpenVINO: `output` if it is one of them."""
    names: set[str] = end.get_names()
    return output if output and output in names else min(names, default="without a name")


def _words(shape: list[int | None]) -> str:
    return "(" + ", ".join("n" if size is None else str(size) for size in shape) + ")"


def _check_sizes(model: Any) -> None:
    """Raises RunError where an operation would take the memory of thousands of patches for one."""
    for operation in model.get_ordered_ops():
        if operation.get_type_name() == "Constant":
            continue
        for end in operation.outputs():
            shape = end.get_partial_shape()
            if shape.is_static and math.prod(shape.to_shape()) > MAX_VALUES:
                raise RunError(f"it computes {shape} values for one patch, which is too much")

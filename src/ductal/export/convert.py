"""Writing the function of a run in each format; nothing here judges whether what was written is right."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ductal.errors import DuctalError, ExportError
from ductal.export.formats import Format
from ductal.export.graph import INPUT, OUTPUT, LoadedRun, build, frozen
from ductal.files import is_disk_error

ONNX_OPSET = 17
WORTH_SHRINKING = 256  # values; below, halving a constant saves nothing


@dataclass(frozen=True)
class Order:
    """What to write.

    Attributes:
        run: the networks and their calibration.
        precision: one of the format's.
        about: what goes into the model's metadata where the format has any.
        calibration: uint8 (n, 50, 50, 3) training patches, for int8 only.
    """

    run: LoadedRun
    precision: str
    about: dict[str, Any]
    calibration: np.ndarray | None = None


def write(to: str, chosen: Format, order: Order, folder: Path) -> None:
    """Write `order` as the format `to` into `folder`.

    Raises:
        ExportError: the format's own converter failed.
        OSError: the disk refused.
    """
    try:
        WRITERS[to](order, folder / chosen.model)
    except DuctalError:
        raise
    except Exception as error:  # each converter has errors of its own
        if isinstance(error, OSError) and is_disk_error(error):
            raise
        raise ExportError(
            f"The run could not be converted to {chosen.title} ({type(error).__name__}: {error}). Nothing was kept. "
            "Choose another format, or install the versions of constraints.txt."
        ) from error


def write_openvino(order: Order, path: Path) -> None:
    """OpenVINO IR: `model.xml` and `model.bin`."""
    import openvino

    function: Any = build(order.run)
    model = openvino.convert_model(function.get_concrete_function())
    model.inputs[0].tensor.set_names({INPUT})
    model.outputs[0].tensor.set_names({OUTPUT})
    if order.precision == "int8":
        from ductal.export.quantise import to_int8

        assert order.calibration is not None
        model = to_int8(model, order.calibration)
    for name, value in order.about.items():
        model.set_rt_info(json.dumps(value), ["ductal", name])
    openvino.save_model(model, path, compress_to_fp16=order.precision == "float16")


def write_onnx(order: Order, path: Path) -> None:
    """ONNX, one file; in float16 its weights only, which ONNX Runtime widens when it loads them."""
    import onnx
    import tf2onnx

    graph, source, target = frozen(build(order.run))
    model, _ = tf2onnx.convert.from_graph_def(
        graph, "ductal", [source], [target], ONNX_OPSET, tensors_to_rename={source: INPUT, target: OUTPUT}
    )
    if order.precision == "float16":
        _halve_weights(model)
    for name, value in order.about.items():
        model.metadata_props.add(key=f"ductal.{name}", value=json.dumps(value))
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _halve_weights(model: Any) -> None:
    """Large float32 constants of an ONNX model become float16 ones that a node widens."""
    from onnx import TensorProto, helper, numpy_helper

    widening = []
    for constant in model.graph.initializer:
        if constant.data_type != TensorProto.FLOAT or np.prod(constant.dims) < WORTH_SHRINKING:
            continue
        name, narrow = constant.name, numpy_helper.to_array(constant).astype(np.float16)
        constant.CopyFrom(numpy_helper.from_array(narrow, f"{name}/float16"))
        widening.append(helper.make_node("Cast", [constant.name], [name], f"{name}/widen", to=TensorProto.FLOAT))
    nodes = [*widening, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def write_savedmodel(order: Order, path: Path) -> None:
    """TensorFlow SavedModel with the signature ``serving_default``."""
    import tensorflow as tf

    # Not Keras's own archive, whose checkpoints hold every weight twice.
    function: Any = build(order.run)
    module: Any = tf.Module()
    module.weights = list(function.get_concrete_function().variables)
    module.serve = function
    tf.saved_model.save(module, str(path), signatures={"serving_default": function})


def write_litert(order: Order, path: Path) -> None:
    """LiteRT, one file with the signature ``serving_default``; in float16 its weights only."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        write_savedmodel(order, Path(scratch) / "saved_model")
        converter = tf.lite.TFLiteConverter.from_saved_model(
            str(Path(scratch) / "saved_model"), signature_keys=["serving_default"]
        )
        if order.precision == "float16":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        content = converter.convert()
    path.write_bytes(content)


def write_tfjs(order: Order, path: Path) -> None:
    """TensorFlow.js graph model: `model.json` and binary shards."""
    from ductal.export.tfjs import write_graph_model

    write_graph_model(build(order.run), path, half=order.precision == "float16", about=order.about)


WRITERS: dict[str, Callable[[Order, Path], None]] = {
    "openvino": write_openvino,
    "onnx": write_onnx,
    "litert": write_litert,
    "savedmodel": write_savedmodel,
    "tfjs": write_tfjs,
}

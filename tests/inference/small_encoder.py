"""Small ONNX encoders, made for tests by onnx.helper: a strided convolution, a ReLU, tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 64
KERNEL = (np.random.default_rng(3).normal(size=(6, 3, 16, 16)) / 20).astype(np.float32)
MEAN, STD = (0.7, 0.6, 0.7), (0.2, 0.25, 0.2)


def encoder_bytes(
    *, batch: int | str = "n", output: str = "vector", side: int = SIDE, layout: str = "nchw", **changes: Any
) -> onnx.ModelProto:
    """Float32 images to "vector" (n, 6), "tokens" (n, 16, 6) or "maps" (n, 6, 4, 4); `width` in place of 6."""
    width = changes.get("width", 6)
    shape = [batch, 3, side, side] if layout == "nchw" else [batch, side, side, 3]
    nodes = [helper.make_node("Transpose", ["images"], ["first"], perm=[0, 3, 1, 2])] if layout == "nhwc" else []
    nodes += [
        helper.make_node("Conv", ["first" if nodes else "images", "kernel"], ["conv"], strides=[16, 16]),
        helper.make_node("Relu", ["conv"], ["maps"]),
        helper.make_node("Reshape", ["maps", "shape"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["tokens"], perm=[0, 2, 1]),
        helper.make_node("ReduceMean", ["tokens", "axes"], ["vector"], keepdims=0),
    ]
    shapes = {"vector": [batch, width], "tokens": [batch, None, width], "maps": [batch, width, None, None]}
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in output.split(",")]
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        outputs,
        [
            numpy_helper.from_array(changes.get("kernel", KERNEL), "kernel"),
            numpy_helper.from_array(np.array([0, width, -1], np.int64), "shape"),
            numpy_helper.from_array(np.array([1], np.int64), "axes"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def save_encoder(path: Path, **settings: Any) -> Path:
    """The encoder as a file."""
    onnx.save(encoder_bytes(**settings), path)
    return path


def expected_tokens(pixels: np.ndarray) -> np.ndarray:
    """Tokens (n, 16, 6) of images (n, 3, 64, 64), by NumPy."""
    n = len(pixels)
    windows = pixels.reshape(n, 3, 4, 16, 4, 16).transpose(0, 2, 4, 1, 3, 5).reshape(n, 16, -1)
    return np.maximum(windows @ KERNEL.reshape(6, -1).T, 0)

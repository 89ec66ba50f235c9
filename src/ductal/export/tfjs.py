"""TensorFlow.js graph models, written from TensorFlow's own description of a graph.

The package `tensorflowjs` that usually does this is of 2024 and holds TensorFlow at 2.19 and packaging at 23; it
cannot be installed beside TensorFlow 2.21. The format is small: the graph as JSON, its constants as bytes beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ductal.export.graph import INPUT, OUTPUT, frozen

SHARD_BYTES = 4 * 1024 * 1024  # what a browser caches well
KINDS = {"f": ("float32", "<f4"), "i": ("int32", "<i4"), "u": ("int32", "<i4"), "b": ("bool", "u1")}
Weight = tuple[dict[str, Any], bytes]  # its entry in the manifest, and its content


def write_graph_model(function: Callable[..., Any], path: Path, *, half: bool, about: dict[str, Any]) -> None:
    """Write `path` (`model.json`) and the shards beside it.

    Args:
        function: a `tf.function` with one input and one output.
        path: where.
        half: weights in float16, which TensorFlow.js widens when it loads them.
        about: becomes the model's ``userDefinedMetadata``.
    """
    import tensorflow as tf
    graph, source, target = frozen(function)
    nodes, weights = [], []
    for node in _needed(graph, _node_of(target)):
        if node.op == "Const":
            weights.append(_weight(node, half=half))
        nodes.append(_as_json(node))
    manifest = {"paths": _write_shards(weights, path.parent), "weights": [entry for entry, _ in weights]}
    content = {
        "format": "graph-model",
        "generatedBy": tf.__version__,
        "convertedBy": "ductal",
        "signature": {
            "inputs": {INPUT: _tensor(source, "DT_UINT8", [-1, 50, 50, 3])},
            "outputs": {OUTPUT: _tensor(target, "DT_FLOAT", [-1])},
        },
        "userDefinedMetadata": about,
        "modelTopology": {"node": nodes, "versions": {"producer": graph.versions.producer}},
        "weightsManifest": [manifest],
    }
    path.write_text(json.dumps(content), encoding="utf-8")


def _tensor(name: str, dtype: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "tensorShape": {"dim": [{"size": str(size)} for size in shape]}}


def _node_of(tensor: str) -> str:
    return tensor.removeprefix("^").split(":")[0]


def _needed(graph: Any, target: str) -> list[Any]:
    """The nodes that `target` depends on by data, in the graph's order, without their control inputs."""
    by_name = {node.name: node for node in graph.node}
    found, waiting = set(), [target]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        data = [item for item in by_name[name].input if not item.startswith("^")]
        del by_name[name].input[:]
        by_name[name].input.extend(data)
        waiting += map(_node_of, data)
    return [node for node in graph.node if node.name in found]


def _weight(node: Any, *, half: bool) -> Weight:
    import tensorflow as tf

    value = np.asarray(tf.make_ndarray(node.attr["value"].tensor))
    kind, stored = KINDS[value.dtype.kind]
    entry: dict[str, Any] = {"name": node.name, "shape": list(value.shape), "dtype": kind}
    if half and kind == "float32":
        entry["quantization"], stored = {"dtype": "float16"}, "<f2"
    return entry, value.astype(stored).tobytes()


def _as_json(node: Any) -> dict[str, Any]:
    """`node`, a constant without its value, which is in a shard."""
    from google.protobuf.json_format import MessageToDict

    if node.op == "Const":
        kept = type(node.attr["value"].tensor)(
            dtype=node.attr["value"].tensor.dtype, tensor_shape=node.attr["value"].tensor.tensor_shape
        )
        node.attr["value"].tensor.CopyFrom(kept)
    told: dict[str, Any] = MessageToDict(node)
    return told


def _write_shards(weights: list[Weight], folder: Path) -> list[str]:
    content = b"".join(data for _, data in weights)
    count = max(1, -(-len(content) // SHARD_BYTES))
    names = [f"weights-{number}-of-{count}.bin" for number in range(1, count + 1)]
    for number, name in enumerate(names):
        (folder / name).write_bytes(content[number * SHARD_BYTES : (number + 1) * SHARD_BYTES])
    return names

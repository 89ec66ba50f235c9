"""One TensorFlow function from patches to calibrated probabilities, with all that a run needs for that inside."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ductal.errors import RunError
from ductal.evaluation.arrays import logit
from ductal.inference.engines import Engine, TensorFlowEngine, load_keras
from ductal.inference.predictor import MEMBERS, Member, Predictor, d4_views, read_settings

SIDE = 50
INPUT, OUTPUT = "patches", "probability"
LARGEST_LOGIT = float(logit(1.0))  # where the Predictor cuts, too


@dataclass(frozen=True)
class Network:
    """A network of a run, its calibration, and the file it came from."""

    name: str
    model: Any
    temperature: float
    bias: float
    sha256: str


@dataclass(frozen=True)
class LoadedRun:
    """All that makes a run's probabilities: its networks, and what is done to their mean logit."""

    networks: list[Network]
    threshold: float
    temperature: float
    bias: float
    d4: bool

    def predictor(self, engines: Sequence[Engine] | None = None) -> Predictor:
        """The run's own Predictor, in float32, by TensorFlow, or by `engines` in the order of `networks`."""
        engines = engines or [TensorFlowEngine(item.model) for item in self.networks]
        members = [
            Member(engine, item.temperature, item.bias)
            for engine, item in zip(engines, self.networks, strict=True)
        ]
        return Predictor(
            members, threshold=self.threshold, temperature=self.temperature, bias=self.bias, d4=self.d4
        )


def load_run(folder: Path, *, d4: bool = False) -> LoadedRun:
    """The networks of a finished run, computing in float32. Raises RunError."""
    settings = read_settings(folder)
    inside = sorted(path.parent for path in (folder / MEMBERS).glob("*/model.keras"))
    networks = []
    for member in inside or [folder]:
        own = read_settings(member) if inside else {"temperature": 1.0, "bias": 0.0}
        file = member / "model.keras"
        with file.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        model = in_float32(load_keras(file))
        networks.append(Network(file.relative_to(folder).as_posix(), model, own["temperature"], own["bias"], digest))
    return LoadedRun(
        networks, settings["threshold"], settings["temperature"], settings["bias"], d4 or settings["d4"]
    )


def in_float32(model: Any) -> Any:
    """`model` with every layer computing in float32, whatever it was trained in.

    Raises:
        RunError: it does not take patches, or does not give one probability each.
    """
    if tuple(model.input_shape[1:]) != (SIDE, SIDE, 3) or model.output_shape[-1] != 1:
        raise RunError(
            f"The network takes {model.input_shape} and gives {model.output_shape}; "
            "patches (n, 50, 50, 3) and one probability each are needed. Train the recipe again."
        )
    for layer in model.layers:
        if layer.compute_dtype in ("bfloat16", "float16"):
            layer.dtype_policy = "float32"
    return model


def build(run: LoadedRun) -> Callable[..., Any]:
    """A `tf.function` from uint8 patches (n, 50, 50, 3) to ``{"probability": float32 (n,)}``.

    Logits are taken from the network before its sigmoid, so that nothing is lost near 0 and 1, and averaged over
    views and networks as `Predictor` does.
    """
    import tensorflow as tf

    parts = [(_logit_model(item.model), item) for item in run.networks]
    # The 8 views as one choice of pixels, made by the same function as the Predictor's.
    pixels = np.arange(SIDE * SIDE, dtype=np.int32).reshape(1, SIDE, SIDE, 1)
    order = np.concatenate([view.ravel() for view in d4_views(pixels)])

    @tf.function(input_signature=[tf.TensorSpec((None, SIDE, SIDE, 3), tf.uint8, name=INPUT)])
    def probability(patches: Any) -> dict[str, Any]:
        views = patches
        if run.d4:
            chosen = tf.gather(tf.reshape(patches, (-1, SIDE * SIDE, 3)), order, axis=1)
            views = tf.reshape(chosen, (-1, SIDE, SIDE, 3))
        logits = []
        for to_logit, item in parts:
            each = tf.clip_by_value(to_logit(views), -LARGEST_LOGIT, LARGEST_LOGIT)
            mean = tf.reduce_mean(tf.reshape(each, (-1, 8 if run.d4 else 1)), axis=1)
            logits.append(mean / item.temperature + item.bias)
        mean = tf.add_n(logits) / float(len(logits))
        return {OUTPUT: tf.sigmoid(mean / run.temperature + run.bias)}

    return probability


def frozen(function: Callable[..., Any]) -> tuple[Any, str, str]:
    """The graph of `build`'s function with all weights as constants, and the names of its input and output tensor.

    Layers such as Normalization keep numbers outside of variables: those become constants here too, where a
    converter could take them for inputs.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    constant = convert_variables_to_constants_v2(function.get_concrete_function())  # type: ignore[attr-defined]
    return constant.graph.as_graph_def(), constant.inputs[0].name, constant.outputs[0].name


def _logit_model(model: Any) -> Callable[[Any], Any]:
    """What gives the logit (n, 1): the network without its last sigmoid."""
    import keras
    import tensorflow as tf

    last = model.layers[-1]
    if isinstance(last, keras.layers.Activation) and last.activation is keras.activations.sigmoid:
        inner = keras.Model(model.input, last.input)
        return lambda patches: inner(patches, training=False)

    def from_probability(patches: Any) -> Any:
        probs = tf.clip_by_value(model(patches, training=False), 1e-7, 1.0 - 1e-7)
        return tf.math.log(probs) - tf.math.log1p(-probs)

    return from_probability

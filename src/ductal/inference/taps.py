"""What happens inside a Keras model: the output of one of its layers, and the logit before its last sigmoid.

Layers are listened to while the model runs, by a `call` of their own for that time. So models inside models,
`Sequential` ones and subclassed ones work like a single graph, and neither model nor weights are copied.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ductal.errors import RunError
from ductal.inference.predictor import PATCH_SHAPE

CONVOLUTIONS = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
    keras.layers.Conv2DTranspose,
)
# Their maps have other borders than the patch.
MOVING = (keras.layers.ZeroPadding2D, keras.layers.Cropping2D)
SMALLEST_MAP = 2
LISTED = 12
CLIP = 1e-7  # as the predictor's

_ONE_AT_A_TIME = threading.RLock()
See = Callable[[Any, Any, Any], None]


class Step(NamedTuple):
    """One layer's turn: what it read first, and what it gave."""

    layer: Any
    read: Any
    gave: Any


class Tap:
    """A model whose layer `layer` can be watched.

    Args:
        model: Keras, uint8 (n, 50, 50, 3) to probability (n, 1).
        layer: name of a layer whose maps are at least 2 x 2; by default the last one. Layers before the first
            convolution do not count, since they see no tissue yet, and layers that pad or crop neither.

    Attributes:
        name: of the layer.
        size: (rows, columns) of its maps.

    Raises:
        RunError: the model does not run on patches, does not give one probability each, has no convolutional layer
            with such maps, or none of that name.
    """

    def __init__(self, model: Any, layer: str | None = None) -> None:
        self._model = model
        steps, output = _dry_run(model)
        usable = _with_maps(steps)
        if not usable:
            raise RunError(
                f'The network "{model.name}" has no convolutional layer with a map of at least '
                f"{SMALLEST_MAP} x {SMALLEST_MAP}, which Grad-CAM needs. Use occlusion, which needs none."
            )
        by_name = {step.layer.name: step for step in usable}
        if layer is not None and layer not in by_name:
            raise RunError(f'The network "{model.name}" has no layer "{layer}" to explain. {_listed(by_name)}')
        chosen = by_name[layer] if layer is not None else usable[-1]
        self._layer = chosen.layer
        self.name: str = chosen.layer.name
        self.size: tuple[int, int] = tuple(chosen.gave.shape[1:3])
        # The layer that makes the probability, if it is a layer at all.
        self._last = next((step.layer for step in reversed(steps) if step.gave is output), None)

    def run(self, patches: np.ndarray, watch: Callable[[Any], None]) -> tuple[Any, Any]:
        """Maps float (b, h, w, channels) of the layer, and logits float32 (b,), as tensors.

        Args:
            patches: uint8 (b, 50, 50, 3).
            watch: called with the maps before the model goes on from them, as `tf.GradientTape.watch`.
        """
        maps: list[Any] = []
        last: list[Any] = []

        def see(layer: Any, read: Any, gave: Any) -> None:
            if layer is self._layer:
                watch(gave)
                maps.append(gave)
            if layer is self._last:
                last.append(read)

        with listening({id(layer): layer for layer in (self._layer, self._last) if layer is not None}.values(), see):
            output = self._model(patches, training=False)
        logits = _logit(self._last, last[-1] if last else None, output)
        return maps[-1], tf.cast(logits, tf.float32)[:, 0]


@contextmanager
def listening(layers: Iterable[Any], see: See) -> Iterator[None]:
    """In the block, `see(layer, first input, output)` hears each turn of `layers` in this thread."""
    thread = threading.get_ident()

    def heard(layer: Any) -> Callable[..., Any]:
        plain = layer.call

        @functools.wraps(plain)
        def call(*args: Any, **kwargs: Any) -> Any:
            gave = plain(*args, **kwargs)
            if threading.get_ident() == thread:
                see(layer, args[0] if args else None, gave)
            return gave

        return call

    with _ONE_AT_A_TIME:
        own = [(layer, vars(layer).get("call")) for layer in layers]
        try:
            for layer, _ in own:
                layer.call = heard(layer)
            yield
        finally:
            for layer, call in own:
                vars(layer).pop("call", None)
                if call is not None:
                    layer.call = call


def leaf_layers(model: Any) -> Iterator[Any]:
    """The layers of a model and of the models in it, each once, in the order of their graphs."""
    for layer in dict.fromkeys(model.layers):
        if isinstance(layer, keras.Model):
            yield from leaf_layers(layer)
        else:
            yield layer


def _dry_run(model: Any) -> tuple[list[Step], Any]:
    """Every layer's turn on one empty patch, in order, and the output."""
    steps: list[Step] = []
    try:
        with listening(list(leaf_layers(model)), lambda *step: steps.append(Step(*step))):
            output = model(np.zeros((1, *PATCH_SHAPE), np.uint8), training=False)
    except Exception as error:  # Keras and TensorFlow raise ValueError, TypeError, InvalidArgumentError, ...
        raise RunError(
            f"The network does not take uint8 patches of shape (n, 50, 50, 3) ({type(error).__name__}: {error}). "
            "Build it with such an input; scaling belongs into the model."
        ) from error
    if tuple(getattr(output, "shape", ())) != (1, 1):
        raise RunError(
            "A network to explain gives one probability of IDC for each patch, shape (n, 1). "
            f"Received: {getattr(output, 'shape', type(output).__name__)}"
        )
    return steps, output


def _with_maps(steps: list[Step]) -> list[Step]:
    """Steps from the first convolution on whose output is a map of a usable size."""
    first = next((i for i, step in enumerate(steps) if isinstance(step.layer, CONVOLUTIONS)), len(steps))
    return [
        step
        for step in steps[first:]
        if len(getattr(step.gave, "shape", ())) == 4
        and min(step.gave.shape[1:3]) >= SMALLEST_MAP
        and not isinstance(step.layer, MOVING)
    ]


def _listed(usable: dict[str, Step]) -> str:
    named = [f"{name} ({step.gave.shape[1]} x {step.gave.shape[2]})" for name, step in usable.items()]
    if len(named) <= LISTED:
        return f"There are: {', '.join(named)}."
    return f"The last {LISTED} of {len(named)} are: {', '.join(named[-LISTED:])}."


def _logit(last: Any, read: Any, output: Any) -> Any:
    """(b, 1). Before the sigmoid where there is one to be seen, since behind it gradients vanish near 0 and 1."""
    if read is not None and getattr(last, "activation", None) is keras.activations.sigmoid:
        if isinstance(last, keras.layers.Activation):
            return read
        if isinstance(last, keras.layers.Dense):
            product = tf.matmul(read, tf.cast(last.kernel, read.dtype))
            return product + tf.cast(last.bias, read.dtype) if last.use_bias else product
    probability = tf.clip_by_value(tf.cast(output, tf.float32), CLIP, 1.0 - CLIP)
    return tf.math.log(probability) - tf.math.log1p(-probability)

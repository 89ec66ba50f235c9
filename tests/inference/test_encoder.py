"""Frozen ONNX encoders: the right pixels in, the right features out, by either runtime, and what is refused."""

from __future__ import annotations

import os
import sys
from importlib import util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import tensorflow as tf
from small_encoder import KERNEL, MEAN, SIDE, STD, encoder_bytes, expected_tokens, save_encoder

from ductal.errors import RunError
from ductal.inference import encoder as encoders
from ductal.inference import onnx_runtimes
from ductal.inference.encoder import EncoderInput, OnnxEncoder, open_encoder, resize_matrix

PATCHES = np.random.default_rng(4).integers(0, 256, (70, 50, 50, 3), dtype=np.uint8)
SETTINGS = EncoderInput(mean=MEAN, std=STD)


@pytest.fixture(params=["openvino", "onnxruntime"])
def runtime(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Only this runtime is installed."""
    name = str(request.param)
    if util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    monkeypatch.setattr(onnx_runtimes.util, "find_spec", lambda asked: asked if asked == name else None)
    return name


def expected_pixels(patches: np.ndarray) -> np.ndarray:
    """What the encoder should be given, by TensorFlow."""
    resized = tf.image.resize(patches, (SIDE, SIDE)).numpy() / 255.0
    return ((resized - np.array(MEAN)) / np.array(STD)).transpose(0, 3, 1, 2).astype(np.float32)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("batch", ["n", 1, 32])
def test_features_are_those_of_the_network(runtime: str, batch: Any, layout: Any, tmp_path: Path) -> None:
    path = save_encoder(tmp_path / "e.onnx", batch=batch, layout=layout)
    encoder = OnnxEncoder(path, SETTINGS.model_copy(update={"layout": layout}), SIDE)
    assert (encoder.runtime, encoder.width) == (runtime, 6)
    tokens = expected_tokens(expected_pixels(PATCHES))
    np.testing.assert_allclose(encoder.features(PATCHES), tokens.mean(axis=1), atol=1e-4)
    assert encoder.features(PATCHES[:0]).shape == (0, 6)


def test_tokens_maps_and_named_outputs(runtime: str, tmp_path: Path) -> None:  # noqa: ARG001
    path = save_encoder(tmp_path / "e.onnx", output="vector,tokens,maps")
    tokens = expected_tokens(expected_pixels(PATCHES[:5]))
    for changes, wanted in (
        ({"output": "tokens"}, tokens[:, 0]),
        ({"output": "tokens", "tokens": "mean"}, tokens.mean(axis=1)),
        ({"output": "tokens", "tokens": "mean", "prefix_tokens": 5}, tokens[:, 5:].mean(axis=1)),
        ({"output": "tokens", "tokens": "first+mean"}, np.c_[tokens[:, 0], tokens[:, 1:].mean(axis=1)]),
        (
            {"output": "tokens", "tokens": "first+mean", "prefix_tokens": 5},
            np.c_[tokens[:, 0], tokens[:, 5:].mean(axis=1)],
        ),
        ({"output": "maps"}, tokens.mean(axis=1)),
    ):
        encoder = OnnxEncoder(path, SETTINGS.model_copy(update=changes), SIDE)
        np.testing.assert_allclose(encoder.features(PATCHES[:5]), wanted, atol=1e-4)
    with pytest.raises(RunError, match="several outputs and the recipe names none; set output to one of: vector"):
        OnnxEncoder(path, SETTINGS, SIDE)
    with pytest.raises(RunError, match="no output 'pooled'; set output to one of"):
        OnnxEncoder(path, SETTINGS.model_copy(update={"output": "pooled"}), SIDE)


def test_an_encoder_in_half_precision_is_given_half_precision(runtime: str, tmp_path: Path) -> None:  # noqa: ARG001
    model = encoder_bytes()
    for end in (*model.graph.input, *model.graph.output):
        end.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(KERNEL.astype(np.float16), "kernel"))
    onnx.save(model, tmp_path / "e.onnx")
    found = OnnxEncoder(tmp_path / "e.onnx", SETTINGS, SIDE).features(PATCHES)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected_tokens(expected_pixels(PATCHES)).mean(axis=1), atol=0.02)


@pytest.mark.parametrize("side", [32, 50, 64, 224])
def test_resizing_is_tensorflows(side: int) -> None:
    matrix = resize_matrix(side)
    found = np.einsum("ph,nhwc,qw->npqc", matrix, PATCHES[:3].astype(np.float32), matrix, optimize=True)
    np.testing.assert_allclose(found, tf.image.resize(PATCHES[:3], (side, side), antialias=True), atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "side", "message"),
    [
        ({}, 96, r"its input is \(n, 3, 64, 64\), and the recipe says nchw with input_px = 96"),
        ({"layout": "nhwc"}, SIDE, r"its input is \(n, 64, 64, 3\), and the recipe says nchw"),
        ({"kernel": KERNEL * 1e9}, SIDE, "features that are not finite, or beyond 60000"),
        ({"tokens": "first+mean"}, SIDE, r"its output has the shape \(1, 6\), which are no tokens"),
        ({"tokens": "mean", "prefix_tokens": 1}, SIDE, r"its output has the shape \(1, 6\)"),
        (
            {"output": "tokens", "tokens": "mean", "prefix_tokens": 16}, SIDE,
            "it gives 16 tokens, and the mean is to leave out the first 16",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    runtime: str, settings: dict, side: int, message: str, tmp_path: Path  # noqa: ARG001
) -> None:
    called = {key: settings[key] for key in ("tokens", "prefix_tokens") if key in settings}
    path = save_encoder(tmp_path / "e.onnx", **{key: settings[key] for key in settings.keys() - called})
    with pytest.raises(RunError, match=message):
        OnnxEncoder(path, SETTINGS.model_copy(update=called), side)


def test_a_prefix_without_a_mean_is_refused_and_settings_of_older_runs_are_read() -> None:
    with pytest.raises(ValueError, match='prefix_tokens has no effect with tokens = "first"'):
        EncoderInput(mean=MEAN, std=STD, prefix_tokens=1)
    older = {"mean": MEAN, "std": STD, "layout": "nchw", "output": None, "tokens": "mean"}
    assert EncoderInput.model_validate(older).prefix_tokens is None


def test_features_that_overflow_for_some_patches_name_the_encoder(runtime: str, tmp_path: Path) -> None:  # noqa: ARG001
    path = save_encoder(tmp_path / "e.onnx", kernel=-abs(KERNEL) * 1e6)
    encoder = OnnxEncoder(path, SETTINGS, SIDE)  # tried with white, which becomes 0 here
    with pytest.raises(RunError) as caught:
        encoder.features(np.zeros((1, 50, 50, 3), np.uint8))
    assert str(caught.value).startswith(f"The encoder {path} cannot be used for these patches: it gives features")
    assert "Check mean and std" in str(caught.value)


def test_no_runtime_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_runtimes.util, "find_spec", lambda _: None)
    with pytest.raises(RunError, match="neither OpenVINO nor ONNX Runtime is installed"):
        OnnxEncoder(save_encoder(tmp_path / "e.onnx"), SETTINGS, SIDE)


class CudaSession:
    """In place of ONNX Runtime's on an NVIDIA GPU: each feature is 7."""

    asked: list[Any]

    def __init__(self, path: str, options: Any, providers: list[Any]) -> None:  # noqa: ARG002
        CudaSession.asked = providers

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="images", shape=["n", 3, SIDE, SIDE], type="tensor(float)")]

    def get_outputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="vector")]

    def run(self, outputs: list[str], given: dict[str, np.ndarray]) -> list[np.ndarray]:  # noqa: ARG002
        return [np.full((len(given["images"]), 6), 7, np.float32)]


def test_on_an_nvidia_gpu_onnxruntime_is_preferred_and_computes_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    path = save_encoder(tmp_path / "e.onnx")
    providers = CudaSession.get_providers
    fake = SimpleNamespace(
        SessionOptions=SimpleNamespace, InferenceSession=CudaSession, get_available_providers=lambda: providers(None)
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    monkeypatch.setattr(onnx_runtimes.util, "find_spec", lambda name: name)
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "to be put back")
    monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH")
    found = {}
    for tool in (None, "/usr/bin/nvidia-smi"):
        monkeypatch.setattr(onnx_runtimes.shutil, "which", lambda _, tool=tool: tool)
        found[tool] = OnnxEncoder(path, SETTINGS, SIDE)
    assert [encoder.runtime for encoder in found.values()] == ["openvino", "onnxruntime-cuda"]
    assert CudaSession.asked == [("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"]
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert len({encoder.digest for encoder in found.values()}) == 2  # stored features of one are not the other's
    assert OnnxEncoder(path, SETTINGS, SIDE, "openvino").runtime == "openvino"


def test_a_network_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    model = encoder_bytes()
    graph = model.graph
    graph.node[-1].input[0] = "more"
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 2**26, 6], np.int64), "large"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1], np.int64), "one"))
    graph.node.insert(4, onnx.helper.make_node("ReduceMean", ["tokens", "one"], ["token"], keepdims=1))
    graph.node.insert(5, onnx.helper.make_node("Expand", ["token", "large"], ["more"]))
    onnx.save(model, tmp_path / "e.onnx")
    with pytest.raises(RunError, match="values for one patch, which is too much"):
        OnnxEncoder(tmp_path / "e.onnx", SETTINGS, SIDE)


def test_saved_and_opened_it_is_the_same(tmp_path: Path) -> None:
    onnx.save(
        encoder_bytes(), tmp_path / "e.onnx", save_as_external_data=True, location="e.data", size_threshold=100
    )
    encoder = OnnxEncoder(tmp_path / "e.onnx", SETTINGS, SIDE)
    run = tmp_path / "run"
    run.mkdir()
    encoder.save(run / "encoder")
    (tmp_path / "e.onnx").unlink()
    (tmp_path / "e.data").unlink()
    again = open_encoder(run)
    assert sorted(path.name for path in (run / "encoder").iterdir()) == ["e.data", "encoder.json", "encoder.onnx"]
    assert again.digest == encoder.digest
    np.testing.assert_array_equal(again.features(PATCHES[:3]), encoder.features(PATCHES[:3]))


def test_digest_depends_on_numbers_and_settings(tmp_path: Path) -> None:
    path = save_encoder(tmp_path / "e.onnx")
    other = save_encoder(tmp_path / "f.onnx", kernel=KERNEL + np.float32(1e-6))
    digests = {OnnxEncoder(path, SETTINGS, SIDE).digest, OnnxEncoder(other, SETTINGS, SIDE).digest}
    digests.add(OnnxEncoder(path, SETTINGS.model_copy(update={"mean": (0.5, 0.5, 0.5)}), SIDE).digest)
    assert len(digests) == 3


@pytest.mark.parametrize("damage", ["other", "about", "link", "gone"])
def test_a_changed_encoder_of_a_run_is_refused(damage: str, tmp_path: Path) -> None:
    OnnxEncoder(save_encoder(tmp_path / "e.onnx"), SETTINGS, SIDE).save(folder := tmp_path / "run-encoder")
    run = tmp_path / "run"
    run.mkdir()
    folder.rename(run / "encoder")
    model, about = run / "encoder" / encoders.MODEL, run / "encoder" / encoders.ABOUT
    if damage == "other":
        save_encoder(model, kernel=KERNEL * 2)
    elif damage == "about":
        about.write_text(about.read_text().replace('"nchw"', '"nwhc"'))
    elif damage == "link":
        model.rename(tmp_path / "elsewhere.onnx")
        model.symlink_to(tmp_path / "elsewhere.onnx")
    else:
        model.unlink()
    with pytest.raises(RunError, match="was refused"):
        open_encoder(run)

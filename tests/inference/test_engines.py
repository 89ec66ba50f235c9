"""OpenVINO gives the probabilities of the Keras model, from a file that belongs to that model."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import util
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from ductal.errors import RunError
from ductal.inference import engines
from ductal.inference.engines import IR_FOLDER, Engine, OpenVINOEngine, TensorFlowEngine, open_engine
from ductal.inference.predictor import Predictor
from ductal.training.network import Normalisation, build_network
from ductal.training.recipe_file import load_recipe

needs_openvino = pytest.mark.skipif(util.find_spec("openvino") is None, reason="openvino is not installed")
PATCHES = np.random.default_rng(4).integers(0, 256, (70, 50, 50, 3), dtype=np.uint8)
TOLERANCES = {"f32": 1e-4, "bf16": 0.02}  # the documented ones; which it is, the CPU decides


def tolerance(engine: Engine) -> float:
    assert isinstance(engine, OpenVINOEngine)
    return TOLERANCES[engine.precision]


def save_run(model: keras.Model, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    model.save(folder / "model.keras")
    (folder / "calibration.json").write_text(json.dumps({"threshold": 0.4, "temperature": 1.5}))
    return folder


def small_model(seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((50, 50, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 128, offset=-1.0, dtype="float32")(inputs)
    x = keras.layers.Conv2D(4, 7, strides=4, activation="relu")(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return save_run(small_model(1), tmp_path / "run")


@needs_openvino
@pytest.mark.parametrize("d4", [False, True])
def test_same_probabilities_as_keras(d4: bool, run: Path) -> None:
    rows = np.array([5, 69, 5, *range(40)])
    settings = {"batch_size": 7}
    expected = Predictor.from_run(run, d4=d4, engine="tensorflow").predict(PATCHES, rows, **settings)
    predictor = Predictor.from_run(run, d4=d4, engine="openvino")
    for _ in range(3):  # batches may finish in any order
        found = predictor.predict(PATCHES, rows, **settings)
        np.testing.assert_allclose(found, expected, atol=tolerance(predictor.engine))
    assert expected.std() > 0.02
    assert predictor.predict(PATCHES[:0]).shape == (0,)


@needs_openvino
@pytest.mark.parametrize(
    ("name", "precision"),
    [("efficientnetb0-scratch", "float32"), ("vgg16-frozen", "float32"), ("vgg16-frozen", "mixed_bfloat16")],
)
def test_shipped_networks_survive_the_conversion(name: str, precision: str, tmp_path: Path) -> None:
    recipe = load_recipe(name).model_copy(update={"weights": "random"})
    model = build_network(recipe, Normalisation((200.0, 150.0, 180.0), (40.0, 50.0, 60.0))).model
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(PATCHES[:16], training=True)  # BatchNorm learns the statistics, so that patches tell apart
    run = save_run(model, tmp_path / "run")
    (run / "run.json").write_text(json.dumps({"precision": precision}))
    engine = open_engine(run, "openvino")
    out = np.empty((1, 16), np.float32)
    engine.run([((0, slice(0, 16)), PATCHES[:16])], out)
    expected = np.asarray(model.predict_on_batch(PATCHES[:16]))[:, 0]
    assert precision == "mixed_bfloat16" or engine.precision == "f32"
    assert np.corrcoef(out[0], expected)[0, 1] > 0.95  # the spread is small: it must also be the right one
    np.testing.assert_allclose(out[0], expected, atol=tolerance(engine))


@needs_openvino
def test_the_second_time_needs_no_tensorflow(run: Path) -> None:
    Predictor.from_run(run)
    code = (
        "import sys, numpy as np; from ductal.inference.predictor import Predictor;"
        f"p = Predictor.from_run({str(run)!r}); p.predict(np.zeros((3, 50, 50, 3), np.uint8));"
        "assert p.engine.name == 'openvino'; assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@needs_openvino
def test_the_converted_model_follows_the_keras_one(run: Path) -> None:
    before = Predictor.from_run(run).predict(PATCHES)
    small_model(2).save(run / "model.keras")
    predictor = Predictor.from_run(run)
    after = predictor.predict(PATCHES)
    assert abs(after - before).max() > 0.1
    expected = Predictor.from_run(run, engine="tensorflow").predict(PATCHES)
    np.testing.assert_allclose(after, expected, atol=tolerance(predictor.engine))


@needs_openvino
def test_a_run_that_cannot_be_written_is_used_all_the_same(run: Path) -> None:
    (run / IR_FOLDER).write_text("in the way")  # as good as a read-only disk, also for root
    expected = Predictor.from_run(run, engine="tensorflow").predict(PATCHES)
    predictor = Predictor.from_run(run)
    np.testing.assert_allclose(predictor.predict(PATCHES), expected, atol=tolerance(predictor.engine))


@needs_openvino
def test_a_damaged_copy_is_made_anew(run: Path) -> None:
    expected = Predictor.from_run(run).predict(PATCHES)
    for damage in (Path.unlink, lambda path: path.write_bytes(b"short")):
        damage(run / IR_FOLDER / "model.bin")
        np.testing.assert_array_equal(Predictor.from_run(run).predict(PATCHES), expected)
    assert (run / IR_FOLDER / "model.bin").stat().st_size > 1000


@needs_openvino
def test_a_disk_that_fills_up_is_done_without(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("basic_ios::clear: iostream error")  # what OpenVINO makes of it

    monkeypatch.setattr("openvino.save_model", full)
    assert isinstance(open_engine(run, "openvino"), OpenVINOEngine)
    assert not (run / IR_FOLDER).exists()


@needs_openvino
def test_what_openvino_cannot_run_tensorflow_does(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: Any) -> None:
        raise RuntimeError("no such operation")

    monkeypatch.setattr(engines, "_convert", unknown)
    monkeypatch.setattr(engines, "has_gpu", lambda: False)
    assert isinstance(open_engine(run), TensorFlowEngine)
    with pytest.raises(RunError, match=r"OpenVINO cannot run .*no such operation"):
        open_engine(run, "openvino")


@needs_openvino
def test_the_final_evaluation_computes_in_float32(run: Path) -> None:
    (run / "run.json").write_text(json.dumps({"precision": "mixed_bfloat16"}))
    engine = Predictor.from_run(run, engine="openvino", exact=True).engine
    assert isinstance(engine, OpenVINOEngine)
    assert engine.precision == "f32"


def test_the_choice(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_engine(run, "tensorflow").name == "tensorflow"
    monkeypatch.setattr(engines, "has_gpu", lambda: True)
    assert isinstance(open_engine(run), TensorFlowEngine)
    monkeypatch.setattr(engines, "has_gpu", lambda: False)
    monkeypatch.setattr(engines.util, "find_spec", lambda _: None)
    assert isinstance(open_engine(run), TensorFlowEngine)
    with pytest.raises(RunError, match="openvino is not installed"):
        open_engine(run, "openvino")

"""Every format gives the run's probabilities by its own runtime, and what does not is not kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import ductal
from ductal.data.cohort import Cohort
from ductal.data.splitting import make_split
from ductal.errors import DataError, ExportError, RunError
from ductal.export import convert, formats, parity
from ductal.export.formats import FORMATS, checked_format
from ductal.export.graph import build, load_run
from ductal.export.reference import reference_of
from ductal.export.runtimes import OPENERS
from ductal.export.sample import synthetic_patches
from ductal.inference.predictor import Predictor

PATCHES = synthetic_patches(24, seed=3)
CALIBRATION = {"threshold": 0.4, "temperature": 1.5, "bias": -0.2, "spacing_um": 2.0}


def small_model(seed: int, policy: str = "float32") -> keras.Model:
    """A network with the layers that converters treat in their own way."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((50, 50, 3), dtype="uint8", name="patches")
    x = keras.layers.Rescaling(1 / 60, offset=-2.0, dtype="float32")(inputs)
    x = keras.layers.Normalization(mean=[0.1, 0.0, 0.2], variance=[0.9, 1.1, 1.0], dtype="float32")(x)
    x = keras.layers.Resizing(32, 32, dtype="float32")(x)
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", dtype=policy)(x)
    x = keras.layers.BatchNormalization(dtype=policy)(x)
    x = keras.layers.DepthwiseConv2D(3, padding="same", activation="swish", dtype=policy)(x)
    x = keras.layers.MaxPooling2D(dtype=policy)(x)
    x = keras.layers.GlobalAveragePooling2D(dtype=policy)(x)
    x = keras.layers.Dropout(0.3, dtype=policy)(x)
    logit = keras.layers.Dense(1, dtype="float32", kernel_initializer=keras.initializers.RandomNormal(stddev=20.0))(x)
    return keras.Model(inputs, keras.layers.Activation("sigmoid", dtype="float32")(logit))


def save_member(folder: Path, seed: int, settings: dict[str, Any], policy: str = "float32") -> Path:
    folder.mkdir(parents=True)
    small_model(seed, policy).save(folder / "model.keras")
    (folder / "calibration.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def run(tiny_cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated run with its cohort and split."""
    folder = save_member(tmp_path_factory.mktemp("runs") / "small", 1, CALIBRATION)
    make_split(tiny_cohort, "random", seed=1).save(folder / "split.json")
    record = {
        "name": "small", "cohort_folder": str(tiny_cohort.folder),
        "cohort": tiny_cohort.info.model_dump(mode="json"),
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three networks of unlike calibration, averaged over flips and turns, without a cohort."""
    folder = tmp_path_factory.mktemp("runs") / "three"
    for number, (temperature, bias) in enumerate([(0.8, 0.1), (1.0, 0.0), (2.0, -0.3)]):
        member = folder / "members" / f"{number}-small"
        save_member(member, number + 1, {"threshold": 0.5, "temperature": temperature, "bias": bias})
    (folder / "calibration.json").write_text(json.dumps(CALIBRATION | {"d4": True}))
    return folder


@pytest.fixture(autouse=True)
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass tells a speed; that it is a good one is no matter here."""
    monkeypatch.setattr(parity, "TIMED_SECONDS", 0.0)


def need(to: str, precision: str = "float32") -> None:
    """Skip, and say why, where the format cannot be had on this machine."""
    try:
        checked_format(to, precision)
    except ExportError as error:
        pytest.skip(str(error))


def exported(run: Path, to: str, out: Path, **settings: Any) -> ductal.export.export.Exported:
    """`export_run`; a skip where TensorFlow.js is not installed."""
    need(to, settings.get("precision", "float32"))
    try:
        return ductal.export_run(run, to, out, **settings)
    except ExportError as error:
        if to == "tfjs" and "npm install" in str(error):
            pytest.skip(str(error))
        raise


def opened(to: str, folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    return OPENERS[to](folder / FORMATS[to].model, "float32", 1)[0]


@pytest.mark.parametrize("to", FORMATS)
def test_a_calibrated_run(to: str, run: Path, tmp_path: Path) -> None:
    done = exported(run, to, tmp_path / "out")
    told = json.loads((tmp_path / "out" / "ductal.json").read_text())
    assert told == json.loads(json.dumps(done.contract))
    assert told["parity"]["largest_difference"] <= 1e-4
    low, high = told["parity"]["reference_range"]
    assert high - low > 0.2  # patches that tell apart, or agreement would mean little
    assert told["parity"]["source"] == "synthetic validation patches of the run's cohort"
    assert (told["threshold"], told["spacing_um"], told["labels"]["1"]) == (0.4, 2.0, "cancer")
    assert told["run"]["models"][0]["sha256"]
    assert "Trained on synthetic images" in told["use"]
    assert told["speed"]["images_per_second"] > 0
    assert {path.name for path in (tmp_path).iterdir()} == {"out"}
    for name, file in told["files"].items():
        assert (tmp_path / "out" / name).stat().st_size == file["bytes"]


@pytest.mark.parametrize("to", FORMATS)
def test_an_ensemble_with_d4_is_one_model(to: str, ensemble: Path, tmp_path: Path) -> None:
    done = exported(ensemble, to, tmp_path / "out")
    assert done.contract["parity"]["source"].startswith("synthetic patches")
    assert len(done.contract["run"]["models"]) == 3
    assert done.contract["run"]["d4"] is True
    told = done.contract["parity"]
    assert told["largest_difference"] <= 1e-4 + told["reference_resolution"]


@pytest.mark.parametrize("to", ["openvino", "onnx", "litert"])
def test_any_number_of_patches_gives_what_the_predictor_gives(to: str, run: Path, tmp_path: Path) -> None:
    exported(run, to, tmp_path / "out")
    expected = Predictor.from_run(run, engine="tensorflow").predict(PATCHES)
    probability = opened(to, tmp_path / "out")
    for count in (1, 24, 5):
        found = probability(PATCHES[:count])
        assert found.shape == (count,)
        np.testing.assert_allclose(found, expected[:count], atol=1e-4)


@pytest.mark.parametrize(
    ("to", "precision"), [("openvino", "float16"), ("onnx", "float16"), ("litert", "float16"), ("tfjs", "float16")]
)
def test_sixteen_bits_are_smaller_and_within_their_bound(
    to: str, precision: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "WORTH_SHRINKING", 16)
    done = exported(run, to, tmp_path / "out", precision=precision)
    parity = done.contract["parity"]
    assert 0 < parity["largest_difference"] <= parity["bound"] == 0.005
    assert set(parity["cost"]) == {"roc_auc", "balanced_accuracy"}


def test_eight_bits_tell_what_they_cost(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "INT8_COST", {"roc_auc": 1.0, "balanced_accuracy": 1.0})  # a network of noise
    done = exported(run, "openvino", tmp_path / "out", precision="int8")
    assert done.contract["parity"]["cost"]["roc_auc"].keys() == {"run", "export"}
    assert "FakeQuantize" in (tmp_path / "out" / "model.xml").read_text()


def test_eight_bits_need_the_cohort(ensemble: Path, tmp_path: Path) -> None:
    need("openvino", "int8")
    with pytest.raises(ExportError, match="Name it with --cohort"):
        ductal.export_run(ensemble, "openvino", tmp_path / "out", precision="int8")


def test_a_mixed_precision_network_is_exported_in_float32(tmp_path: Path) -> None:
    settings = {"threshold": 0.5, "temperature": 1.0}
    mixed = save_member(tmp_path / "mixed", 5, settings, "mixed_bfloat16")
    plain = save_member(tmp_path / "plain", 5, settings)
    graph = build(load_run(mixed)).get_concrete_function().graph
    kinds = {output.dtype.name for node in graph.get_operations() for output in node.outputs}
    assert "float32" in kinds
    assert not {"bfloat16", "float16", "half"} & kinds
    expected = Predictor.from_run(plain, engine="tensorflow").predict(PATCHES)
    np.testing.assert_allclose(build(load_run(mixed))(PATCHES)["probability"], expected, atol=1e-5)


@pytest.mark.parametrize("to", ["openvino", "onnx", "litert", "tfjs"])
def test_a_sabotaged_conversion_leaves_nothing(
    to: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(to)
    honest = convert.WRITERS[to]

    def sabotaged(order: convert.Order, path: Path) -> None:
        off = load_run(run)
        changed = type(off)(off.networks, off.threshold, off.temperature * 1.05, off.bias, off.d4)
        honest(convert.Order(changed, order.precision, order.about), path)

    monkeypatch.setitem(convert.WRITERS, to, sabotaged)
    with pytest.raises(ExportError, match=r"is not the run: its probabilities differ by up to 0\.0|npm install"):
        ductal.export_run(run, to, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"no model"])
def test_a_model_its_runtime_cannot_load_leaves_nothing(
    content: bytes, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("onnx")
    monkeypatch.setitem(convert.WRITERS, "onnx", lambda _, path: path.write_bytes(content))
    with pytest.raises(ExportError, match="ONNX cannot run what was written"):
        ductal.export_run(run, "onnx", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_converter_that_fails_is_named(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise KeyError("no such operation")

    monkeypatch.setitem(convert.WRITERS, "savedmodel", fails)
    with pytest.raises(ExportError, match=r"could not be converted to TensorFlow SavedModel \(KeyError"):
        ductal.export_run(run, "savedmodel", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_savedmodel_holds_its_weights_once(run: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    loaded = load_run(run)
    convert.write_savedmodel(convert.Order(loaded, "float32", {}), tmp_path / "model")
    stored = tf.train.list_variables(str(tmp_path / "model" / "variables" / "variables"))
    held = sum(np.prod(shape, dtype=int) for name, shape in stored if shape)
    assert 0 < held <= sum(np.prod(weight.shape, dtype=int) for weight in loaded.networks[0].model.weights)
    serve = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    expected = Predictor.from_run(run, engine="tensorflow").predict(PATCHES)
    np.testing.assert_allclose(serve(patches=tf.constant(PATCHES))["probability"], expected, atol=1e-4)


def test_the_reference_knows_how_exact_it_is(run: Path, ensemble: Path) -> None:
    single = reference_of(load_run(run), PATCHES)
    np.testing.assert_allclose(single.probs, Predictor.from_run(run, engine="tensorflow").predict(PATCHES), atol=1e-6)
    several = reference_of(load_run(ensemble), PATCHES)
    for reference in (single, several):
        assert (reference.low <= reference.probs).all()
        assert (reference.probs <= reference.high).all()
    assert single.resolution < 1e-5


def test_what_cannot_be_had_is_said_at_once(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExportError, match=r"There is no format .caffe.\. Choose one of openvino, onnx, litert"):
        ductal.export_run(run, "caffe", tmp_path / "out")
    with pytest.raises(ExportError, match="There is no precision 'int4'"):
        ductal.export_run(run, "openvino", tmp_path / "out", precision="int4")
    with pytest.raises(ExportError, match="SavedModel is not written in int8"):
        ductal.export_run(run, "savedmodel", tmp_path / "out", precision="int8")
    monkeypatch.setattr(formats.util, "find_spec", lambda _: None)
    with pytest.raises(ExportError, match=r"not installed: tf2onnx, onnx, onnxruntime\. Install them: pip install"):
        ductal.export_run(run, "onnx", tmp_path / "out")
    monkeypatch.setattr(formats.shutil, "which", lambda _: None)
    with pytest.raises(ExportError, match=r"needs Node\.js.* export to litert or onnx"):
        ductal.export_run(run, "tfjs", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_what_is_no_run_or_already_there(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a finished run"):
        ductal.export_run(tmp_path, "savedmodel")
    with pytest.raises(ExportError, match=r"is already there\. Delete it, or name another folder"):
        ductal.export_run(run, "savedmodel", tmp_path)


def test_another_cohort_is_not_taken_for_the_runs(run: Path, tiny_cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a prepared cohort"):
        ductal.export_run(run, "savedmodel", tmp_path / "out", cohort=tmp_path)
    shutil.copytree(run, tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    record["cohort"]["fingerprint"] = "another"
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match="is not the cohort this run was trained on"):
        ductal.export_run(tmp_path / "run", "savedmodel", tmp_path / "out", cohort=tiny_cohort.folder)


def test_the_command(run: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from ductal.cli import app

    if util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    call = ["export", str(run), "--to", "openvino", "--out", str(tmp_path / "out")]
    told = CliRunner().invoke(app, call)
    assert told.exit_code == 0, told.output
    assert "openvino, float32" in told.output
    assert "Largest difference from the run" in told.output
    again = CliRunner().invoke(app, call)
    assert again.exit_code == ExportError.exit_code
    assert "is already there" in again.output
    assert CliRunner().invoke(app, ["export", str(run), "--to", "caffe"]).exit_code == 2

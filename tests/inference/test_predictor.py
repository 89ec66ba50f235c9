"""The predictor: one input contract, D4 averaging, temperature, and runs that are not runs."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from ductal.errors import DataError, RunError
from ductal.inference.predictor import Predictor, d4_views, predict_in_order

PATCHES = np.random.default_rng(4).integers(0, 256, (20, 50, 50, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """Small, and sensitive to how a patch is turned."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((50, 50, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 128, offset=-1.0, dtype="float32")(inputs)
    x = keras.layers.Conv2D(4, 7, strides=4, activation="relu")(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x))


@pytest.fixture(scope="module")
def run(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    folder.mkdir()
    model.save(folder / "model.keras")
    (folder / "calibration.json").write_text(json.dumps({"threshold": 0.4, "temperature": 2.0}))
    return folder


def logit(p: np.ndarray) -> np.ndarray:
    return np.log(p / (1 - p))


def direct(model: keras.Model, patches: np.ndarray = PATCHES) -> np.ndarray:
    return np.asarray(model(patches))[:, 0].astype(float)


@pytest.mark.parametrize(
    "wrong",
    [
        PATCHES.astype(np.float32) / 255,
        PATCHES.astype(np.float32),
        PATCHES.astype(np.int16),
        PATCHES[0],
        PATCHES[:, :40],
        PATCHES[..., :1],
        PATCHES.transpose(0, 3, 1, 2),
    ],
)
@pytest.mark.parametrize("d4", [False, True])
def test_anything_but_uint8_rgb_patches_is_refused(wrong: np.ndarray, d4: bool, model: keras.Model) -> None:
    with pytest.raises(DataError, match="do not rescale them") as caught:
        Predictor(model, d4=d4).predict(wrong)
    assert f"Received: {wrong.dtype} {wrong.shape}" in str(caught.value)


def test_probabilities_are_those_of_the_model_in_order(model: keras.Model) -> None:
    found = Predictor(model).predict(PATCHES, batch_size=7)
    assert found.shape == (20,)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, direct(model), atol=1e-6)


@pytest.mark.parametrize("d4", [False, True])
def test_rows_choose_and_order(d4: bool, model: keras.Model) -> None:
    predictor = Predictor(model, d4=d4)
    rows = np.array([7, 3, 3, 19])
    told: list[tuple[int, int]] = []
    found = predictor.predict(PATCHES, rows, batch_size=3, progress=lambda *step: told.append(step))
    np.testing.assert_allclose(found, predictor.predict(PATCHES)[rows], atol=1e-6)
    assert told == [(3, 4), (4, 4)]


@pytest.mark.parametrize("d4", [False, True])
def test_no_patches_no_probabilities(d4: bool, model: keras.Model) -> None:
    assert Predictor(model, d4=d4).predict(PATCHES[:0]).shape == (0,)


def test_d4_average_is_the_mean_logit_and_does_not_mind_how_patches_are_turned(model: keras.Model) -> None:
    averaging, plain = Predictor(model, d4=True), Predictor(model)
    found = averaging.predict(PATCHES)
    expected = np.mean([logit(direct(model, view)) for view in d4_views(PATCHES)], axis=0)
    np.testing.assert_allclose(logit(found.astype(float)), expected, atol=1e-4)
    for view in d4_views(PATCHES)[1:]:
        np.testing.assert_allclose(averaging.predict(view), found, atol=1e-5)
        assert abs(plain.predict(view) - plain.predict(PATCHES)).max() > 1e-3


@pytest.mark.parametrize("d4", [False, True])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_divides_the_logit(temperature: float, d4: bool, model: keras.Model) -> None:
    cold = Predictor(model, d4=d4).predict(PATCHES).astype(float)
    found = Predictor(model, temperature=temperature, d4=d4).predict(PATCHES).astype(float)
    np.testing.assert_allclose(logit(found), logit(cold) / temperature, atol=1e-4)


def test_a_run_brings_its_settings(run: Path, model: keras.Model) -> None:
    predictor = Predictor.from_run(run, d4=True)
    assert (predictor.threshold, predictor.temperature, predictor.d4) == (0.4, 2.0, True)
    plain = Predictor.from_run(run, engine="tensorflow").predict(PATCHES).astype(float)
    np.testing.assert_allclose(logit(plain), logit(direct(model)) / 2, atol=1e-4)


@pytest.mark.parametrize("missing", ["model.keras", "calibration.json"])
def test_what_is_no_finished_run(missing: str, run: Path, tmp_path: Path) -> None:
    for name in {"model.keras", "calibration.json"} - {missing}:
        (tmp_path / name).write_bytes((run / name).read_bytes())
    with pytest.raises(RunError, match=r"is not a finished run: model\.keras or calibration\.json is missing"):
        Predictor.from_run(tmp_path)
    with pytest.raises(RunError, match="is not a finished run"):
        Predictor.from_run(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.keras", b"not a model"),
        ("calibration.json", b"{"),
        ("calibration.json", b'{"threshold": 0.5}'),
        ("calibration.json", b'{"threshold": null, "temperature": 1}'),
        ("calibration.json", b"[]"),
    ],
)
def test_a_damaged_run_is_named(name: str, content: bytes, run: Path, tmp_path: Path) -> None:
    for file in ("model.keras", "calibration.json"):
        (tmp_path / file).write_bytes((run / file).read_bytes())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RunError, match="Train the recipe again") as caught:
        Predictor.from_run(tmp_path)
    assert str(tmp_path / name) in str(caught.value)


def test_predict_in_order_takes_features_of_any_shape() -> None:
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="ones", use_bias=False)(inputs))
    features = np.arange(30, dtype=np.float16).reshape(10, 3)
    found = predict_in_order(model, features, np.array([9, 0]), batch_size=4)
    np.testing.assert_allclose(found, [27 + 28 + 29, 0 + 1 + 2])

"""Explaining files: one folder of pictures, maps and a table, or nothing; and the command over it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from ductal.cli import app
from ductal.data.cohort import Cohort
from ductal.errors import DataError, RunError
from ductal.inference import explain_files
from ductal.inference.engines import load_keras
from ductal.inference.explain import grad_cam, occlusion
from ductal.inference.explain_files import explain_source, summary
from ductal.inference.predict_files import read_patches
from ductal.inference.predictor import Predictor

RNG = np.random.default_rng(6)
COLUMNS = ["number", "patch", "probability", "called", "layer", "agreement", "largest_drop", "flags"]


def png(pixels: np.ndarray | None = None, shape: tuple[int, int] = (50, 50)) -> bytes:
    buffer = io.BytesIO()
    shown = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8) if pixels is None else pixels
    Image.fromarray(shown).save(buffer, "PNG")
    return buffer.getvalue()


def save_run(folder: Path, *, convolution: bool = True, gain: float = 100.0) -> Path:
    """The darkness of a patch is its logit."""
    inputs = keras.Input((50, 50, 3), dtype="uint8")
    x = keras.layers.Rescaling(-1 / 128, offset=1.0, dtype="float32")(inputs)
    if convolution:
        keras.utils.set_random_seed(1)
        x = keras.layers.Conv2D(4, 5, strides=5, kernel_initializer="random_uniform", name="cells")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(1, kernel_initializer=keras.initializers.Constant(gain), name="logit")(x)
    folder.mkdir()
    keras.Model(inputs, keras.layers.Activation("sigmoid")(x), name="dark").save(folder / "model.keras")
    (folder / "calibration.json").write_text(json.dumps({"threshold": 0.499, "temperature": 1.0}))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("runs") / "dark")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    contents = {
        "8863_idx5_x1351_y1101_class0.png": png(), "b c$.png": png(), "broken.png": b"no image",
        "odd.png": png(shape=(50, 42)), "sub/b c$.png": png(),
    }  # fmt: skip
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def test_everything_is_written(run: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told: list[tuple[int, int]] = []
    table = explain_source(run, images, out, progress=lambda *step: told.append(step))
    assert told == [(3, 6), (6, 6)]
    assert table.columns.tolist() == COLUMNS
    names, patches, _ = read_patches(images)
    assert table["patch"].tolist() == names
    good = [0, 1, 4]
    assert table.loc[[2, 3], "flags"].tolist()[1] == "not usable: size: 42 x 50 px"
    assert table.loc[[2, 3], "probability"].isna().all()
    predictor = Predictor.from_run(run)
    probs = predictor.predict(patches[good])
    np.testing.assert_allclose(table.loc[good, "probability"], probs, atol=1e-5)
    assert (table.loc[good, "called"] == np.where(probs >= 0.499, "cancer", "not_cancer")).all()
    assert (table.loc[good, "layer"] == "cells").all()
    with np.load(out / "maps.npz") as maps:
        assert maps["patch"].tolist() == [names[row] for row in good]
        expected = grad_cam(load_keras(run / "model.keras"), patches[good], target=probs >= 0.499)
        np.testing.assert_allclose(maps["grad_cam"], expected, atol=1e-5)
        expected = occlusion(predictor.predict, patches[good], target=probs >= 0.499)
        np.testing.assert_allclose(maps["occlusion"], expected, atol=1e-3)
        np.testing.assert_allclose(table.loc[good, "largest_drop"], maps["occlusion"].max(axis=(1, 2)))
    assert sorted(path.name for path in out.iterdir()) == ["explanations.csv", "maps.npz", "overlays", "overview.png"]
    assert sorted(path.name for path in (out / "overlays").iterdir()) == [
        "0001_8863_idx5_x1351_y1101_class0.png", "0002_b_c_.png", "0005_b_c_.png",
    ]  # fmt: skip
    with Image.open(out / "overlays" / "0002_b_c_.png") as strip:
        assert strip.size == (3 * 200 + 2 * 8, 200)
    written = pd.read_csv(out / "explanations.csv", keep_default_na=False)
    assert written.columns.tolist() == COLUMNS
    assert summary(table).startswith("3 patches explained; Grad-CAM of layer cells")


@pytest.mark.parametrize(("method", "key"), [("grad-cam", "grad_cam"), ("occlusion", "occlusion")])
def test_one_method(method: str, key: str, run: Path, images: Path, tmp_path: Path) -> None:
    table = explain_source(run, images, tmp_path / "out", method=method, d4=True)
    with np.load(tmp_path / "out" / "maps.npz") as maps:
        assert set(maps) == {"patch", key}
    assert table["agreement"].isna().all()
    assert table["largest_drop"].isna().all() == (method == "grad-cam")
    assert (table.loc[[0, 1, 4], "layer"] == ("cells" if method == "grad-cam" else "")).all()


def test_limit_is_spread_over_a_cohort(
    run: Path, tiny_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain_files, "A_PAGE", 4)
    table = explain_source(run, tiny_cohort.folder, tmp_path / "out", limit=9, method="grad-cam")
    ids = tiny_cohort.table["patch_id"].tolist()
    assert table["patch"].tolist() == [ids[row] for row in np.linspace(0, len(ids) - 1, 9).astype(int)]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == [
        "overview.png", "overview_2.png", "overview_3.png"
    ]  # fmt: skip
    again = explain_source(run, tiny_cohort.folder, tmp_path / "out", limit=2, method="grad-cam")
    assert len(again) == 2
    assert len(list((tmp_path / "out").glob("*.png"))) == 1


def test_flags(tmp_path: Path) -> None:
    """A network sure of everything: its map is empty or its drops are rough, and the table says so."""
    run = save_run(tmp_path / "sure", gain=1e7)
    (tmp_path / "a.png").write_bytes(png())
    table = explain_source(run, tmp_path / "a.png", tmp_path / "out")
    assert "Occlusion is empty" in table["flags"][0]
    assert "probability so near 0 or 1 that drops are rough" in table["flags"][0]
    assert "1 with flags, see explanations.csv" in summary(table)


def test_what_is_no_explanation_is_not_replaced(run: Path, images: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="so it is not replaced by explanations"):
        explain_source(run, images, images)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is a file"):
        explain_source(run, images, tmp_path / "file")
    out = tmp_path / "out"
    explain_source(run, images, out, method="grad-cam", limit=1)
    with pytest.raises(DataError, match="holds the source"):
        explain_source(run, out / "overlays", out)


def test_nothing_half_written(
    run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(explain_files, "explanations", fails)
    with pytest.raises(RuntimeError):
        explain_source(run, images, tmp_path / "out", method="grad-cam")
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_mistakes(run: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"None of the 1 images .*odd\.png: size: 42 x 50 px"):
        explain_source(run, images / "odd.png", out)
    with pytest.raises(RunError, match=r'no layer "logit" to explain\. There are: cells'):
        explain_source(run, images, out, layer="logit")
    with pytest.raises(DataError, match="Occlusion looks at no layer"):
        explain_source(run, images, out, layer="cells", method="occlusion")
    flat = save_run(tmp_path / "flat", convolution=False)
    with pytest.raises(RunError, match='network "dark" has no convolutional layer'):
        explain_source(flat, images, out)
    explain_source(flat, images, out, method="occlusion")
    assert out.exists()


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["explain", *map(str, arguments)])
    return result.exit_code, result.output


def test_command(run: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out [1]"
    code, said = invoke(run, images, "--out", out, "--limit", 2, "--d4")
    assert code == 0, said
    assert said.startswith("2 patches explained; Grad-CAM of layer cells; median agreement of the two maps ")
    assert said.endswith(f"Written to {out}\n")
    assert (out / "explanations.csv").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("RUN absent.png", 3, "absent.png does not exist"),
        ("absent IMAGES", 9, "absent is not a finished run"),
        ("RUN IMAGES/broken.png", 3, "broken.png: undecodable"),
        ("RUN EMPTY", 3, "There are no images in"),
        ("RUN IMAGES --out IMAGES", 3, "is not replaced by explanations"),
        ("RUN IMAGES --layer block9", 9, 'no layer "block9"'),
        ("RUN IMAGES --layer cells --method occlusion", 3, "Occlusion looks at no layer"),
        ("RUN IMAGES --out FILE/out", 8, "a file is where a folder is needed"),
        ("RUN IMAGES --limit 0", 2, "--limit"),
        ("RUN IMAGES --method lime", 2, "--method"),
    ],
)
def test_exit_codes(
    arguments: str, code: int, message: str,
    run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    for name, place in {"RUN": run, "IMAGES": images, "EMPTY": "empty", "FILE": "file"}.items():
        arguments = arguments.replace(name, str(place))
    before = sorted(tmp_path.rglob("*"))
    found, said = invoke(*arguments.split())
    assert found == code
    assert message in said
    assert "Traceback" not in said
    assert sorted(tmp_path.rglob("*")) == before

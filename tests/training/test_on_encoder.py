"""A head on a frozen ONNX encoder: trained on cached features, and used like any other run."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from small_training import easy, quiet, stage

sys.path.insert(0, str(Path(__file__).parents[1] / "inference"))
from small_encoder import KERNEL, MEAN, SIDE, STD, save_encoder

from ductal.data.cohort import Cohort
from ductal.data.split import Split
from ductal.data.splitting import make_split
from ductal.errors import FeaturesError, RecipeError, RunError, WeightsError
from ductal.evaluation.ensemble import combine
from ductal.evaluation.evaluate import evaluate
from ductal.experiment import is_trained
from ductal.export.graph import load_run
from ductal.inference import engines
from ductal.inference.embeddings import embed_run
from ductal.inference.encoder import open_encoder
from ductal.inference.engines import open_engine
from ductal.inference.explain_files import explain_source
from ductal.inference.predictor import Predictor
from ductal.record import model_digest
from ductal.slides.identity import run_identity
from ductal.training import feature_store, trainer
from ductal.training.recipe import Recipe
from ductal.training.recipe_file import load_recipe, parse_recipe
from ductal.tune.results import recipe_toml

TOML = f"""
name = "small-encoder"
title = "Small encoder"
backbone = "onnx"
weights = "file"
input_px = {SIDE}
cached_views = 2
batch_size = 32

[encoder]
file = "weights/encoder.onnx"
mean = {list(MEAN)}
std = {list(STD)}

[head]
batch_norm = true
units = [8]
dropout = 0.1

[augment]
d4 = true
stain = 0.1

[[stages]]
name = "head"
unfreeze = "none"
epochs = 3
learning_rate = 0.01
"""


@pytest.fixture(scope="module")
def toml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "weights").mkdir()
    save_encoder(folder / "weights" / "encoder.onnx")
    (folder / "mine.toml").write_text(TOML, encoding="utf-8")
    return folder / "mine.toml"


@pytest.fixture(scope="module")
def cohort(tiny_cohort: Cohort) -> Cohort:
    return easy(tiny_cohort)


@pytest.fixture(scope="module")
def split(cohort: Cohort) -> Split:
    return make_split(cohort, "random", seed=1)


def train(recipe: Recipe, cohort: Cohort, split: Split, out: Path, **settings: Any) -> Path:
    return trainer.train(recipe, cohort, split, out, **{"seed": 3, "progress": quiet()} | settings)


@pytest.fixture(scope="module")
def trained(toml: Path, cohort: Cohort, split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(load_recipe(toml), cohort, split, tmp_path_factory.mktemp("run") / "run")


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_the_run_holds_encoder_and_head_and_learns(trained: Path, cohort: Cohort, split: Split, toml: Path) -> None:
    record = json.loads((trained / "run.json").read_text())
    about = json.loads((trained / "encoder" / "encoder.json").read_text())
    assert record["weights"] == f"ONNX file encoder.onnx, SHA-256 {about['files']['encoder.onnx']}"
    rows = {part: len(split.rows(cohort, part)) for part in ("train", "val")}
    assert record["feature_cache"].startswith(f"2 views of {rows['train']} patches")
    assert record["feature_cache"].endswith(f"{2 * rows['train'] + rows['val']} computed")
    assert record["precision"] == "float32"
    assert record["encoder_runtime"] == open_encoder(trained).runtime
    assert keras.saving.load_model(trained / "model.keras").input_shape == (None, 6)
    predictor = Predictor.from_run(trained)
    val = split.rows(cohort, "val")
    probs = predictor.predict(cohort.pixels, val, batch_size=17)
    right = (probs >= 0.5) == cohort.labels[val]
    assert right.mean() > 0.9
    import pandas as pd

    saved = pd.read_parquet(trained / "predictions" / "val.parquet")["prob"]
    np.testing.assert_allclose(probs, saved, atol=5e-3)  # those were made of float16 features
    assert is_trained(trained, load_recipe(toml).model_dump(mode="json"), cohort, split, 3)


def test_the_run_is_evaluated_averaged_and_combined(
    run: Path, cohort: Cohort, split: Split, tmp_path: Path
) -> None:
    evaluate(run, cohort, split)
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["engine"] in ("openvino", "onnxruntime")
    assert "frozen ONNX encoder encoder.onnx, run at 64 px" in (run / "MODEL_CARD.md").read_text()
    assert str(tmp_path) not in (run / "MODEL_CARD.md").read_text()
    combine([run], cohort, tmp_path / "both", d4=True)
    patches = cohort.pixels[:20]
    np.testing.assert_allclose(
        Predictor.from_run(tmp_path / "both").predict(patches), Predictor.from_run(run, d4=True).predict(patches),
        atol=0.2,  # the ensemble has a calibration of its own
    )  # fmt: skip


def test_what_looks_into_layers_is_refused_and_occlusion_is_not(run: Path, cohort: Cohort, tmp_path: Path) -> None:
    message = "is a head on a frozen ONNX encoder, whose layers Keras does not have"
    with pytest.raises(RunError, match=message):
        embed_run(run, cohort.pixels, np.arange(3))
    with pytest.raises(RunError, match=message):
        load_run(run)
    with pytest.raises(RunError, match=message):
        explain_source(run, cohort.folder, tmp_path / "out", limit=2)
    table = explain_source(run, cohort.folder, tmp_path / "out", limit=2, method="occlusion")
    assert table["largest_drop"].notna().all()
    with pytest.raises(RunError, match="which TensorFlow cannot run"):
        open_engine(run, "tensorflow")


def test_openvino_is_openvino_or_an_error(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if engines.is_installed():
        assert open_engine(run, "openvino").name == "openvino"
    find = engines.util.find_spec
    monkeypatch.setattr(engines.util, "find_spec", lambda name: None if name == "openvino" else find(name))
    with pytest.raises(RunError, match="The engine openvino is not installed"):
        open_engine(run, "openvino")


def test_a_head_needs_its_own_encoder(run: Path, tmp_path: Path, cohort: Cohort) -> None:
    digests = model_digest(run), run_identity(run)["sha256"]
    assert "encoder/encoder.json" in digests[1]
    about = json.loads((run / "encoder" / "encoder.json").read_text())
    from ductal.inference.encoder import EncoderInput, OnnxEncoder

    settings = EncoderInput.model_validate(about["input"])
    other = save_encoder(tmp_path / "other.onnx", output="tokens,vector")
    shutil.rmtree(run / "encoder")
    OnnxEncoder(other, settings.model_copy(update={"output": "vector"}), SIDE).save(run / "encoder")
    assert model_digest(run) != digests[0]
    Predictor.from_run(run).predict(cohort.pixels[:2])
    wider = save_encoder(tmp_path / "wider.onnx", kernel=np.concatenate([KERNEL, KERNEL]), width=12)
    shutil.rmtree(run / "encoder")
    OnnxEncoder(wider, settings, SIDE).save(run / "encoder")
    with pytest.raises(RunError, match=r"takes \(None, 6\), and its encoder gives 12 features"):
        Predictor.from_run(run)
    shutil.rmtree(run / "encoder")
    with pytest.raises(RunError, match="is a head without its encoder: the folder encoder is missing"):
        Predictor.from_run(run)


def test_a_recipe_that_a_search_wrote_finds_its_encoder(
    toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(toml.parent.parent)
    recipe = load_recipe(toml.relative_to(toml.parent.parent))
    (tmp_path / "best.toml").write_text(recipe_toml(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "best.toml") == recipe
    assert recipe.encoder is not None
    assert Path(recipe.encoder.file).is_file()


def test_another_encoder_is_another_training(
    run: Path, cohort: Cohort, split: Split, toml: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(toml.parent, tmp_path / "recipe"))
    recipe = load_recipe(folder / "mine.toml")
    features = tmp_path / "features"
    train(recipe, cohort, split, tmp_path / "a", features_folder=features)
    train(recipe, cohort, split, tmp_path / "b", features_folder=features)
    computed = [json.loads((tmp_path / name / "run.json").read_text())["feature_cache"] for name in "ab"]
    assert [note.endswith(" 0 computed") for note in computed] == [False, True]
    settings = recipe.model_dump(mode="json")
    assert is_trained(tmp_path / "a", settings, cohort, split, 3)
    save_encoder(folder / "weights" / "encoder.onnx", kernel=KERNEL * 2)
    assert not is_trained(tmp_path / "a", settings, cohort, split, 3)
    (folder / "weights" / "encoder.onnx").unlink()
    assert not is_trained(tmp_path / "a", settings, cohort, split, 3)
    with pytest.raises(WeightsError, match="cannot be used: it is missing, or no file"):
        train(recipe, cohort, split, tmp_path / "c")
    assert Predictor.from_run(run).predict(cohort.pixels[:2]).shape == (2,)  # it has its own


def test_no_room_for_features_is_an_error(
    toml: Path, cohort: Cohort, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_store, "BUDGET_BYTES", 10)
    with pytest.raises(FeaturesError, match="no room for the features of the encoder"):
        train(load_recipe(toml), cohort, split, tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": None}, "go together"),
        ({"weights": "imagenet"}, "go together"),
        ({"backbone": "VGG16"}, "go together"),
        ({"backbone": "VGG16", "weights": "imagenet"}, "go together"),
        ({"cached_views": 0}, "cached_views of at least 1"),
        ({"quick_input_px": 48}, "no quick_input_px"),
        ({"precision": "mixed_bfloat16"}, 'precision = "auto" or "float32"'),
        ({"head": {"pooling": "max"}}, "pooling"),
        ({"stages": [stage("all", "all")]}, 'unfreeze = "none" in every stage'),
    ],
)
def test_a_recipe_that_cannot_train_is_refused(changes: dict, message: str, toml: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(load_recipe(toml).model_dump(mode="json") | changes, "The recipe")


def test_an_unknown_key_of_the_encoder_names_those_there_are(toml: Path) -> None:
    settings = load_recipe(toml).model_dump(mode="json")
    settings["encoder"]["sdt"] = [1, 1, 1]
    with pytest.raises(RecipeError, match="allowed here: file, layout, mean, output, prefix_tokens, std, tokens"):
        parse_recipe(settings, "The recipe")

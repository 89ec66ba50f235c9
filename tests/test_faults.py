"""One test for each fault of the usual notebook for this data; `docs/faults.md` is the table of them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

from ductal.data.audit import audit_rows, audit_split, refuse_leaks
from ductal.data.cohort import Cohort
from ductal.data.naming import parse_patch_name
from ductal.data.split import PARTS, Split
from ductal.data.splitting import make_split
from ductal.data.store import prepare
from ductal.errors import DataError, HeldOutError, LeakError, RecipeError, RunError
from ductal.evaluation.evaluate import evaluate
from ductal.evaluation.metrics import evaluate_predictions, join_labels
from ductal.inference.engines import load_keras
from ductal.inference.predictor import Predictor
from ductal.record import to_json
from ductal.training import callbacks, network, pipeline, trainer
from ductal.training.backbones import VGG_MEAN_RGB
from ductal.training.network import build_network, set_trainable
from ductal.training.recipe_file import load_recipe, parse_recipe

sys.path.insert(0, str(Path(__file__).parent / "training"))
from small_training import (
    STATISTICS,
    easy,
    no_weights,
    quiet,
    small_network,
    small_recipe,
    stage,
    train_small,
)

RECIPE = small_recipe(
    stage("head", epochs=2), stage("all", "all", 4, early_stopping={"monitor": "val_loss"}), class_weights=True
)


@pytest.fixture(scope="module")
def split(tiny_cohort: Cohort) -> Split:
    return make_split(tiny_cohort, "random", seed=1)


@pytest.fixture(scope="module")
def cohort(tiny_cohort: Cohort) -> Cohort:
    return easy(tiny_cohort)


@pytest.fixture(scope="module")
def run(cohort: Cohort, split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_small(RECIPE, cohort, split, tmp_path_factory.mktemp("faults") / "run")


def read(folder: Path, name: str = "run.json") -> dict[str, Any]:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def predictions(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "predictions" / "val.parquet")


def output_of(model: keras.Model, layer: str, patches: np.ndarray) -> np.ndarray:
    return np.asarray(keras.Model(model.input, model.get_layer(layer).output)(patches, training=False))


def test_fault_patient_ids_thrown_away(cohort: Cohort, split: Split, tmp_path: Path) -> None:
    by_patch = np.random.default_rng(0).integers(0, 3, len(cohort))
    leaking = audit_rows(cohort, by_patch)
    with pytest.raises(LeakError, match="patients: 12"):
        refuse_leaks(leaking)
    with pytest.raises(LeakError, match="leaks"):
        train_small(RECIPE, cohort, split, tmp_path / "run", audit=leaking)
    twice = Split(name="mine", parts=split.parts | {"val": split.parts["train"][:1]})
    with pytest.raises(LeakError, match="in train and in val"):
        train_small(RECIPE, cohort, twice, tmp_path / "run")
    # The same tissue under two patient ids: the trainer audits pixels by itself.
    pixels, table = np.array(cohort.pixels), cohort.table.copy()
    source, copy = split.rows(cohort, "train")[0], split.rows(cohort, "val")[0]
    pixels[copy], table.loc[copy, "sha1"] = pixels[source], table["sha1"][source]
    with pytest.raises(LeakError, match="leaks"):
        train_small(RECIPE, replace(cohort, pixels=pixels, table=table), split, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    for name in ("random", "kfold"):
        drawn = make_split(cohort, name, folds=3)
        parts_of_patient = pd.Series(drawn.part_of_rows(cohort)).groupby(cohort.table["patient"]).nunique()
        assert (parts_of_patient == 1).all()


def test_fault_no_closed_test_set(cohort: Cohort, split: Split, run: Path, tmp_path: Path) -> None:
    with pytest.raises(HeldOutError, match="The test patients are closed"):
        split.rows(cohort, "test")
    # Training does not depend on one pixel or label of a test patient.
    hidden, table = np.array(cohort.pixels), cohort.table.copy()
    test = split.part_of_rows(cohort) == PARTS.index("test")
    assert test.any()
    hidden[test] = np.random.default_rng(0).integers(0, 256, hidden[test].shape, dtype=np.uint8)
    table.loc[test, "label"] = 1 - table.loc[test, "label"]
    blind = train_small(
        RECIPE, replace(cohort, pixels=hidden, table=table), split, tmp_path / "run",
        audit=audit_split(cohort, split),
    )  # fmt: skip
    pd.testing.assert_frame_equal(predictions(blind), predictions(run))
    assert read(run)["test_opened"] == 0
    assert not (run / "predictions" / "test.parquet").exists()
    counted = train_small(small_recipe(), cohort, split, tmp_path / "counted")
    for opened in (1, 2):
        metrics = evaluate(counted, cohort, split)
        assert read(counted)["test_opened"] == opened
    assert metrics["test"]["at_0.5"]["n"] == test.sum()
    # The threshold was chosen before, on validation patients, and stays.
    assert metrics["test"]["threshold"] == read(counted, "calibration.json")["threshold"]


def test_fault_validation_augmented(
    cohort: Cohort, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validated: list[bytes] = []
    augmented: list[int] = []
    predict, augment = callbacks.predict_in_order, pipeline.make_augment

    def spy(model: Any, inputs: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        validated.append(inputs[rows].tobytes())
        return predict(model, inputs, rows)

    def spy_augment(settings: Any) -> Any:
        augmented.append(1)
        return augment(settings)

    monkeypatch.setattr(callbacks, "predict_in_order", spy)
    monkeypatch.setattr(pipeline, "make_augment", spy_augment)
    train_small(RECIPE, cohort, split, tmp_path / "run")
    assert len(augmented) == len(RECIPE.stages)
    assert len(validated) == sum(part.epochs for part in RECIPE.stages)
    assert set(validated) == {cohort.pixels[split.rows(cohort, "val")].tobytes()}


def test_fault_rescaled_input(run: Path, cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor.from_run(run)
    patches = cohort.pixels[:4]
    for wrong in (patches / 255.0, patches.astype(np.float32)):
        with pytest.raises(DataError, match="do not rescale"):
            predictor.predict(wrong)
    assert load_keras(run / "model.keras").input.dtype == "uint8"
    no_weights(monkeypatch)
    vgg = build_network(load_recipe("vgg16-frozen"), STATISTICS).model
    fed = output_of(vgg, "normalise", patches)
    np.testing.assert_allclose(fed, patches - np.array(VGG_MEAN_RGB), atol=1e-3)
    assert vgg.get_layer("block1_conv1").input is vgg.get_layer("normalise").output


def test_fault_frozen_random_weights(
    cohort: Cohort, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Path
) -> None:
    settings = load_recipe("efficientnetb3-scratch").model_dump()
    settings["stages"][0]["unfreeze"] = "none"
    with pytest.raises(RecipeError, match="can never learn"):
        parse_recipe(settings, "the notebook")
    random = RECIPE.model_copy(update={"weights": "random"})  # a recipe that nobody validated
    with pytest.raises(RecipeError, match="would train no layer"):
        set_trainable(small_network(random, STATISTICS), RECIPE.stages[0], random)

    def constant(*given: Any) -> Any:
        network = small_network(*given)
        network.model.get_layer("logit").set_weights([np.zeros((6, 1)), np.array([-0.22])])
        return network

    monkeypatch.setattr(trainer, "build_network", constant)
    stuck = trainer.train(
        small_recipe(stage(rate=1e-12)), cohort, split, tmp_path / "run", seed=1, progress=quiet()
    )
    assert any("one class" in alarm for alarm in read(stuck)["alarms"])
    assert read(run)["alarms"] == []


def test_fault_shuffled_predictions(cohort: Cohort, split: Split, run: Path) -> None:
    table = predictions(run)
    truth = cohort.table.iloc[split.rows(cohort, "val")]
    in_order = evaluate_predictions(join_labels(table, truth), 0.5)
    for seed in range(3):
        shuffled = table.sample(frac=1, random_state=seed)
        assert (shuffled["patch_id"].to_numpy() != truth["patch_id"].to_numpy()).any()
        assert to_json(evaluate_predictions(join_labels(shuffled, truth), 0.5)) == to_json(in_order)
    with pytest.raises(RunError, match="have no prediction"):
        join_labels(table.iloc[1:], truth)


def test_fault_inverted_classes(cohort: Cohort, split: Split, run: Path) -> None:
    assert read(run, "calibration.json")["labels"] == {"0": "not_cancer", "1": "cancer"}
    names = cohort.table["patch_id"].map(lambda name: parse_patch_name(name).label)
    assert names.tolist() == cohort.labels.tolist()
    # The model was trained on darkened IDC: its output is P(IDC), not P(not IDC).
    patches = np.array(cohort.pixels[split.rows(cohort, "val")])
    labels = cohort.labels[split.rows(cohort, "val")]
    probs = Predictor.from_run(run).predict(patches)
    assert probs[labels == 1].min() > probs[labels == 0].max()
    inverted = predictions(run).assign(label=lambda table: 1 - table["label"])
    with pytest.raises(RunError, match="inverted classes"):
        join_labels(inverted, cohort.table.iloc[split.rows(cohort, "val")])


def test_fault_prevalence_changed_by_selection(tiny_zip: Path, tmp_path: Path) -> None:
    limited = prepare(tiny_zip, tmp_path / "limited", limit_per_class=2, workers=1)
    split = make_split(limited, "random", seed=1)
    table, val = limited.table, split.rows(limited, "val")
    assert limited.info.selection["limit_per_class"] == 2
    chosen = table.iloc[split.rows(limited, "train")]
    assert chosen["selected"].all()
    assert chosen.groupby(["patient", "label"]).size().max() == 2
    natural = table[table["patient"].isin(split.parts["val"])]
    assert val.tolist() == natural.index.tolist()
    recorded = train_small(small_recipe(), limited, split, tmp_path / "run")
    block = evaluate_predictions(join_labels(predictions(recorded), table.iloc[val]), 0.5)["at_0.5"]
    assert block["n"] == len(natural)
    assert block["prevalence"] == pytest.approx(natural["label"].mean())
    assert block["prevalence"] != pytest.approx(natural[natural["selected"]]["label"].mean(), abs=0.01)
    assert read(recorded)["split"]["trained_on"] == len(chosen)


def test_fault_efficientnet_normalisation_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    keras.backend.clear_session()  # names of layers count from the start
    model = build_network(load_recipe("efficientnetb0-scratch"), STATISTICS).model
    patch = np.broadcast_to(np.array([10, 150, 250], np.uint8), (1, 50, 50, 3))
    fed = output_of(model, "normalization", patch)
    expected = (np.array([10.0, 150.0, 250.0]) - STATISTICS.mean) / STATISTICS.std
    np.testing.assert_allclose(fed, np.broadcast_to(expected, fed.shape), atol=1e-3)

    def as_published(base: Any, *_: Any) -> str:  # the file holds standard deviations in place of variances
        base.get_layer("normalization_1").set_weights([mean, deviation, np.array(1)])
        return "none"

    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    monkeypatch.setattr(network, "load_imagenet", as_published)
    recipe = load_recipe("efficientnetb0-scratch").model_copy(update={"weights": "imagenet"})
    fed = output_of(build_network(recipe, STATISTICS).model, "normalization_1", patch)
    np.testing.assert_allclose(fed[0, 0, 0], (patch[0, 0, 0] / 255 - mean) / deviation, atol=1e-3)


def test_fault_batch_norm_and_missing_recompile(
    cohort: Cohort, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots: list[dict[str, list[np.ndarray]]] = []
    optimised: list[int] = []
    train_stage = trainer.train_stage

    def weights(job: Any) -> dict[str, list[np.ndarray]]:
        return {layer.name: layer.get_weights() for layer in job.network.model.layers}

    def spy(job: Any, *rest: Any) -> None:
        snapshots[:] = snapshots or [weights(job)]
        train_stage(job, *rest)
        snapshots.append(weights(job))
        optimised.append(len(job.network.model.optimizer._trainable_variables))

    monkeypatch.setattr(trainer, "train_stage", spy)
    train_small(RECIPE, cohort, split, tmp_path / "run")
    changed = [
        {name for name in new if any((a != b).any() for a, b in zip(old[name], new[name], strict=True))}
        for old, new in pairwise(snapshots)
    ]
    # Statistics and scale of the pretrained BatchNorm ("block1_norm") stay as they were in every stage.
    assert changed == [{"logit"}, {"block1_conv1", "block2_conv1", "logit"}]
    assert optimised == [2, 6]


def test_fault_no_seed(cohort: Cohort, split: Split, run: Path, tmp_path: Path) -> None:
    record = read(run)
    assert (record["seed"], record["split"]["seed"]) == (3, 1)
    assert record["cohort"]["selection"]["seed"] == 42
    assert {"python", "ductal", "keras", "numpy", "tensorflow"} <= set(record["versions"])
    again = train_small(RECIPE, cohort, split, tmp_path / "again", seed=record["seed"])
    pd.testing.assert_frame_equal(predictions(again), predictions(run))
    other = train_small(RECIPE, cohort, split, tmp_path / "other", seed=record["seed"] + 1)
    assert abs(predictions(other)["prob"] - predictions(run)["prob"]).max() > 1e-3


def test_fault_one_pixel_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    no_weights(monkeypatch)
    sides = {}
    for pixels in (50, 96):
        recipe = load_recipe("vgg16-full").model_copy(update={"input_px": pixels})
        model = build_network(recipe, STATISTICS).model
        assert model.input.shape == (None, 50, 50, 3)
        sides[pixels] = model.get_layer("block5_pool").output.shape[1]
    assert sides == {50: 1, 96: 3}
    for name in ("efficientnetb0-scratch", "efficientnetb3-scratch"):
        assert load_recipe(name).input_px > 50
    with pytest.raises(RecipeError, match="input_px"):
        parse_recipe(load_recipe("vgg16-full").model_dump() | {"input_px": "large"}, "mine")

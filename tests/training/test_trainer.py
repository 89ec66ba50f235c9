"""The trainer: whole run folders, stages, callbacks, alarms, and the same run from the same seed."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from small_training import (
    easy,
    needs_imagenet,
    quiet,
    read,
    small_network,
    small_recipe,
    stage,
    train_small,
    uncalibrated,
)

from ductal.data.cohort import Cohort
from ductal.data.split import Split
from ductal.data.splitting import make_split
from ductal.errors import DataError, RecipeError
from ductal.inference.engines import load_keras
from ductal.inference.predictor import Predictor
from ductal.training import callbacks, stages, trainer
from ductal.training.callbacks import is_collapsed
from ductal.training.network import Network
from ductal.training.recipe import Recipe
from ductal.training.recipe_file import load_recipe

COLUMNS = {
    "epoch", "stage", "loss", "accuracy", "balanced_accuracy", "auc", "val_loss", "val_accuracy",
    "val_balanced_accuracy", "val_auc", "learning_rate", "seconds", "images_per_second", "best",
}  # fmt: skip


@pytest.fixture(scope="module")
def split(tiny_cohort: Cohort) -> Split:
    return make_split(tiny_cohort, "random", seed=1)


@pytest.fixture(scope="module")
def vgg_run(tiny_cohort: Cohort, split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped recipe "top 4", cut down to the last 2 layers and few epochs; both stages from the cache."""
    settings = load_recipe("vgg16-top4").model_dump()
    settings |= {"input_px": 32, "cached_views": 1, "precision": "float32"}
    settings["head"] = {"batch_norm": True, "units": [8]}
    for part, epochs in zip(settings["stages"], (3, 1), strict=True):
        part["epochs"] = epochs
    settings["stages"][1]["unfreeze"] = 2
    out = tmp_path_factory.mktemp("vgg") / "runs" / "vgg16-top4"
    return trainer.train(Recipe.model_validate(settings), tiny_cohort, split, out, seed=3, progress=quiet())


@pytest.fixture(scope="module")
def small_run(tiny_cohort: Cohort, split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stages on an easy task, without the cache."""
    watch = {"early_stopping": {"monitor": "val_loss"}}
    recipe = small_recipe(stage("head", epochs=2, **watch), stage("all", "all", 4, **watch), class_weights=True)
    return train_small(recipe, easy(tiny_cohort), split, tmp_path_factory.mktemp("small") / "run")


def of_the_model(run: Path, cohort: Cohort, split: Split) -> np.ndarray:
    """What the saved network says of the validation patches."""
    patches = cohort.pixels[split.rows(cohort, "val")]
    return np.asarray(load_keras(run / "model.keras").predict_on_batch(patches))[:, 0].astype(float)


@needs_imagenet
def test_run_folder_is_complete(vgg_run: Path, tiny_cohort: Cohort, split: Split) -> None:
    files = {path.relative_to(vgg_run).as_posix() for path in vgg_run.rglob("*") if path.is_file()}
    assert files == {
        "calibration.json", "history.csv", "model.keras", "predictions/val.parquet", "run.json", "split.json",
        "MODEL_CARD.md", "CHECKLIST.md",
    }  # fmt: skip
    assert [path.name for path in vgg_run.parent.iterdir()] == [vgg_run.name]
    assert Split.load(vgg_run / "split.json") == split
    calibration = json.loads((vgg_run / "calibration.json").read_text())
    assert calibration["labels"] == {"0": "not_cancer", "1": "cancer"}
    assert calibration["patch_size"] == 50
    assert 0.1 <= calibration["temperature"] <= 10.0
    assert calibration["calibration"]["patients"] == len(split.parts["val"])
    predictions = read(vgg_run)[2]
    rows = split.rows(tiny_cohort, "val")
    assert predictions["patch_id"].tolist() == tiny_cohort.table["patch_id"].iloc[rows].tolist()
    assert predictions["label"].tolist() == tiny_cohort.labels[rows].tolist()
    assert predictions["prob"].dtype == np.float32
    again = Predictor.from_run(vgg_run).predict(tiny_cohort.pixels, rows)
    np.testing.assert_allclose(again, predictions["prob"], atol=1e-3)  # those were made of float16 activations


@needs_imagenet
def test_run_record(vgg_run: Path, tiny_cohort: Cohort, split: Split) -> None:
    record, history, _ = read(vgg_run)
    assert (record["name"], record["control"], record["profile"], record["seed"]) == ("vgg16-top4", False, "full", 3)
    assert (record["test_opened"], record["evaluated_on"]) == (0, [])
    assert Recipe.model_validate(record["recipe"]).input_px == 32
    assert record["cohort"]["fingerprint"] == tiny_cohort.info.fingerprint
    assert record["split"]["id"] == split.identity
    assert record["split"]["counts"] == split.count(tiny_cohort)
    assert record["audit"]["status"] == "passed"
    assert record["weights"]
    assert set(record["versions"]) == {"python", "ductal", "keras", "numpy", "tensorflow"}
    assert record["feature_cache"].startswith("1 views of ")
    assert record["timings"]["train_seconds"] > 0
    convolution = 3 * 3 * 512 * 512 + 512
    head = 2 * 512 + 512 * 8 + 8 + 8 + 1
    assert record["parameters"]["trainable_last_stage"] == convolution + head
    assert record["parameters"]["total"] == 14_714_688 + head + 2 * 512
    assert set(history.columns) >= COLUMNS
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    assert history["stage"].tolist() == ["head"] * 3 + ["top4"]
    assert history.groupby("stage")["best"].sum().tolist() == [1, 1 - len(record["stages_given_up"])]


@needs_imagenet
def test_history_of_cached_stages_agrees_with_the_whole_network(
    vgg_run: Path, tiny_cohort: Cohort, split: Split
) -> None:
    _, history, predictions = read(vgg_run)
    best = history[history["best"]].iloc[-1]
    label, prob = predictions["label"].to_numpy(), of_the_model(vgg_run, tiny_cohort, split)
    loss = -np.log(np.where(label == 1, prob, 1 - prob)).mean()
    assert best["val_loss"] == pytest.approx(loss, rel=0.02)  # the cache is float16
    assert best["val_auc"] == pytest.approx(roc_auc_score(label, prob), abs=0.02)


def test_a_stage_that_makes_it_worse_is_given_up(tiny_cohort: Cohort, split: Split, tmp_path: Path) -> None:
    watch = {"early_stopping": {"monitor": "val_loss"}}
    ruinous = stage("ruin", "all", 1, 0.9, optimizer="sgd", **watch)
    recipe = small_recipe(stage("all", "all", 4, **watch), ruinous)
    run = train_small(recipe, easy(tiny_cohort), split, tmp_path / "run")
    record, history, predictions = read(run)
    assert history.groupby("stage", sort=False)["best"].sum().tolist() == [1, 0]
    assert record["stages_given_up"][0].startswith("Stage ruin is given up")
    kept = history[history["best"]].iloc[-1]
    label, prob = predictions["label"].to_numpy(), of_the_model(run, easy(tiny_cohort), split)
    np.testing.assert_allclose(uncalibrated(run), prob, atol=1e-5)
    assert kept["stage"] == "all"
    assert kept["val_auc"] == pytest.approx(roc_auc_score(label, prob), abs=1e-6)


def test_history_of_the_best_epoch_is_that_of_the_finished_model(
    small_run: Path, tiny_cohort: Cohort, split: Split
) -> None:
    record, history, predictions = read(small_run)
    best = history[history["best"]].iloc[-1]
    label, prob = predictions["label"].to_numpy(), of_the_model(small_run, easy(tiny_cohort), split)
    np.testing.assert_allclose(uncalibrated(small_run), prob, atol=1e-5)
    assert best["val_auc"] == pytest.approx(roc_auc_score(label, prob), abs=1e-6)
    assert best["val_accuracy"] == pytest.approx(((prob >= 0.5) == label).mean(), abs=1e-6)
    assert best["val_loss"] == pytest.approx(-np.log(np.where(label == 1, prob, 1 - prob)).mean(), rel=1e-4)
    assert record["feature_cache"] == "not used"
    for _, rows in history.groupby("stage"):
        assert rows["best"].tolist().index(True) == int(rows["val_loss"].to_numpy().argmin())


def test_an_easy_task_is_learned_without_alarm(small_run: Path) -> None:
    record, history, predictions = read(small_run)
    assert record["alarms"] == []
    assert roc_auc_score(predictions["label"], predictions["prob"]) > 0.95
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]


def test_same_seed_same_run_other_seed_another(
    small_run: Path, tiny_cohort: Cohort, split: Split, tmp_path: Path
) -> None:
    settings = Recipe.model_validate(read(small_run)[0]["recipe"])
    probs = [read(small_run)[2]["prob"].to_numpy()]
    for seed in (3, 4):
        run = train_small(settings, easy(tiny_cohort), split, tmp_path / str(seed), seed=seed)
        probs.append(read(run)[2]["prob"].to_numpy())
    np.testing.assert_array_equal(probs[0], probs[1])
    assert abs(probs[0] - probs[2]).max() > 1e-3


@pytest.mark.parametrize("cached_views", [0, 1])
def test_each_stage_trains_its_own_layers_and_no_others(
    cached_views: int, tiny_cohort: Cohort, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots: list[dict[str, list[np.ndarray]]] = []
    close = stages._close_stage

    def spy(job: Any, *rest: Any) -> None:
        snapshots.append({layer.name: layer.get_weights() for layer in job.network.model.layers})
        close(job, *rest)

    monkeypatch.setattr(stages, "_close_stage", spy)
    recipe = small_recipe(
        stage("head"), stage("top", ["block2"]), stage("all", "all"), cached_views=cached_views
    )
    train_small(recipe, tiny_cohort, split, tmp_path / "run")
    changed = [
        {name for name, old in before.items() if any((a != b).any() for a, b in zip(old, after[name], strict=True))}
        for before, after in pairwise(snapshots)
    ]
    assert changed == [{"block2_conv1", "logit"}, {"block1_conv1", "block2_conv1", "logit"}]


def test_a_failure_leaves_no_run_and_keeps_the_one_before(
    small_run: Path, tiny_cohort: Cohort, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr(callbacks.EpochRecord, "on_epoch_end", fail)
    out = tmp_path / "runs" / "small"
    recipe = small_recipe(stage(), cached_views=1)
    with pytest.raises(RuntimeError, match="in the middle"):
        train_small(recipe, tiny_cohort, split, out)
    assert list(out.parent.iterdir()) == []
    out.mkdir()
    (out / "run.json").write_bytes((small_run / "run.json").read_bytes())
    with pytest.raises(RuntimeError, match="in the middle"):
        train_small(recipe, tiny_cohort, split, out)
    assert [path.name for path in out.parent.iterdir()] == ["small"]
    assert (out / "run.json").read_bytes() == (small_run / "run.json").read_bytes()


def test_a_model_that_says_the_same_of_every_patch_raises_the_alarm(
    tiny_cohort: Cohort, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def constant(*settings: Any) -> Network:
        network = small_network(*settings)
        logit = network.model.get_layer("logit")
        logit.set_weights([np.zeros_like(w) for w in logit.get_weights()])
        return network

    monkeypatch.setattr(trainer, "build_network", constant)
    progress = quiet()
    recipe = small_recipe(stage(rate=1e-12))
    run = trainer.train(recipe, tiny_cohort, split, tmp_path / "run", seed=3, progress=progress)
    alarms = read(run)[0]["alarms"]
    assert len(alarms) == 2
    assert "Stage head: predictions collapsed" in alarms[0]
    assert "has not learned" in alarms[1]
    told = progress.console.file.getvalue()  # type: ignore[attr-defined]
    assert all(alarm in told for alarm in alarms)


@pytest.mark.parametrize(
    ("probs", "collapsed"),
    [
        (np.full(400, 0.3), True),
        (np.full(400, 0.7), True),
        (np.linspace(0.1, 0.49, 400), True),
        (np.linspace(0.1, 0.6, 400), False),
        (np.r_[np.full(390, 0.1), np.full(10, 0.9)], False),
        (0.5 + np.linspace(-1, 1, 400) * 1e-5, True),
    ],
)
def test_what_a_collapse_is(probs: np.ndarray, collapsed: bool) -> None:
    assert is_collapsed(probs) is collapsed


def test_class_weights_and_selection_reach_the_loss(tiny_cohort: Cohort, split: Split) -> None:
    rows = {part: split.rows(tiny_cohort, part) for part in ("train", "val")}
    for class_weights in (True, False):
        recipe = small_recipe(class_weights=class_weights)
        job = stages.Job(recipe, tiny_cohort, rows, 1, None, None, quiet(), None, None)  # type: ignore[arg-type]
        labels = job.labels["train"]
        halves = [job.weights[labels == label].sum() for label in (0, 1)]
        assert bool(np.isclose(halves[0], halves[1], rtol=1e-4)) is class_weights
        assert job.weights.mean() == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize(
    ("unfreeze", "said"), [(["block5"], r'no layer of VGG16 .* "block5"\. Blocks: block1'), (9, "has 4 layers")]
)
def test_layers_that_a_later_stage_cannot_free_are_refused_before_the_first_trains(
    unfreeze: Any, said: str, tiny_cohort: Cohort, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "train_stage", lambda *_: pytest.fail("a stage has trained"))
    recipe = small_recipe(stage("head"), stage("top", unfreeze))  # `small_network` has two blocks, and four layers
    with pytest.raises(RecipeError, match=said):
        train_small(recipe, tiny_cohort, split, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_part_with_one_class_is_refused(tiny_cohort: Cohort, split: Split, tmp_path: Path) -> None:
    table = tiny_cohort.table.copy()
    table.loc[split.rows(tiny_cohort, "val"), "label"] = np.int8(0)
    with pytest.raises(DataError, match=r"The val patients hold 40 patches of classes \[0\]"):
        train_small(small_recipe(), replace(tiny_cohort, table=table), split, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []

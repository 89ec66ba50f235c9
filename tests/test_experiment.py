"""The whole way in one call: what is kept, what is made again, and what a failure leaves."""

from __future__ import annotations

import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from ductal import experiment
from ductal.cli import app
from ductal.console import bar
from ductal.data.cohort import Cohort
from ductal.data.split import Split
from ductal.data.splitting import make_split
from ductal.errors import DataError, DuctalError, RecipeError, StorageError, WeightsError
from ductal.experiment import Plan, is_finished, is_trained, load_recipes, run_experiment
from ductal.experiment_data import open_cohort
from ductal.tracking.options import Tracking
from ductal.training import isolated
from ductal.training.progress import TrainingProgress
from ductal.training.recipe import Recipe

RECIPE = """
name = "{name}"
title = "{name}, for tests"
backbone = "VGG16"
weights = "random"
input_px = 32
{more}
[[stages]]
name = "all"
unfreeze = "all"
epochs = 9
learning_rate = 0.001
"""


def write_recipe(folder: Path, name: str, more: str = "") -> str:
    path = folder / f"{name}.toml"
    path.write_text(RECIPE.format(name=name, more=more))
    return str(path)


@pytest.fixture
def quiet() -> Console:
    return Console(quiet=True)


def test_mistakes_of_all_recipes_at_once(tmp_path: Path) -> None:
    bad = write_recipe(tmp_path, "bad", "colour = 1")
    with pytest.raises(RecipeError, match="colour") as caught:
        load_recipes((bad, "vgg16-frozen", "vgg17"), "full")
    assert "vgg17" in str(caught.value)


def test_two_recipes_may_not_share_a_run_folder(tmp_path: Path) -> None:
    mine = write_recipe(tmp_path, "vgg16-frozen")
    with pytest.raises(RecipeError, match="Two models would be called vgg16-frozen"):
        load_recipes(("vgg16-frozen", mine), "full")
    with pytest.raises(RecipeError, match="majority"):
        load_recipes((write_recipe(tmp_path, "majority"),), "full")


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"ratios": (0.5, 0.4, 0.3)}, "sum to 1"), ({"split": "kfold", "fold": 5}, "fold=5"), ({"split": "x"}, "'x'")],
)
def test_mistakes_in_the_split_come_before_any_work(
    settings: dict[str, Any], says: str, tiny_zip: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=says):
        run_experiment(Plan(tiny_zip, tmp_path / "out", **settings))
    assert not (tmp_path / "out").exists()


def test_max_epochs_only_shortens(tmp_path: Path) -> None:
    name = write_recipe(tmp_path, "mine")
    assert [load_recipes((name,), "full", most)[0].stages[0].epochs for most in (None, 2, 50)] == [9, 2, 9]


def test_gpus_that_cannot_share_a_batch_come_before_any_work(tiny_zip: Path, tmp_path: Path) -> None:
    names = tuple(write_recipe(tmp_path, name, f"batch_size = {size}") for name, size in (("a", 6), ("b", 4)))
    says = "recipe b has batches of 4, which 3 graphics processors cannot share evenly. Use batch_size = 6"
    with pytest.raises(RecipeError, match=says) as caught:
        run_experiment(Plan(tiny_zip, tmp_path / "out", names, gpus=3))
    assert "recipe a" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    result = CliRunner().invoke(app, ["train", names[1], "--gpus", "3", "--cohort", str(tmp_path / "none")])
    assert (result.exit_code, says in result.output) == (RecipeError.exit_code, True)


def test_cohort_is_kept_while_its_archive_is_unchanged(tiny_zip: Path, tmp_path: Path, quiet: Console) -> None:
    source = tmp_path / "source.zip"
    shutil.copy(tiny_zip, source)
    plan = Plan(source, tmp_path / "out", patients=6)
    table = tmp_path / "out" / "cohort" / "patches.parquet"
    made = open_cohort(plan, quiet)
    first = table.stat().st_ino
    assert open_cohort(plan, quiet).info == made.info
    assert table.stat().st_ino == first
    assert open_cohort(Plan(source, tmp_path / "out", patients=7), quiet).info.n_patients == 7
    second = table.stat().st_ino
    os.utime(source, (0, 0))
    open_cohort(Plan(source, tmp_path / "out", patients=7), quiet)
    assert table.stat().st_ino != second
    (tmp_path / "out" / "cohort" / "patches.npy").write_bytes(b"damaged")
    assert open_cohort(Plan(source, tmp_path / "out", patients=7), quiet).info.n_patients == 7


def test_prepared_cohort_cannot_be_selected_from(tiny_cohort: Cohort, tmp_path: Path, quiet: Console) -> None:
    assert open_cohort(Plan(tiny_cohort.folder, tmp_path), quiet).folder == tiny_cohort.folder
    for wrong in ({"patients": 3}, {"limit_per_class": 1}, {"patients_csv": tmp_path / "a.csv"}):
        with pytest.raises(DataError, match="prepared cohort with the selection"):
            open_cohort(Plan(tiny_cohort.folder, tmp_path, **wrong), quiet)


def record_of(cohort: Cohort, split: Split) -> dict[str, Any]:
    return {
        "recipe": {"name": "a"},
        "cohort": cohort.info.model_dump(mode="json"),
        "split": {"id": split.identity},
        "seed": 1,
        "weights": "Keras cache",
    }


def test_only_the_same_settings_count_as_finished(tiny_cohort: Cohort, tmp_path: Path) -> None:
    split, other = make_split(tiny_cohort, "random", seed=1), make_split(tiny_cohort, "random", seed=2)
    path = tmp_path / "run.json"
    asked = ({"name": "a"}, tiny_cohort, split, 1)
    assert not is_trained(tmp_path, *asked)
    path.write_text(json.dumps(record_of(tiny_cohort, split)))
    assert is_trained(tmp_path, *asked)
    assert not is_trained(tmp_path, *asked, Path("a.h5"))
    path.write_text(json.dumps(record_of(tiny_cohort, split) | {"weights": "file a.h5"}))
    assert is_trained(tmp_path, *asked, Path("elsewhere/a.h5"))
    assert not is_trained(tmp_path, *asked, Path("b.h5"))
    assert not is_trained(tmp_path, *asked)
    scratch = record_of(tiny_cohort, split) | {"recipe": {"name": "a", "weights": "random"}, "weights": "random"}
    path.write_text(json.dumps(scratch))
    assert is_trained(tmp_path, {"name": "a", "weights": "random"}, *asked[1:], Path("b.h5"))
    path.write_text(json.dumps(record_of(tiny_cohort, split)))
    assert not is_trained(tmp_path, {"name": "b"}, tiny_cohort, split, 1)
    assert not is_trained(tmp_path, {"name": "a"}, tiny_cohort, other, 1)
    assert not is_trained(tmp_path, {"name": "a"}, tiny_cohort, split, 2)
    assert not is_trained(tmp_path, *asked, deterministic=True)
    path.write_text(json.dumps(record_of(tiny_cohort, split) | {"deterministic": True}))
    assert is_trained(tmp_path, *asked, deterministic=True)
    assert is_trained(tmp_path, *asked)
    assert not is_finished(tmp_path, *asked)
    (tmp_path / "metrics.json").touch()
    assert is_finished(tmp_path, *asked)
    for damaged in ("", "[]", "{}", '{"recipe": {"name": "a"}, "cohort": 3}'):
        path.write_text(damaged)
        assert not is_trained(tmp_path, *asked)


def test_a_record_elsewhere_or_without_end_is_no_run(
    tiny_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = make_split(tiny_cohort, "random", seed=1)
    content, asked = json.dumps(record_of(tiny_cohort, split)), ({"name": "a"}, tiny_cohort, split, 1)
    for name in ("linked", "plain"):
        (tmp_path / name).mkdir()
    (tmp_path / "plain" / "run.json").write_text(content)
    (tmp_path / "linked" / "run.json").symlink_to(tmp_path / "plain" / "run.json")
    assert is_trained(tmp_path / "plain", *asked)
    assert not is_trained(tmp_path / "linked", *asked)
    monkeypatch.setattr("ductal.loading.records.MAX_JSON_BYTES", len(content) - 1)
    assert not is_trained(tmp_path / "plain", *asked)


def older(settings: dict[str, Any]) -> dict[str, Any]:
    """The record of `settings` before there was `randaugment`, when a setting without effect was allowed."""
    recorded: dict[str, Any] = json.loads(json.dumps(settings))
    del recorded["augment"]["randaugment"]
    cosine, adam = recorded["stages"]
    cosine["reduce_lr"] = {"monitor": "val_auc", "patience": 2, "factor": 0.3, "min_learning_rate": 1e-6}
    adam["weight_decay"] = 0.001
    return recorded


def test_a_run_from_before_a_setting_came_counts_as_finished(tiny_cohort: Cohort, tmp_path: Path) -> None:
    split = make_split(tiny_cohort, "random", seed=1)
    recipe = load_recipes((write_recipe(tmp_path, "mine"),), "full")[0]
    first = recipe.stages[0].model_dump()
    stages = [
        first | {"schedule": "cosine", "reduce_lr": None},
        first | {"name": "adam", "optimizer": "adam", "weight_decay": 0.0},
    ]
    settings = Recipe.model_validate(recipe.model_dump() | {"stages": stages}).model_dump(mode="json")

    def counts(recorded: dict[str, Any]) -> bool:
        record = record_of(tiny_cohort, split) | {"recipe": recorded, "weights": "random"}
        (tmp_path / "run.json").write_text(json.dumps(record))
        return is_trained(tmp_path, settings, tiny_cohort, split, 1)

    assert older(settings) != settings
    assert counts(older(settings))
    assert not counts(older(settings) | {"batch_size": 32})
    other = older(settings)
    other["augment"]["stain"] = 0.2
    assert not counts(other)
    assert not counts(older(settings) | {"of_a_later_version": 1})


class Trainings:
    """Stands for train_isolated: fails where it is told to, and keeps a list of what was asked."""

    def __init__(self, failures: dict[str, DuctalError]) -> None:
        self.failures, self.done, self.summarised, self.later, self.settings = failures, [], [], [], []

    def __call__(self, recipe: Any, *places: Any, features_folder: Path, later: tuple[Any, ...], **more: Any) -> Path:
        self.done.append(recipe.name)
        self.settings.append(more)
        self.later.append([other.name for other in later])
        features_folder.mkdir(exist_ok=True)
        if recipe.name in self.failures:
            raise self.failures[recipe.name]
        return places[-1]


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    fake = Trainings({})
    monkeypatch.setattr(experiment, "train_isolated", fake)
    monkeypatch.setattr(experiment, "CONTROLS", {})
    monkeypatch.setattr(experiment, "summarise", lambda *given: fake.summarised.extend(given[1]))
    return fake


def plan_of(cohort: Cohort, folder: Path, *names: str) -> Plan:
    recipes = tuple(write_recipe(folder, name) for name in names)
    return Plan(cohort.folder, folder, recipes)


def test_one_failure_costs_one_recipe(tiny_cohort: Cohort, tmp_path: Path, trainings: Trainings) -> None:
    trainings.failures = {"b": RecipeError("no such layer"), "c": WeightsError("no weights")}
    with pytest.raises(RecipeError, match="no such layer"):
        run_experiment(plan_of(tiny_cohort, tmp_path, "a", "b", "c", "d"))
    assert trainings.done == ["a", "b", "c", "d"]
    assert [run.name for run in trainings.summarised] == ["a", "d"]


def test_features_are_shared_with_what_is_still_to_train(
    tiny_cohort: Cohort, tmp_path: Path, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "is_trained", lambda folder, *_, **__: folder.name == "c")
    run_experiment(plan_of(tiny_cohort, tmp_path, "a", "b", "c", "d"))
    assert list(zip(trainings.done, trainings.later, strict=True)) == [
        ("a", ["b", "d"]), ("b", ["d"]), ("c", ["d"]), ("d", [])
    ]  # fmt: skip
    assert not (tmp_path / experiment.FEATURES).exists()


def test_every_training_is_told_what_the_plan_says(
    tiny_cohort: Cohort, tmp_path: Path, trainings: Trainings
) -> None:
    plan = plan_of(tiny_cohort, tmp_path, "a", "b")
    run_experiment(plan)
    tracking = Tracking(("tensorboard",), tmp_path / "curves")
    run_experiment(replace(plan, gpus=2, deterministic=True, tracking=tracking, fresh=True))
    keys = ("gpus", "deterministic", "tracking", "fresh")
    asked = [tuple(settings[key] for key in keys) for settings in trainings.settings]
    assert asked == [(None, False, None, False)] * 2 + [(2, True, tracking, True)] * 2


OPTIONS = ("--gpus", "2", "--deterministic", "--fresh", "--track", "tensorboard")


def test_the_options_of_run_are_in_its_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[Plan] = []
    monkeypatch.setattr(experiment, "run_experiment", lambda plan, _: plans.append(plan))
    result = CliRunner().invoke(app, ["run", "--out", str(tmp_path), *OPTIONS, "--inner-fold", "1/4"])
    assert result.exit_code == 0, result.output
    tracking = Tracking.parse(["tensorboard"], tmp_path / "tensorboard")
    assert plans == [
        Plan(out=tmp_path, gpus=2, deterministic=True, fresh=True, tracking=tracking, inner_fold=(1, 4))
    ]
    assert CliRunner().invoke(app, ["run", "--out", str(tmp_path)]).exit_code == 0
    assert plans[1] == Plan(out=tmp_path)


def test_the_options_of_train_reach_the_training(
    tiny_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, ...]] = []

    def training(_: Any, __: Path, split: Split, out: Path, **settings: Any) -> Path:
        calls.append((split, settings))
        return out

    monkeypatch.setattr(isolated, "train_isolated", training)
    command = ["train", write_recipe(tmp_path, "a"), "--cohort", str(tiny_cohort.folder), "--out", str(tmp_path)]
    for more in ((), (*OPTIONS, "--inner-fold", "1/4")):
        result = CliRunner().invoke(app, [*command, *more])
        assert result.exit_code == 0, result.output
    keys = ("gpus", "deterministic", "fresh", "tracking", "final")
    tracking = Tracking.parse(["tensorboard"], tmp_path / "tensorboard")
    assert [tuple(settings[key] for key in keys) for _, settings in calls] == [
        (None, False, False, None, False), (2, True, True, tracking, False)
    ]  # fmt: skip
    assert [split.name for split, _ in calls] == ["random", "inner fold 1 of 4"]
    # Other runs there were made with the one that `ductal run` left; each run has its own.
    assert not (tmp_path / "split.json").exists()


def test_a_full_disk_stops_the_rest(tiny_cohort: Cohort, tmp_path: Path, trainings: Trainings) -> None:
    trainings.failures = {"b": StorageError("full")}
    with pytest.raises(StorageError):
        run_experiment(plan_of(tiny_cohort, tmp_path, "a", "b", "c"))
    assert trainings.done == ["a", "b"]
    assert [run.name for run in trainings.summarised] == ["a"]


def test_no_report_of_nothing(tiny_cohort: Cohort, tmp_path: Path, trainings: Trainings) -> None:
    trainings.failures = {"a": DuctalError("crash")}
    with pytest.raises(DuctalError, match="crash"):
        run_experiment(plan_of(tiny_cohort, tmp_path, "a"))
    assert trainings.summarised == []


def test_a_log_shows_life(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("ductal.console.SECONDS_A_LINE", "ductal.training.progress.SECONDS_A_LINE"):
        monkeypatch.setattr(place, 0.0)
    log = io.StringIO()
    console = Console(file=log, width=200)
    with bar(console, "Reading") as report:
        report(1000, 2000)
    with TrainingProgress("a", console) as progress:
        progress.begin("head epoch 1/3", 2000, 64)
        progress.tick(1000, 0.5)
    assert "Reading: 1,000 of 2,000 patches" in log.getvalue()
    assert "head epoch 1/3  1,000/2,000" in log.getvalue()
    assert "loss 0.500" in log.getvalue()

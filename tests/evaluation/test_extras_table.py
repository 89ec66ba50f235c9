"""The table of training extras: what is trained once, on whom, and figures that are those of the leaderboard."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_runs import MANY, cohort, make_run
from sklearn.metrics import roc_auc_score

from ductal.data.cohort import Cohort
from ductal.data.splitting import make_split
from ductal.evaluation.bootstrap import Resampling
from ductal.evaluation.differences import Scored, difference
from ductal.training.recipe import Recipe

ROWS = ("base", "base, another seed", "MixUp")
SKILL = {"base": 2.0, "base, another seed": 2.05, "MixUp": 3.5}


@pytest.fixture(scope="module")
def extras() -> Iterator[ModuleType]:
    folder = str(Path(__file__).resolve().parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    import extras

    yield extras
    sys.path.remove(folder)


@pytest.fixture
def bench(extras: ModuleType, tiny_cohort: Cohort, tmp_path: Path) -> Any:
    make_split(tiny_cohort, "random", seed=1).save(tmp_path / "split.json")
    return extras.open_bench(tiny_cohort.folder, tmp_path / "split.json", tmp_path / "out")


@pytest.fixture
def calls(extras: ModuleType, bench: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Recipe, int]]:
    """Trainings that were asked for; each leaves a made-up run."""
    made: list[tuple[Recipe, int]] = []

    def train(recipe: Recipe, folder: Path, split: Any, out: Path, *, seed: int, final: bool, **_: Any) -> None:
        assert (final, split.parts["test"], folder) == (False, [], bench.cohort.folder)
        made.append((recipe, seed))
        info = bench.cohort.info.model_dump(mode="json")
        make_run(
            out, recipe.title, skill=SKILL[recipe.title], noise=seed, parts=("val",), patients=MANY, seed=seed,
            recipe=recipe.model_dump(mode="json"), cohort=cohort(**info), precision="mixed_bfloat16",
            split={"id": bench.split.identity},
        )  # fmt: skip
        (out / "model.keras").write_bytes(b"large")
        slow = 3 if recipe.mixup else 2
        history = pd.read_csv(out / "history.csv").iloc[:3].assign(seconds=[1.0, slow + 1, slow])
        history.to_csv(out / "history.csv", index=False)

    monkeypatch.setattr(extras, "train_isolated", train)
    return made


def test_every_row_is_a_recipe_that_goes_together(extras: ModuleType) -> None:
    space = extras.Space({}, "test")
    base = extras.base_recipe("DenseNet121", "imagenet", 3, "auto")
    extra = {name: changes for name, changes in extras.EXTRAS.items() if name not in extras.OTHER_SEEDS}
    recipes = [space.apply(base, changes) for changes in extra.values()]
    assert len({recipe.model_dump_json() for recipe in recipes}) == len(recipes)


def test_test_patients_are_taken_out(bench: Any, tiny_cohort: Cohort) -> None:
    assert make_split(tiny_cohort, "random", seed=1).parts["test"]
    assert bench.split.parts["test"] == []
    assert len(bench.split.parts["train"]) > len(bench.split.parts["val"]) > 0


def test_rows_are_trained_once_and_in_the_precision_of_the_base(
    extras: ModuleType, bench: Any, calls: list[tuple[Recipe, int]]
) -> None:
    base = extras.base_recipe("DenseNet121", "imagenet", 3, "auto")
    extras.measure(bench, base, ROWS, 1)
    assert [(recipe.title, recipe.precision, seed) for recipe, seed in calls] == [
        ("base", "auto", 1), ("base, another seed", "mixed_bfloat16", 1001), ("MixUp", "mixed_bfloat16", 1),
    ]  # fmt: skip
    assert not list(bench.out.rglob("model.keras"))
    extras.measure(bench, base, ROWS, 1)
    assert len(calls) == 3
    extras.measure(bench, base, ROWS, 2)
    assert len(calls) == 6


def test_a_row_of_other_settings_is_trained_again(
    extras: ModuleType, bench: Any, calls: list[tuple[Recipe, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = extras.base_recipe("DenseNet121", "imagenet", 3, "float32")
    extras.measure(bench, base, ["base"], 1)
    train = extras.train_isolated

    def again(*given: Any, **more: Any) -> None:
        import shutil

        shutil.rmtree(given[3])
        train(*given, **more)

    monkeypatch.setattr(extras, "train_isolated", again)
    extras.measure(bench, extras.base_recipe("DenseNet121", "imagenet", 4, "float32"), ["base"], 1)
    assert len(calls) == 2


@pytest.mark.usefixtures("calls")
def test_figures_are_those_of_a_comparison_of_two_runs(extras: ModuleType, bench: Any) -> None:
    base = extras.base_recipe("DenseNet121", "imagenet", 3, "float32")
    runs = extras.measure(bench, base, ROWS, 1)
    rows = {row["extra"]: row for row in extras.compare([runs])}
    tables = {name: extras.predictions(run) for name, run in runs.items()}
    for name, table in tables.items():
        assert rows[name]["roc_auc"] == pytest.approx(roc_auc_score(table["label"], table["prob"]))
    patches = extras.patches_of(tables["base"])
    scores = [tables[name]["prob"].to_numpy(float) for name in ("MixUp", "base")]
    one, two = (Scored(probs, probs >= 0.5) for probs in scores)
    expected = difference(patches, one, two, Resampling(len(MANY)))["roc_auc"]
    assert rows["MixUp"]["difference"] == pytest.approx(expected.value)
    assert rows["MixUp"]["interval"] == pytest.approx(expected.interval)
    assert expected.interval is not None
    assert expected.interval[0] > 0
    assert rows["MixUp"]["p"] == pytest.approx(expected.p)  # the one that is tested
    assert "p" not in rows["base, another seed"]
    assert rows["MixUp"]["time"] == pytest.approx(1.5)  # the quickest without the first
    shown = extras.line(rows["MixUp"])
    assert shown.startswith(f"| MixUp | `mixup = 0.2` | {rows['MixUp']['roc_auc']:.4f} | +")
    assert shown.endswith("| 1.50 |")
    assert "|  |" in extras.line(rows["base"])


@pytest.mark.usefixtures("calls")
def test_several_seeds_are_averaged_before_the_interval(extras: ModuleType, bench: Any) -> None:
    base = extras.base_recipe("DenseNet121", "imagenet", 3, "float32")
    seeds = [extras.measure(bench, base, ROWS, seed) for seed in (1, 2, 3)]
    alone = [{row["extra"]: row for row in extras.compare([runs])} for runs in seeds]
    row = {row["extra"]: row for row in extras.compare(seeds)}["MixUp"]
    assert row["roc_auc"] == pytest.approx(np.mean([each["MixUp"]["roc_auc"] for each in alone]))
    assert row["difference"] == pytest.approx(np.mean([each["MixUp"]["difference"] for each in alone]))
    assert row["p"] < 0.01
    assert row["of_each_seed"] == pytest.approx([each["MixUp"]["roc_auc"] for each in alone])

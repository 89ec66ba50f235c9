"""Ensembles over inner folds: nobody is scored, for calibration or validation, by a network he trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_training import easy, small_recipe, stage, train_small

from ductal.context.gather import gather
from ductal.data.cohort import Cohort
from ductal.data.inner import inner_splits
from ductal.data.split import Split
from ductal.data.splitting import make_split
from ductal.errors import RunError
from ductal.evaluation.arrays import logit
from ductal.evaluation.cross_fit import joined_split, out_of_fold
from ductal.evaluation.ensemble import combine
from ductal.evaluation.evaluate import evaluate
from ductal.inference.predictor import Predictor
from ductal.slides.patients import RunProbabilities


def split_with(**parts: list[str]) -> Split:
    return Split(name="mine", parts={"train": [], "val": [], "test": ["t"]} | parts)


def test_who_trained_all_networks_and_who_did_not() -> None:
    one = split_with(train=["a", "b", "c"], val=["d"])
    two = split_with(train=["a", "d", "c"], val=["b"])
    joined = joined_split([one, two])
    assert joined.parts == {"train": ["a", "c"], "val": ["b", "d"], "test": ["t"]}
    assert joined.cross_fitted
    assert "cross-fitted" in joined.notes[0]
    assert joined_split([one, one.model_copy(update={"name": "again"})]) is one


def test_other_test_patients_are_refused() -> None:
    one = split_with(train=["a"], val=["b"])
    with pytest.raises(RunError, match="differ in their test patients"):
        joined_split([one, split_with(train=["a"], val=["t"], test=["b"])])
    with pytest.raises(RunError, match="differ in their test patients"):
        joined_split([one, split_with(train=["b"], val=["a"]).model_copy(update={"by": "content"})])


class Says:
    """An engine that gives every patch one probability, and counts."""

    name = "says"

    def __init__(self, prob: float) -> None:
        self.prob, self.seen = prob, 0

    def run(self, batches, out) -> None:  # type: ignore[no-untyped-def]
        for (view, part), patches in batches:
            self.seen += len(patches)
            out[view, part] = self.prob


def test_each_patch_is_scored_by_those_that_did_not_train_on_it(tiny_cohort: Cohort) -> None:
    split = make_split(tiny_cohort, "random", seed=1)
    folds = inner_splits(tiny_cohort, split, 3, 5, divided=("train", "val"))
    rows = joined_split(folds).rows(tiny_cohort, "val")
    engines = [Says(0.2), Says(0.5), Says(0.9)]
    predictor = Predictor([], temperature=2.0, bias=0.1)
    from ductal.inference.predictor import Member

    predictor.members = [Member(engine) for engine in engines]  # type: ignore[arg-type]
    probs = out_of_fold(predictor, folds, tiny_cohort, rows)
    own = np.full(len(rows), np.nan)
    for engine, fold in zip(engines, folds, strict=True):
        mine = np.isin(tiny_cohort.groups[rows], fold.parts["val"])
        own[mine] = logit(np.array(engine.prob)) / 2 + 0.1
        assert engine.seen == mine.sum()
    np.testing.assert_allclose(logit(probs), own, atol=1e-5)
    with pytest.raises(RunError, match="trained all of its networks"):
        out_of_fold(predictor, [folds[0]] * 3, tiny_cohort, rows)
    with pytest.raises(RunError, match="3 networks and 2 splits"):
        out_of_fold(predictor, folds[:2], tiny_cohort, rows)


@pytest.fixture(scope="module")
def cohort(tiny_cohort: Cohort) -> Cohort:
    return easy(tiny_cohort)


@pytest.fixture(scope="module")
def folds(cohort: Cohort) -> list[Split]:
    split = make_split(cohort, "random", seed=1)
    return inner_splits(cohort, split, 2, 5, divided=("train", "val"))


@pytest.fixture(scope="module")
def crossed(cohort: Cohort, folds: list[Split], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crossed")
    recipe = small_recipe(stage("all", "all", 2))
    runs = [train_small(recipe, cohort, fold, folder / f"fold{k}", seed=3) for k, fold in enumerate(folds)]
    out = combine(runs, cohort, folder / "both")
    for run in runs:
        shutil.rmtree(run)
    return out


def test_it_is_evaluated_out_of_fold(crossed: Path, cohort: Cohort, folds: list[Split]) -> None:
    split = Split.load(crossed / "split.json")
    before = pd.read_parquet(crossed / "predictions" / "val.parquet")
    metrics = evaluate(crossed, cohort, split, fast=True)  # made exactly, so that nothing is known yet
    after = pd.read_parquet(crossed / "predictions" / "val.parquet").set_index("patch_id")["prob"]
    np.testing.assert_allclose(after.loc[before["patch_id"]], before["prob"], atol=1e-6)
    rows = split.rows(cohort, "val")
    by_all = Predictor.from_run(crossed, exact=True).predict(cohort.pixels, rows)
    assert np.abs(by_all - before["prob"].to_numpy()).max() > 1e-3
    assert set(metrics) > {"val", "test"}
    record = json.loads((crossed / "run.json").read_text())
    assert record["split"]["counts"]["train"]["patients"] == 0
    assert record["split"]["trained_on"] == max(len(fold.rows(cohort, "train")) for fold in folds)
    text = (crossed / "report.html").read_text(encoding="utf-8")
    assert "cross-fitted: each validation patient" in text
    assert "Each network was trained on up to" in text
    assert "of the validation patches at most" in (crossed / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_what_was_computed_when_it_was_made_is_not_computed_again(
    crossed: Path, cohort: Cohort, tmp_path: Path
) -> None:
    run, split, totals = tmp_path / "run", Split.load(crossed / "split.json"), set[int]()
    combine(sorted((crossed / "members").iterdir()), cohort, run)
    test = 2 * len(split.rows(cohort, "test", final_evaluation=True))
    evaluate(run, cohort, split, progress=lambda _, total: totals.add(total))
    assert totals == {test}
    evaluate(run, cohort, split, fast=True)  # replaces what was saved
    totals.clear()
    evaluate(run, cohort, split, progress=lambda _, total: totals.add(total))
    assert totals > {test}


def test_a_threshold_is_chosen_anew_out_of_fold(crossed: Path, cohort: Cohort, tmp_path: Path) -> None:
    run = shutil.copytree(crossed, tmp_path / "run")
    evaluate(run, cohort, Split.load(run / "split.json"), threshold_rule="sensitivity:0.9")
    table = pd.read_parquet(run / "predictions" / "val.parquet")
    threshold = json.loads((run / "calibration.json").read_text())["threshold"]
    found = table.loc[table["label"] == 1, "prob"].to_numpy(float) >= threshold
    assert found.mean() >= 0.9


def test_context_takes_saved_scores_and_no_embeddings(crossed: Path, cohort: Cohort, tmp_path: Path) -> None:
    run = shutil.copytree(crossed, tmp_path / "run")
    split = Split.load(run / "split.json")
    patient = split.parts["val"][0]
    source = RunProbabilities(run, cohort, split)
    assert source.roles[patient] == "val"
    (slide,) = gather(source, [patient], embeddings=False)
    assert np.isfinite(slide.logits).all()
    with pytest.raises(RunError, match="--heads smoothing"):
        gather(source, [patient], embeddings=True)
    table = pd.read_parquet(run / "predictions" / "val.parquet")
    table[table["patient"] != patient].to_parquet(run / "predictions" / "val.parquet", index=False)
    with pytest.raises(RunError, match="trained some networks"):
        RunProbabilities(run, cohort, split).of([patient])


def test_a_changed_split_is_refused(cohort: Cohort, folds: list[Split], crossed: Path, tmp_path: Path) -> None:
    members = []
    for number, member in enumerate(sorted((crossed / "members").iterdir())):
        members.append(shutil.copytree(member, tmp_path / str(number)))
    folds[1].save(members[0] / "split.json")
    with pytest.raises(RunError, match="not what the run was trained with"):
        combine(members, cohort, tmp_path / "out")

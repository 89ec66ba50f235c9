"""Inner folds: a partition of the patients that are divided, and of nobody else."""

from __future__ import annotations

import pytest
import typer

from ductal.cli_options import inner_fold_in
from ductal.data.cohort import Cohort
from ductal.data.inner import inner_splits
from ductal.data.splitting import make_split
from ductal.errors import DataError
from ductal.experiment import Plan
from ductal.experiment_data import split_of


@pytest.mark.parametrize("folds", [2, 3, 4])
def test_every_training_patient_validates_once(tiny_cohort: Cohort, folds: int) -> None:
    split = make_split(tiny_cohort, "random", seed=3)
    inner = inner_splits(tiny_cohort, split, folds, seed=3)
    assert len(inner) == folds
    assert sorted(patient for part in inner for patient in part.parts["val"]) == split.parts["train"]
    for part in inner:
        assert sorted(part.parts["train"] + part.parts["val"]) == split.parts["train"]
        assert part.parts["test"] == split.parts["test"]
        for name in ("train", "val"):
            assert set(tiny_cohort.labels[part.rows(tiny_cohort, name)]) == {0, 1}
    assert inner == inner_splits(tiny_cohort, split, folds, seed=3)


def test_validation_patients_can_be_divided_too(tiny_cohort: Cohort) -> None:
    split = make_split(tiny_cohort, "random", seed=3)
    both = sorted(split.parts["train"] + split.parts["val"])
    inner = inner_splits(tiny_cohort, split, 3, seed=3, divided=("train", "val"))
    assert sorted(patient for part in inner for patient in part.parts["val"]) == both
    assert all(sorted(part.parts["train"] + part.parts["val"]) == both for part in inner)
    assert all(part.parts["test"] == split.parts["test"] for part in inner)
    assert len({part.identity for part in inner}) == 3


def test_too_many_inner_folds(tiny_cohort: Cohort) -> None:
    split = make_split(tiny_cohort, "random", seed=3)
    with pytest.raises(DataError, match="too few for 50 inner folds"):
        inner_splits(tiny_cohort, split, 50, seed=3)


@pytest.mark.parametrize(("text", "fold"), [("0/4", (0, 4)), ("3/4", (3, 4)), (None, None)])
def test_an_inner_fold_is_read(text: str | None, fold: tuple[int, int] | None) -> None:
    assert inner_fold_in(text) == fold


@pytest.mark.parametrize("text", ["4/4", "x", "1/1", "-1/4", "1/4/4", ""])
def test_what_is_no_inner_fold(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="a fold such as 0/4"):
        inner_fold_in(text)


def test_the_inner_folds_of_a_plan_are_one_partition(tiny_cohort: Cohort) -> None:
    split = split_of(Plan(seed=3), tiny_cohort)
    folds = [split_of(Plan(seed=3, inner_fold=(k, 4)), tiny_cohort) for k in range(4)]
    both = sorted(split.parts["train"] + split.parts["val"])
    validated = [patient for fold in folds for patient in fold.parts["val"]]
    assert sorted(validated) == both  # each once
    for fold in folds:
        assert sorted(fold.parts["train"] + fold.parts["val"]) == both
        assert fold.parts["test"] == split.parts["test"]


def test_a_plan_of_an_inner_fold_that_is_not_there(tiny_cohort: Cohort) -> None:
    for wrong in ((4, 4), (-1, 4)):
        with pytest.raises(DataError, match=r"\(k, n\) with k from 0 to n - 1"):
            split_of(Plan(inner_fold=wrong), tiny_cohort)

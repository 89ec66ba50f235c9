"""Inner folds: a partition of the patients that are divided, and of nobody else."""

from __future__ import annotations

import pytest

from ductal.data.cohort import Cohort
from ductal.data.inner import inner_splits
from ductal.data.splitting import make_split
from ductal.errors import DataError


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

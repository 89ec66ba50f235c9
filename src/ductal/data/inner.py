"""Folds inside a split: training patients divided anew, test patients where they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ductal.data.split import PARTS, Part, Split, group_ids
from ductal.data.stratify import balanced_parts
from ductal.errors import DataError

if TYPE_CHECKING:
    from ductal.data.cohort import Cohort


def inner_splits(
    cohort: Cohort, split: Split, folds: int, seed: int, *, divided: Sequence[Part] = ("train",)
) -> list[Split]:
    """Divide patients of `split` into `folds`, stratified; each fold is "val" once, the others are "train".

    Args:
        cohort: the prepared cohort.
        split: whose patients are divided. Its test part stays as it is.
        folds: number of folds, 2 or more.
        seed: draws the folds.
        divided: the parts that are divided. "val" is left out of all folds where it is not among them.

    Returns:
        One split a fold.

    Raises:
        DataError: there are too few patients for every fold to hold both classes.
    """
    rows = np.isin(split.part_of_rows(cohort), [PARTS.index(part) for part in divided])
    groups, number = np.unique(group_ids(cohort, split.by).to_numpy(dtype=str)[rows], return_inverse=True)
    positives = np.bincount(number, weights=cohort.labels[rows] == 1, minlength=len(groups)).astype(np.int64)
    negatives = np.bincount(number, minlength=len(groups)) - positives
    fold = (
        balanced_parts(negatives, positives, np.full(folds, 1 / folds), np.random.default_rng(seed))
        if len(groups) >= folds
        else np.zeros(len(groups), np.int64)
    )
    whose = {"train": "training", "val": "validation", "test": "test"}
    words = " and ".join(whose[part] for part in divided)
    if not all(negatives[fold == k].any() and positives[fold == k].any() for k in range(folds)):
        raise DataError(
            f"The {len(groups)} {words} patients are too few for {folds} inner folds that each hold both classes. "
            "Ask for fewer inner folds, or prepare more patients."
        )
    return [
        Split(
            name=f"inner fold {k} of {folds}",
            seed=seed,
            by=split.by,
            parts={
                "train": groups[fold != k].tolist(),
                "val": groups[fold == k].tolist(),
                "test": list(split.parts.get("test", [])),
            },
            notes=[f"the {words} patients of the split {split.name!r}, divided anew", *split.notes],
        )
        for k in range(folds)
    ]

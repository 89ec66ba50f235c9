"""Folds inside a split: training patients divided anew, test patients where they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ductal.data.split import PARTS, Part, Split
from ductal.data.splitting import stratified

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
    groups = stratified(cohort, split.by, [1 / folds] * folds, seed, "inner folds", rows)
    words = " and ".join({"train": "training", "val": "validation"}.get(part, part) for part in divided)
    return [
        Split(
            name=f"inner fold {k} of {folds}",
            seed=seed,
            by=split.by,
            parts={
                "train": sorted(group for other in range(folds) if other != k for group in groups[other]),
                "val": groups[k],
                "test": list(split.parts.get("test", [])),
            },
            notes=[f"the {words} patients of the split {split.name!r}, divided anew", *split.notes],
        )
        for k in range(folds)
    ]

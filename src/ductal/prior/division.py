"""Which patches the author of a configuration trains, validates and reports on; and the honest hold-out.

The hold-out patients are drawn first, by the package's own grouped split, and are in no part of any
configuration that divides patches. Only a configuration that divides patients may report on them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ductal.data.cohort import Cohort
from ductal.data.split import PARTS, Split
from ductal.prior.faults import Training

# Train and validation patients of the author, and the hold-out.
RATIOS = (0.52, 0.14, 0.34)
FIRST_FILES = 200  # of each class folder of a patient, as notebooks take them
ARCHIVE_PATCHES_PER_PATIENT = 995  # 277,524 patches of 279 patients


@dataclass(frozen=True)
class Parts:
    """Rows of the cohort, int64 (n,) each; a row occurs as often as its file is used."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def hold_out(cohort: Cohort, split: Split) -> np.ndarray:
    """Rows of the hold-out patients, all of their patches: int64 (n,), ascending."""
    return split.rows(cohort, "test", final_evaluation=True)


def divide(cohort: Cohort, split: Split, training: Training, seed: int) -> Parts:
    """The author's parts.

    Where patients are divided these are the split's own, and the test part is the hold-out. Where patches
    are, the author's files are the patches of the train and validation patients, `training.copies` of each; they
    are shuffled, as large a share is taken for training as in the honest division, and the rest is halved.
    """
    train, val, test = split.rows(cohort, "train"), split.rows(cohort, "val"), hold_out(cohort, split)
    if training.first_files:
        first = first_files(cohort, first_count(cohort))
        # Here the first files are the selection, whatever the cohort's own is.
        train = np.flatnonzero((split.part_of_rows(cohort) == PARTS.index("train")) & first).astype(np.int64)
        val, test = val[first[val]], test[first[test]]
    if not training.by_patch:
        return Parts(train, val, test)
    files = np.tile(np.concatenate([train, val]), training.copies)
    order = np.random.default_rng([seed, training.copies]).permutation(files)
    cut = round(len(files) * len(train) / (len(train) + len(val)))
    rest = order[cut:]
    return Parts(order[:cut], rest[0::2], rest[1::2])


def first_count(cohort: Cohort) -> int:
    """As many files as 200 are of an average patient's in the archive, so that a sample shows the same effect."""
    patches = len(cohort) / max(cohort.info.n_patients, 1)
    return max(1, min(FIRST_FILES, round(FIRST_FILES * patches / ARCHIVE_PATCHES_PER_PATIENT)))


def first_files(cohort: Cohort, count: int) -> np.ndarray:
    """bool (N,): whether a patch is among the first `count` names of its patient's class folder."""
    by_name = cohort.table.sort_values("patch_id")
    place = by_name.groupby(["patient", "label"]).cumcount()
    return (place < count).reindex(cohort.table.index).to_numpy(dtype=bool)


def seen_in_training(cohort: Cohort, train: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
    """Shares of `rows` whose patient is among the training patches, and that are copies of one of them."""
    table = cohort.table
    shares = [
        float(table[column].iloc[rows].isin(table[column].iloc[np.unique(train)]).mean())
        for column in ("patient", "sha1")
    ]
    return shares[0], shares[1]

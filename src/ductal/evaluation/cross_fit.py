"""Ensembles whose networks were trained on different folds: each patient is scored by networks that never saw him.

With folds inside the training patients (`ductal run --inner-fold K/N`), one network has left out each patient. Its
out-of-fold scores calibrate the ensemble and choose its threshold on all of these patients, instead of on a few
that no network may learn from (cross-fitting; Stone 1974, J. R. Stat. Soc. B 36:111-147).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ductal.data.cohort import Cohort
from ductal.data.split import Part, Split
from ductal.errors import RunError
from ductal.evaluation.arrays import expit
from ductal.inference.predictor import Predictor, Progress

NOTE = (
    "cross-fitted: each validation patient is scored by the networks that were not trained on that patient, while "
    "the others were; new patients are scored by all"
)


def joined_split(splits: Sequence[Split]) -> Split:
    """The split of an ensemble of networks that were trained with these.

    Args:
        splits: of the networks, with the same test part. Where all are one split, that one is returned.

    Returns:
        "train" holds who trained every network, "val" whom at least one network was not trained on.

    Raises:
        RunError: they differ in their test patients or in what they divide, or no patient is left out by any.
    """
    first = splits[0]
    if all(split.identity == first.identity for split in splits):
        return first
    tests = [frozenset(split.parts.get("test", [])) for split in splits]
    if len(set(tests)) > 1 or len({split.by for split in splits}) > 1:
        raise RunError(
            "The runs differ in their test patients: those of one could have trained another. Combine runs of one "
            "split, or of folds inside one split (--inner-fold)."
        )
    trained = [frozenset(split.parts.get("train", [])) for split in splits]
    known = frozenset().union(*trained, *(split.parts.get("val", []) for split in splits))
    by_all = frozenset.intersection(*trained)
    if known == by_all:
        raise RunError("Every patient trained every one of these runs: nobody is left to calibrate them on.")
    parts: dict[Part, list[str]] = {"train": sorted(by_all), "val": sorted(known - by_all), "test": sorted(tests[0])}
    return Split(
        name=f"cross-fitted, {len(splits)} networks", seed=first.seed, by=first.by, parts=parts, cross_fitted=True,
        notes=[NOTE, *(note for note in first.notes if all(note in split.notes for split in splits))],
    )  # fmt: skip


def out_of_fold(
    predictor: Predictor, splits: Sequence[Split], cohort: Cohort, rows: np.ndarray, progress: Progress | None = None
) -> npt.NDArray[np.float32]:
    """Calibrated probabilities of patches, each by those of an ensemble's networks that its patient did not train.

    Args:
        predictor: the ensemble.
        splits: what its networks were trained with, in their order.
        cohort, rows: the patches, int64 (n,).
        progress: called with (patches done, patches in all), for each network anew.

    Returns:
        float32 (n,).

    Raises:
        RunError: a patch's patient trained all of them, or splits and networks differ in number.
    """
    if len(splits) != len(predictor.members):
        raise RunError(f"The ensemble has {len(predictor.members)} networks and {len(splits)} splits of networks.")
    groups = cohort.groups[rows]
    total, counted = np.zeros(len(rows)), np.zeros(len(rows))
    for member, split in zip(predictor.members, splits, strict=True):
        unseen = ~np.isin(groups, split.parts.get("train", []))
        if unseen.any():
            alone = Predictor([member], d4=predictor.d4)
            total[unseen] += alone.logits(cohort.pixels, rows[unseen], progress=progress)
            counted += unseen
    if (counted == 0).any():
        raise RunError("A validation patient of this ensemble trained all of its networks. Make it anew.")
    return expit(total / counted / predictor.temperature + predictor.bias).astype(np.float32)

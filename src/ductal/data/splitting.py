"""The ways to divide a cohort: the published lists, a random draw by patient, folds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from ductal.data.split import PARTS, SPLIT_NAMES, Part, Split, group_ids, published_ids, refuse_overlap
from ductal.data.stratify import balanced_parts
from ductal.errors import DataError

if TYPE_CHECKING:
    from ductal.data.cohort import Cohort


def check_split_settings(name: str, ratios: Sequence[float], fold: int, folds: int) -> None:
    """Find mistakes in the arguments of `make_split` before a cohort is prepared. Raises DataError."""
    if name not in SPLIT_NAMES:
        raise DataError(f"There is no split {name!r}. Choose one of {', '.join(SPLIT_NAMES)}.")
    shares = [float(ratio) for ratio in ratios]
    right = len(shares) == 3 and all(0 <= share <= 1 for share in shares)
    if name == "random" and (not right or not math.isclose(sum(shares), 1, abs_tol=1e-6) or min(shares[:2]) == 0):
        raise DataError(
            "The ratios must be three shares of train, validation and test that sum to 1, none negative and "
            f"only the last 0. Received: ratios={tuple(ratios)}."
        )
    if name == "kfold" and (folds < 3 or not 0 <= fold < folds):
        raise DataError(
            "kfold needs 3 folds or more (test, validation, train) and a fold from 0 to folds - 1. "
            f"Received: fold={fold}, folds={folds}."
        )


def make_split(
    cohort: Cohort,
    name: str,
    *,
    seed: int = 42,
    ratios: Sequence[float] = (0.7, 0.15, 0.15),
    fold: int = 0,
    folds: int = 5,
) -> Split:
    """Divide a cohort into train, validation and test groups.

    Args:
        cohort: the prepared cohort.
        name: ``published``: the 84 / 29 / 49 published patients, as far as the cohort has them; others are
            left out. ``published+extra``: the same, and patients of no published list join train.
            ``random``: seeded, stratified by patient in the given ratios. ``kfold``: seeded, stratified
            folds; fold `fold` is test, the next one validation, the others train.
        seed: draws ``random`` and ``kfold``; the published splits ignore it.
        ratios: shares of train, validation and test for ``random``; the last may be 0.
        fold: which fold is test, 0 to `folds` - 1.
        folds: number of folds, 3 or more.

    Returns:
        The split. Where patients are unknown, ``random`` and ``kfold`` keep identical pixels together
        (`by` is "content") and a note says so.

    Raises:
        DataError: unknown name, wrong ratios or folds, one class or one patient only, too few patients to
            give every part both classes, or a published split on a cohort that has no use for it.
    """
    check_split_settings(name, ratios, fold, folds)
    classes = np.unique(cohort.labels)
    if len(classes) < 2:
        held = f"only class {classes[0]}" if len(classes) else "no patches"
        raise DataError(
            f"The cohort {cohort.info.name!r} holds {held}; a classifier needs both classes. "
            "Prepare it again from a source with IDC and non-IDC patches."
        )
    if name.startswith("published"):
        split = _published(cohort, name)
    elif name == "random":
        split = _random(cohort, seed, ratios)
    else:
        split = _kfold(cohort, seed, fold, folds)
    refuse_overlap(split)
    return split


def _published(cohort: Cohort, name: str) -> Split:
    if not cohort.info.has_patients:
        raise DataError(
            f"The split {name!r} needs patient ids and the cohort {cohort.info.name!r} has none. "
            "Give a table of patients when preparing it, or use the split 'random'."
        )
    lists = published_ids()
    known = set(cohort.table["patient"].unique()) - {""}
    parts = {part: [patient for patient in lists[part] if patient in known] for part in PARTS}
    extra = sorted(known.difference(*lists.values()))
    if not any(parts.values()):
        raise DataError(
            f"None of the 162 published patients is in the cohort {cohort.info.name!r}. "
            "Use the split 'random' or 'kfold'."
        )
    notes = [
        f"{part}: {len(parts[part])} of {len(lists[part])} published {part} patients are in this cohort"
        for part in PARTS
        if len(parts[part]) < len(lists[part])
    ]
    if not parts["test"]:
        notes[-1] += "; evaluation uses validation patients"
    if extra and name == "published+extra":
        notes.append(
            f"train: {len(extra)} patients of no published list were added; not the published comparison"
        )
        parts["train"] = sorted(parts["train"] + extra)
    elif extra:
        notes.append(f"left out: {len(extra)} patients of this cohort are in no published list")
    for part in ("train", "val"):
        if not parts[part]:
            raise DataError(
                f"The cohort {cohort.info.name!r} has no {part} patients of the split {name!r}. "
                "Use the split 'random', or prepare more patients."
            )
    return Split(name=name, parts=parts, notes=notes)


def _random(cohort: Cohort, seed: int, ratios: Sequence[float]) -> Split:
    shares = [float(ratio) for ratio in ratios]
    used = 3 if shares[2] > 0 else 2
    by, notes = _grouping(cohort)
    groups = stratified(cohort, by, shares[:used], seed, "parts")
    parts = {part: groups[k] if k < used else [] for k, part in enumerate(PARTS)}
    if used == 2:
        notes.append("test: no test part was asked for; evaluation uses validation patients")
    return Split(name="random", seed=seed, by=by, parts=parts, notes=notes)


def _kfold(cohort: Cohort, seed: int, fold: int, folds: int) -> Split:
    by, notes = _grouping(cohort)
    groups = stratified(cohort, by, [1 / folds] * folds, seed, "folds")
    validation = (fold + 1) % folds
    rest = [group for k in range(folds) if k not in (fold, validation) for group in groups[k]]
    parts: dict[Part, list[str]] = {"train": sorted(rest), "val": groups[validation], "test": groups[fold]}
    notes.append(f"fold {fold} of {folds} is test, fold {validation} validation")
    return Split(name="kfold", seed=seed, by=by, parts=parts, notes=notes, fold=fold)


def _grouping(cohort: Cohort) -> tuple[Literal["patient", "content"], list[str]]:
    if cohort.info.has_patients:
        return "patient", []
    return "content", [
        "not by patient: patient ids are unknown and only identical pixels are kept together, "
        "so patches of one patient may be on both sides; figures are likely inflated"
    ]


def stratified(
    cohort: Cohort,
    by: Literal["patient", "content"],
    ratios: Sequence[float],
    seed: int,
    what: str,
    rows: np.ndarray | None = None,
) -> list[list[str]]:
    """Divide groups so that every part has both classes.

    Args:
        cohort: the prepared cohort.
        by: what the groups are.
        ratios: share of each part.
        seed: draws them.
        what: the parts in words, for errors.
        rows: bool (N,), the rows whose groups are divided; None is all.

    Returns:
        Sorted group ids of each part.

    Raises:
        DataError: too few groups for every part to have both classes.
    """
    table = pd.DataFrame({"group": group_ids(cohort, by), "positive": cohort.labels == 1})
    kept = table["group"] != "" if rows is None else (table["group"] != "") & rows
    sums = table[kept].groupby("group")["positive"].agg(["size", "sum"])
    positives = sums["sum"].to_numpy(dtype=np.int64)
    negatives = sums["size"].to_numpy(dtype=np.int64) - positives
    noun = "patients" if by == "patient" else "different patches"
    holds = "has" if rows is None else "has, in the parts to divide,"
    problem = f"The cohort {cohort.info.name!r} {holds} {len(sums)} {noun}: too few for {len(ratios)} {what}"
    remedy = f"Prepare more patients, or ask for fewer {what}."
    if len(sums) < len(ratios):
        raise DataError(f"{problem}. {remedy}")
    part = balanced_parts(negatives, positives, np.asarray(ratios), np.random.default_rng(seed))
    for k in range(len(ratios)):
        if not (negatives[part == k].any() and positives[part == k].any()):
            raise DataError(f"{problem} that each hold both classes. {remedy}")
    ids = sums.index.to_numpy(dtype=object)
    return [sorted(ids[part == k].tolist()) for k in range(len(ratios))]

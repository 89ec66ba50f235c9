"""Train, validation and test parts: whole patients only, reproducible, and with a closed test part.

Four splits are known by name: ``published`` and ``published+extra`` (the patient lists of Cruz-Roa et al.
2014, SPIE 10.1117/12.2043872, and Janowczyk & Madabhushi 2016, PubMed 27563488), ``random`` and ``kfold``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
from pydantic import BaseModel, ValidationError

from ductal.data.stratify import balanced_parts
from ductal.errors import DataError, HeldOutError, LeakError
from ductal.files import write_text

if TYPE_CHECKING:
    from ductal.data.cohort import Cohort

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
SPLIT_NAMES = ("published", "published+extra", "random", "kfold")


class Split(BaseModel):
    """Which groups (patients, or content hashes where patients are unknown) belong to which part.

    Attributes:
        name: one of `SPLIT_NAMES`, or a user's own.
        seed: the seed that drew it; None for the published lists.
        by: what the ids in `parts` are, "patient" or "content" (sha1 of the pixels).
        parts: "train", "val" and "test", each a sorted list of group ids; no id is in two of them.
        notes: sentences that belong beside every figure made with this split.
        fold: number of the test fold of ``kfold``, else None.
    """

    name: str
    seed: int | None = None
    by: Literal["patient", "content"] = "patient"
    parts: dict[Part, list[str]]
    notes: list[str] = []
    fold: int | None = None

    @property
    def identity(self) -> str:
        """Hex SHA-1 over the parts: equal for the same assignment, whatever its name."""
        lines = [f"{part} {group}\n" for part in PARTS for group in sorted(self.parts.get(part, []))]
        return hashlib.sha1("".join(lines).encode()).hexdigest()

    def rows(self, cohort: Cohort, part: Part, *, final_evaluation: bool = False) -> np.ndarray:
        """Row numbers of `cohort.table` that belong to a part: int64, shape (n,), ascending.

        "train" gives only the rows marked `selected`; "val" and "test" give every row, so that metrics are
        taken at the natural prevalence. Empty when the part has no ids.

        Raises:
            HeldOutError: "test" without `final_evaluation=True`.
            DataError: unknown part, or the part has ids and this cohort has none of them.
            LeakError: an id is in two parts.
        """
        if part not in PARTS:
            raise DataError(f"There is no part {part!r}. Choose one of {', '.join(PARTS)}.")
        if part == "test" and not final_evaluation:
            raise HeldOutError(
                "The test patients are closed: only the final evaluation may read them, or the figures "
                "reported on them mean nothing. Use the validation patients here; to report on the test "
                "patients, run the final evaluation (final_evaluation=True)."
            )
        mine = self.part_of_rows(cohort) == PARTS.index(part)
        if self.parts.get(part) and not mine.any():
            raise DataError(
                f"The split {self.name!r} lists {len(self.parts[part])} groups for {part}, and none of them "
                f"is in the cohort {cohort.info.name!r}. Use the split that was made for this cohort."
            )
        if part == "train":
            mine &= cohort.table["selected"].to_numpy(dtype=bool)
        return np.flatnonzero(mine).astype(np.int64)

    def part_of_rows(self, cohort: Cohort) -> np.ndarray:
        """Position in `PARTS` of every row's part, -1 where it has none: int8, shape (N,).

        This is what the audit works on; it says where rows belong and hands out no pixels or labels.

        Raises:
            LeakError: an id is in two parts.
        """
        _refuse_overlap(self)
        code = {group: PARTS.index(part) for part, groups in self.parts.items() for group in groups}
        return group_ids(cohort, self.by).map(code).fillna(-1).to_numpy(dtype=np.int8)

    def count(self, cohort: Cohort) -> dict[str, dict[str, int]]:
        """For every part: the "patients" (groups), "patches" and "positives" this cohort has in it.

        All patches are counted, also the train patches that a `limit_per_class` does not select.
        """
        code, groups, labels = self.part_of_rows(cohort), group_ids(cohort, self.by), cohort.labels
        return {
            part: {
                "patients": int(groups[code == k].nunique()),
                "patches": int((code == k).sum()),
                "positives": int((labels[code == k] == 1).sum()),
            }
            for k, part in enumerate(PARTS)
        }

    def save(self, path: str | Path) -> None:
        """Write the split as JSON, whole or not at all. Raises StorageError when the disk refuses."""
        write_text(Path(path), self.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Split:
        """Read a split written by `save`, or by hand in the same form.

        Raises:
            DataError: the file is missing or is not a split.
            LeakError: a group is in two parts.
        """
        try:
            split = cls.model_validate_json(Path(path).read_bytes())
        except OSError as error:
            raise DataError(f"Could not read the split {path}: {error.strerror or error}.") from error
        except ValidationError as error:
            raise DataError(
                f"{path} is not a split: {error.errors()[0]['msg']}. Make it again with `make_split`."
            ) from error
        _refuse_overlap(split)
        return split


def group_ids(cohort: Cohort, by: Literal["patient", "content"]) -> pd.Series:
    """The id by which rows are kept together, one a row: the patient, or the sha1 of the pixels."""
    return cohort.table["patient" if by == "patient" else "sha1"]


def published_ids() -> dict[Part, list[str]]:
    """The 84 train, 29 validation and 49 test patients of Cruz-Roa 2014 and Janowczyk 2016, sorted."""
    folder = resources.files("ductal.data").joinpath("published")
    return {part: sorted(folder.joinpath(f"{part}.txt").read_text("utf-8").split()) for part in PARTS}


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
    if name not in SPLIT_NAMES:
        raise DataError(f"There is no split {name!r}. Choose one of {', '.join(SPLIT_NAMES)}.")
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
    _refuse_overlap(split)
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
    right = len(shares) == 3 and all(0 <= share <= 1 for share in shares)
    if not right or not math.isclose(sum(shares), 1, abs_tol=1e-6) or min(shares[:2]) == 0:
        raise DataError(
            "The ratios must be three shares of train, validation and test that sum to 1, none negative and "
            f"only the last 0. Received: ratios={tuple(ratios)}."
        )
    used = 3 if shares[2] > 0 else 2
    by, notes = _grouping(cohort)
    groups = _stratified(cohort, by, shares[:used], seed, "parts")
    parts = {part: groups[k] if k < used else [] for k, part in enumerate(PARTS)}
    if used == 2:
        notes.append("test: no test part was asked for; evaluation uses validation patients")
    return Split(name="random", seed=seed, by=by, parts=parts, notes=notes)


def _kfold(cohort: Cohort, seed: int, fold: int, folds: int) -> Split:
    if folds < 3 or not 0 <= fold < folds:
        raise DataError(
            "kfold needs 3 folds or more (test, validation, train) and a fold from 0 to folds - 1. "
            f"Received: fold={fold}, folds={folds}."
        )
    by, notes = _grouping(cohort)
    groups = _stratified(cohort, by, [1 / folds] * folds, seed, "folds")
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


def _stratified(
    cohort: Cohort, by: Literal["patient", "content"], ratios: list[float], seed: int, what: str
) -> list[list[str]]:
    """Sorted group ids of each part; every part has both classes, or DataError."""
    table = pd.DataFrame({"group": group_ids(cohort, by), "positive": cohort.labels == 1})
    sums = table[table["group"] != ""].groupby("group")["positive"].agg(["size", "sum"])
    positives = sums["sum"].to_numpy(dtype=np.int64)
    negatives = sums["size"].to_numpy(dtype=np.int64) - positives
    noun = "patients" if by == "patient" else "different patches"
    problem = f"The cohort {cohort.info.name!r} has {len(sums)} {noun}: too few for {len(ratios)} {what}"
    remedy = f"Prepare more patients, or ask for fewer {what}."
    if len(sums) < len(ratios):
        raise DataError(f"{problem}. {remedy}")
    part = balanced_parts(negatives, positives, np.asarray(ratios), np.random.default_rng(seed))
    for k in range(len(ratios)):
        if not (negatives[part == k].any() and positives[part == k].any()):
            raise DataError(f"{problem} that each hold both classes. {remedy}")
    ids = sums.index.to_numpy(dtype=object)
    return [sorted(ids[part == k].tolist()) for k in range(len(ratios))]


def _refuse_overlap(split: Split) -> None:
    seen: dict[str, str] = {}
    for part, groups in split.parts.items():
        for group in groups:
            if seen.setdefault(group, part) != part:
                raise LeakError(
                    f"The split {split.name!r} has {split.by} {group!r} in {seen[group]} and in {part}. "
                    "A model would be judged on what it has learnt; remove the id from one of them."
                )

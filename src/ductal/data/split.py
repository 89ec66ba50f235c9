"""Train, validation and test parts: whole patients only, reproducible, and with a closed test part.

Four splits are known by name: ``published`` and ``published+extra`` (the patient lists of Cruz-Roa et al.
2014, SPIE 10.1117/12.2043872, and Janowczyk & Madabhushi 2016, PubMed 27563488), ``random`` and ``kfold``.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
from pydantic import BaseModel, ValidationError

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
        cross_fitted: of an ensemble whose networks were trained on different folds: a "val" patient has trained some
            of them and is to be scored by the others (`ductal.evaluation.cross_fit`).
    """

    name: str
    seed: int | None = None
    by: Literal["patient", "content"] = "patient"
    parts: dict[Part, list[str]]
    notes: list[str] = []
    fold: int | None = None
    cross_fitted: bool = False

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
        refuse_overlap(self)
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
                f"{path} is not a split: {error.errors()[0]['msg']}. It is JSON, see docs/splits.md."
            ) from error
        refuse_overlap(split)
        return split


def load_split(path: str | Path, cohort: Cohort) -> Split:
    """A split of one's own, in the form `Split.save` writes, with what of it `cohort` has.

    It cannot pass for one of `SPLIT_NAMES`: under such a name it is called "own (published)" and so on.

    Raises:
        DataError: it is not a split, or train or val has no group that is in the cohort.
        LeakError: a group is in two parts.
    """
    split = Split.load(path)
    known = set(group_ids(cohort, split.by)) - {""}
    parts = {part: sorted(known.intersection(split.parts.get(part, []))) for part in PARTS}
    notes = list(split.notes)
    for part in PARTS:
        listed = len(set(split.parts.get(part, [])))
        if not parts[part] and (listed or part != "test"):
            raise DataError(
                f"The split {path} lists {listed} groups for {part}, and none of them is in the cohort "
                f"{cohort.info.name!r}. Name patients as the cohort does."
            )
        if len(parts[part]) < listed:
            notes.append(f"{part}: {len(parts[part])} of {listed} listed are in this cohort")
    left = len(known.difference(*parts.values()))
    if left:
        notes.append(f"left out: {left} of this cohort are in no part of the split")
    name = f"own ({split.name})" if split.name in SPLIT_NAMES else split.name
    return split.model_copy(update={"name": name, "parts": parts, "notes": notes})


def group_ids(cohort: Cohort, by: Literal["patient", "content"]) -> pd.Series:
    """The id by which rows are kept together, one a row: the patient, or the sha1 of the pixels."""
    return cohort.table["patient" if by == "patient" else "sha1"]


def published_ids() -> dict[Part, list[str]]:
    """The 84 train, 29 validation and 49 test patients of Cruz-Roa 2014 and Janowczyk 2016, sorted."""
    folder = resources.files("ductal.data").joinpath("published")
    return {part: sorted(folder.joinpath(f"{part}.txt").read_text("utf-8").split()) for part in PARTS}


def refuse_overlap(split: Split) -> None:
    """Raises LeakError where an id is in two parts."""
    seen: dict[str, str] = {}
    for part, groups in split.parts.items():
        for group in groups:
            if seen.setdefault(group, part) != part:
                raise LeakError(
                    f"The split {split.name!r} has {split.by} {group!r} in {seen[group]} and in {part}. "
                    "A model would be judged on what it has learnt; remove the id from one of them."
                )

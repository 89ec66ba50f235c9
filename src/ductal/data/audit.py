"""Check a split for leaks, without trusting how it was made.

The audit knows only which row of the cohort is in which part. It may look at test patches: it compares
pixels across parts and reports pairs, and trains and measures nothing. Rules are in docs/splits.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, computed_field

from ductal.data import near_duplicates as near
from ductal.data.split import PARTS, Split, published_ids
from ductal.errors import LeakError

if TYPE_CHECKING:
    from ductal.data.cohort import Cohort

Status = Literal["passed", "failed", "not testable"]

ADJACENT_PX = 50
EXAMPLES = 3
_PAIRS_OF_PARTS = tuple(combinations(range(len(PARTS)), 2))


class AuditCheck(BaseModel):
    """One question put to a split.

    Attributes:
        name: short name.
        what: the rule, in one sentence.
        status: "failed" when anything was found, "not testable" when the cohort lacks what it needs.
        pairs: how many offenders: pairs of patches across parts, or patients in two parts.
        examples: up to three of them.
    """

    name: str
    what: str
    status: Status
    pairs: int
    examples: list[str]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        """Whether the check was made and found nothing."""
        return self.status == "passed"


class AuditReport(BaseModel):
    """All checks of one split; `notes` are for information and never a reason to refuse."""

    checks: list[AuditCheck]
    notes: list[str] = []

    @computed_field  # type: ignore[prop-decorator]
    @property
    def status(self) -> Status:
        """The worst status of the checks: "failed", then "not testable", then "passed"."""
        found = {check.status for check in self.checks}
        return "failed" if "failed" in found else "not testable" if "not testable" in found else "passed"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        """Whether every check was made and found nothing; `refuse_leaks` minds failures only."""
        return self.status == "passed"

    def text(self) -> str:
        """A compact table: a line a check, then examples and notes."""
        width = max(len(check.name) for check in self.checks)
        lines = []
        for check in self.checks:
            found = "-" if check.status == "not testable" else f"{check.pairs:,}"
            lines.append(f"{check.name:<{width}}  {check.status:<12}  {found:>9}  {check.what}")
            lines += [f"{'':<{width}}    e.g. {example}" for example in check.examples]
        return "\n".join(lines + [f"note: {note}" for note in self.notes])


def audit_split(
    cohort: Cohort, split: Split, progress: Callable[[int, int], None] | None = None
) -> AuditReport:
    """Look for the same patient or tissue on two sides of a split; see `audit_rows`.

    Raises:
        LeakError: the split names one group in two parts, so there is nothing to audit.
    """
    return audit_rows(cohort, split.part_of_rows(cohort), progress)


def audit_rows(
    cohort: Cohort, part_of_rows: np.ndarray, progress: Callable[[int, int], None] | None = None
) -> AuditReport:
    """Audit any assignment of rows to parts, however it came about.

    Args:
        cohort: the prepared cohort.
        part_of_rows: int (N,), position in `ductal.data.split.PARTS`, or -1 for rows that are not used.
        progress: called with (steps done, steps in all) of the near-duplicate search.

    Returns:
        The report. It judges nothing; `refuse_leaks` does.
    """
    table = cohort.table
    used = pd.DataFrame(
        {
            "row": np.arange(len(table)),
            "part": np.asarray(part_of_rows),
            "patient": table["patient"].to_numpy(dtype=object),
            "sha1": table["sha1"].to_numpy(dtype=object),
            "x": table["x"].to_numpy(dtype=np.int64),
            "y": table["y"].to_numpy(dtype=np.int64),
        }
    )
    used = used[used["part"] >= 0]
    named = used[(used["patient"] != "") & cohort.info.has_patients]
    names = table["patch_id"].to_numpy(dtype=object)
    return AuditReport(
        checks=[
            _patients(named),
            _copies(used, names),
            _near_copies(cohort.pixels, used, names, progress),
            _adjacent(named, names),
        ],
        notes=[] if cohort.info.synthetic else _consecutive_ids(named),
    )


def refuse_leaks(report: AuditReport) -> None:
    """Stop here if any check of the audit failed.

    Raises:
        LeakError: it names each failed check, its count and up to three examples.
    """
    failed = [check for check in report.checks if check.status == "failed"]
    if failed:
        found = "; ".join(
            f"{check.name}: {check.pairs:,} (e.g. {', '.join(check.examples)})" for check in failed
        )
        raise LeakError(
            f"The split leaks, so its figures would be inflated. {found}. Make it again by patient "
            "(`published`, `random` or `kfold`); if patches are copies under two patient ids, remove one "
            "copy from the source and prepare the cohort again."
        )


def _check(name: str, what: str, pairs: int, examples: Iterable[str], *, testable: bool = True) -> AuditCheck:
    status: Status = "not testable" if not testable else "failed" if pairs else "passed"
    return AuditCheck(name=name, what=what, status=status, pairs=pairs, examples=list(examples)[:EXAMPLES])


def _across(names: np.ndarray, parts: dict[int, int], a: int, b: int) -> str:
    return f"{names[a]} ({PARTS[parts[a]]}) and {names[b]} ({PARTS[parts[b]]})"


def _patients(named: pd.DataFrame) -> AuditCheck:
    parts = named.groupby("patient")["part"].unique()
    shared = parts[parts.map(len) > 1]
    examples = [
        f"patient {patient} in {' and '.join(PARTS[k] for k in sorted(codes))}"
        for patient, codes in shared.head(EXAMPLES).items()
    ]
    what = "no patient is in two parts"
    return _check("patients", what, len(shared), examples, testable=len(named) > 0)


def _copies(used: pd.DataFrame, names: np.ndarray) -> AuditCheck:
    counts = pd.crosstab(used["sha1"], used["part"]).reindex(columns=range(len(PARTS)), fill_value=0)
    by_part = counts.to_numpy(dtype=np.int64)
    pairs = pd.Series(sum(by_part[:, a] * by_part[:, b] for a, b in _PAIRS_OF_PARTS), index=counts.index)
    parts = dict(zip(used["row"], used["part"], strict=True))
    examples = []
    for sha1 in pairs.index[pairs > 0][:EXAMPLES]:
        first = used[used["sha1"] == sha1].drop_duplicates("part")["row"].tolist()
        examples.append(_across(names, parts, first[0], first[1]))
    what = "no two patches in different parts have identical pixels (sha1)"
    return _check("identical patches", what, int(pairs.sum()), examples)


def _near_copies(
    pixels: np.ndarray,
    used: pd.DataFrame,
    names: np.ndarray,
    progress: Callable[[int, int], None] | None,
) -> AuditCheck:
    parts = np.full(len(pixels), -1)
    parts[used["row"]] = used["part"]
    small = near.thumbnails(pixels, used["row"].to_numpy())
    sha1 = dict(zip(used["row"], used["sha1"], strict=True))
    pairs: list[tuple[int, int]] = []
    for step, (a, b) in enumerate(_PAIRS_OF_PARTS):

        def report(done: int, total: int, step: int = step) -> None:
            if progress is not None:
                progress(1000 * step + 1000 * done // total, 1000 * len(_PAIRS_OF_PARTS))

        pairs += near.near_duplicates(pixels, small.of(parts == a), small.of(parts == b), report)
        report(1, 1)  # an empty part has no blocks to report
    # Identical pixels are counted by their own check.
    pairs = [(a, b) for a, b in pairs if sha1[a] != sha1[b]]
    codes = dict(zip(used["row"], used["part"], strict=True))
    what = "no two patches in different parts are copies but for encoding, brightness, flips or turns"
    examples = [_across(names, codes, a, b) for a, b in pairs[:EXAMPLES]]
    return _check("near duplicates", what, len(pairs), examples)


def _adjacent(named: pd.DataFrame, names: np.ndarray) -> AuditCheck:
    placed = named[(named["x"] >= 0) & (named["y"] >= 0)]
    count = 0
    examples: list[str] = []
    for _, slide in placed.groupby("patient"):
        part, row = slide["part"].to_numpy(), slide["row"].to_numpy()
        if (part == part[0]).all():
            continue
        x, y = slide["x"].to_numpy(np.int32), slide["y"].to_numpy(np.int32)
        codes = dict(zip(row, part, strict=True))
        for k in range(len(slide) - 1):  # a row at a time: a slide may have thousands of patches
            later = slice(k + 1, None)
            close = (abs(x[later] - x[k]) <= ADJACENT_PX) & (abs(y[later] - y[k]) <= ADJACENT_PX)
            others = row[later][close & (part[later] != part[k])]
            count += len(others)
            if len(others) and len(examples) < EXAMPLES:
                examples.append(_across(names, codes, row[k], others[0]))
    what = f"no patches of one slide within {ADJACENT_PX} px of each other are in different parts"
    return _check("adjacent patches", what, count, examples, testable=len(placed) > 0)


def _consecutive_ids(named: pd.DataFrame) -> list[str]:
    """A note on runs of consecutive unpublished ids in different parts: they may be slides of one person."""
    published = {patient for patients in published_ids().values() for patient in patients}
    part = named.drop_duplicates("patient").set_index("patient")["part"]
    ids = sorted(int(patient) for patient in part.index if patient.isdecimal() and patient not in published)
    breaks = np.flatnonzero(np.diff(ids) != 1) + 1
    runs = [run for run in np.split(np.asarray(ids), breaks) if len(run) > 1]
    split = [f"{run[0]}-{run[-1]}" for run in runs if part.reindex(run.astype(str)).nunique() > 1]
    if not split:
        return []
    shown = ", ".join(split[:5]) + (" ..." if len(split) > 5 else "")
    return [
        f"{len(split)} runs of consecutive ids outside the published lists are in different parts ({shown}); "
        "such ids may be slides of one person, which these data do not tell"
    ]

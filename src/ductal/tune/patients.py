"""Whose patches a study sees: training and validation patients, or folds of the training patients; never test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console

from ductal.data.audit import AuditReport, audit_split, refuse_leaks
from ductal.data.cohort import Cohort
from ductal.data.inner import inner_splits
from ductal.data.split import Split
from ductal.data.splitting import check_split_settings
from ductal.experiment_data import audited, open_cohort, split_of

if TYPE_CHECKING:
    from ductal.experiment import Plan


@dataclass(frozen=True)
class Audited:
    """A split without test patients, and the audit of it."""

    split: Split
    audit: AuditReport


@dataclass(frozen=True)
class Patients:
    """What a study may look at.

    Attributes:
        cohort: the patches.
        identity: of the whole split, test patients included.
        outer: training and validation patients.
        inner: folds of the training patients, each once in the place of validation patients; empty where the
            validation patients themselves choose.
    """

    cohort: Cohort
    identity: str
    outer: Audited
    inner: tuple[Audited, ...]

    @property
    def choosing(self) -> tuple[Audited, ...]:
        """What every trial is trained and measured on."""
        return self.inner or (self.outer,)


def open_patients(plan: Plan, console: Console, inner_folds: int | None) -> Patients:
    """The cohort and split of `plan`, audited with the test patients, which are then taken out.

    Nothing of a study is given a list of test patients, so that no mistake in it can open them.

    Raises:
        DataError: the source or the split cannot be used, or too few training patients for the inner folds.
        LeakError: the split leaks.
    """
    check_split_settings(plan.split, plan.ratios, plan.fold, plan.folds)
    if plan.split_file:
        Split.load(plan.split_file)  # a mistake in it should not wait for the cohort
    cohort = open_cohort(plan, console)
    split = split_of(plan, cohort)
    audit = audited(cohort, split, console)
    split.save(plan.out / "split.json")
    outer = Audited(split.model_copy(update={"parts": split.parts | {"test": []}}), audit)
    inner = []
    for part in inner_splits(cohort, outer.split, inner_folds, plan.seed) if inner_folds else []:
        found = audit_split(cohort, part)
        refuse_leaks(found)
        inner.append(Audited(part, found))
    return Patients(cohort, split.identity, outer, tuple(inner))


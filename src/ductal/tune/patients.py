"""Whose patches a study sees: training and validation patients, or folds of the training patients; never test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ductal.data.audit import AuditReport, audit_split, refuse_leaks
from ductal.data.cohort import Cohort
from ductal.data.inner import inner_splits
from ductal.data.split import Split
from ductal.data.splitting import check_split_settings
from ductal.experiment_data import COHORT, open_cohort, split_audited
from ductal.files import replace_folder, sweep

if TYPE_CHECKING:
    from ductal.experiment import Plan

_BESIDE = ".cohort"  # in the folder of a study: a cohort that the study has not accepted yet


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

    @property
    def settings(self) -> dict[str, Any]:
        """What all workers of a study must have alike."""
        info = self.cohort.info
        return {"cohort": info.fingerprint, "selection": info.selection, "split": self.identity}


@dataclass(frozen=True)
class Opened:
    """Patients that a study may still refuse.

    Attributes:
        patients: what it may look at.
        whole: the split with its test patients, of which nothing else is told.
        out: folder of the study.
    """

    patients: Patients
    whole: Split
    out: Path

    def keep(self) -> Patients:
        """The patients, accepted: only now are ``out/cohort`` and ``out/split.json`` replaced.

        Raises:
            StorageError: the disk refused.
        """
        cohort = self.patients.cohort
        if cohort.folder == self.out / _BESIDE:
            replace_folder(cohort.folder, self.out / COHORT)
            cohort = Cohort.open(self.out / COHORT)
        self.whole.save(self.out / "split.json")
        return replace(self.patients, cohort=cohort)


@contextmanager
def opened_patients(plan: Plan, console: Console, inner_folds: int | None) -> Iterator[Opened]:
    """The cohort and split of `plan`, audited with the test patients, which are then taken out.

    Nothing of a study is given a list of test patients, so that no mistake in it can open them. Cohort and split of
    the study in ``plan.out`` are as they were after the block, unless these were kept.

    Raises:
        DataError: the source or the split cannot be used, or too few training patients for the inner folds.
        LeakError: the split leaks.
    """
    beside = plan.out / _BESIDE
    sweep(beside)  # of a killed command, as the next line
    shutil.rmtree(beside, ignore_errors=True)
    try:
        yield _open(plan, console, inner_folds, beside)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _open(plan: Plan, console: Console, inner_folds: int | None, beside: Path) -> Opened:
    check_split_settings(plan.split, plan.ratios, plan.fold, plan.folds)
    if plan.split_file:
        Split.load(plan.split_file)  # a mistake in it should not wait for the cohort
    cohort = open_cohort(plan, console, beside)
    split, audit = split_audited(plan, cohort, console)
    outer = Audited(split.model_copy(update={"parts": split.parts | {"test": []}}), audit)
    inner = []
    for part in inner_splits(cohort, outer.split, inner_folds, plan.seed) if inner_folds else []:
        found = audit_split(cohort, part)
        refuse_leaks(found)
        inner.append(Audited(part, found))
    return Opened(Patients(cohort, split.identity, outer, tuple(inner)), split, plan.out)


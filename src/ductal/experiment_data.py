"""The data side of an experiment: the cohort of a plan, and the audit of its split, told on a console."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ductal import __version__
from ductal.console import bar, say
from ductal.data.audit import AuditReport, audit_split, refuse_leaks
from ductal.data.cohort import INFO, Cohort
from ductal.data.inner import inner_splits
from ductal.data.split import Split, load_split
from ductal.data.splitting import make_split
from ductal.data.store import prepare
from ductal.data.synthetic import make_synthetic
from ductal.errors import DataError
from ductal.files import sweep, write_text
from ductal.training.recipe_file import split_of_study

if TYPE_CHECKING:
    from ductal.experiment import Plan

SYNTHETIC_PATIENTS, SYNTHETIC_PATCHES = 24, 24
COHORT = "cohort"  # in <out>
ORIGIN = "source.json"  # in <out>/cohort: what it was prepared from


def open_cohort(plan: Plan, console: Console, beside: Path | None = None) -> Cohort:
    """The cohort of `plan`: opened if it is prepared already, else prepared into ``<out>/cohort``.

    With `beside` a cohort that is there already is not replaced; another one is prepared into that folder.

    Raises:
        DataError: the source cannot be used, or is a prepared cohort with another selection than asked for.
    """
    source = plan.source
    if source is not None and (source / INFO).is_file():
        cohort = Cohort.open(source)
        _check_selection(plan, cohort)
    elif source is not None:
        cohort = _prepared(plan, source, console, beside)
    else:
        source = plan.out / "synthetic.zip"
        say(console, "No source given: making the synthetic cohort. Its figures are not results.")
        make_synthetic(source, patients=SYNTHETIC_PATIENTS, patches_per_patient=SYNTHETIC_PATCHES, seed=plan.seed)
        cohort = _prepared(plan, source, console, beside)
    describe_cohort(cohort, console)
    return cohort


def _check_selection(plan: Plan, cohort: Cohort) -> None:
    asked = {"patients": plan.patients, "limit_per_class": plan.limit_per_class}
    made = cohort.info.selection
    if plan.patients_csv is not None or any(value not in (None, made.get(key)) for key, value in asked.items()):
        raise DataError(
            f"{cohort.folder} is a prepared cohort with the selection {made}; patients, limit_per_class and "
            "patients_csv only count while a cohort is prepared. Leave them out, or name the archive instead."
        )


def _prepared(plan: Plan, source: Path, console: Console, beside: Path | None) -> Cohort:
    """``<out>/cohort``, prepared anew unless an earlier call made it from the same, unchanged zip."""
    folder = plan.out / COHORT
    origin = _origin(plan, source)
    try:
        if origin is not None and json.loads((folder / ORIGIN).read_text(encoding="utf-8")) == origin:
            cohort = Cohort.open(folder)
            say(console, f"Cohort {folder}: prepared earlier from the same archive, kept")
            return cohort
    except (OSError, ValueError):  # not there, or damaged: made again
        pass
    inside = source.resolve().is_relative_to(folder.resolve())  # `prepare` refuses that
    if beside is not None and (folder / INFO).is_file() and not inside:
        folder = beside
    sweep(folder)  # before the free space is looked at
    with bar(console, "Reading") as progress:
        cohort = prepare(
            source,
            folder,
            patients=plan.patients,
            limit_per_class=plan.limit_per_class,
            seed=plan.seed,
            patients_csv=plan.patients_csv,
            progress=progress,
        )
    if origin is not None:
        write_text(folder / ORIGIN, json.dumps(origin, indent=2) + "\n")
    return cohort


def _origin(plan: Plan, source: Path) -> dict[str, Any] | None:
    """What tells whether a cohort must be prepared again; None where nothing short of reading all would."""
    if not source.is_file() or plan.patients_csv is not None:
        return None
    state = source.stat()
    selection = {"patients": plan.patients, "limit_per_class": plan.limit_per_class, "seed": plan.seed}
    return {
        "source": str(source.resolve()),
        "bytes": state.st_size,
        "modified_ns": state.st_mtime_ns,
        "ductal": __version__,
        **selection,
    }


def describe_cohort(cohort: Cohort, console: Console) -> None:
    """Print what a cohort holds and what was left out."""
    info = cohort.info
    share = info.n_positive / max(info.n_patches, 1)
    of = f" of {_count(info.n_patients, 'patient')}" if info.has_patients else ""
    say(console, f"{_count(info.n_patches, 'patch')}{of}, {info.n_positive:,} IDC ({share:.1%})")
    if info.quarantined:
        kinds = ", ".join(f"{count:,} {reason}" for reason, count in info.quarantined.items())
        say(console, f"Left out, see quarantine.parquet: {kinds}")
    for note in info.notes:
        say(console, f"Note: {note}")


def _count(number: int, noun: str) -> str:
    plural = noun + ("es" if noun.endswith("ch") else "s")
    return f"{number:,} {noun if number == 1 else plural}"


def audited(cohort: Cohort, split: Split, console: Console) -> AuditReport:
    """Audit a split, print the findings, and refuse it when it leaks. Raises LeakError."""
    parts = [
        f"{part} {_count(c['patients'], 'patient')} / {_count(c['patches'], 'patch')}"
        for part, c in split.count(cohort).items()
    ]
    say(console, f"Split {split.name}: {', '.join(parts)}")
    for note in split.notes:
        say(console, f"Note: {note}")
    with console.status("Auditing the split for leaks"):
        audit = audit_split(cohort, split)
    say(console, audit.text())
    refuse_leaks(audit)
    return audit


def split_audited(plan: Plan, cohort: Cohort, console: Console) -> tuple[Split, AuditReport]:
    """The split of `plan`, audited, with a note for a recipe that was tuned on another one.

    Raises:
        DataError: the cohort cannot be divided so. LeakError: the split leaks.
    """
    split = split_of(plan, cohort)
    audit = audited(cohort, split, console)
    for name in plan.recipes:
        if split_of_study(name) not in (None, split.identity):
            say(
                console,
                f"Note: {name} was tuned on another split, so test patients of this one may have trained or chosen "
                "it, and figures on them are too good. Use that study's cohort and --split-file STUDY/split.json.",
            )
    return split, audit


def split_of(plan: Plan, cohort: Cohort) -> Split:
    """The split that `plan` names, or that of its file. Raises DataError where the cohort cannot be divided so."""
    if plan.split_file:
        split = load_split(plan.split_file, cohort)
    else:
        split = make_split(cohort, plan.split, seed=plan.seed, ratios=plan.ratios, fold=plan.fold, folds=plan.folds)
    if plan.inner_fold is None:
        return split
    number, folds = plan.inner_fold
    if not 0 <= number < folds:
        raise DataError(f"An inner fold is (k, n) with k from 0 to n - 1. Received: {plan.inner_fold}.")
    return inner_splits(cohort, split, folds, plan.seed, divided=("train", "val"))[number]

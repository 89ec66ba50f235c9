"""Reports: one HTML file that opens anywhere, without a network, and says what the figures mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ductal.data.quality import RULES
from ductal.errors import RunError
from ductal.evaluation import figures
from ductal.evaluation.checklist import filled
from ductal.evaluation.compare import best_on_validation, load_runs, ranked
from ductal.evaluation.limits import intended_use, out_of_scope
from ductal.evaluation.report_model import METRICS, flat, inline, model_section
from ductal.evaluation.runs import PART_WORDS, RunRecord, load_run
from ductal.evaluation.tables import (
    DIFFERENCE_HEADINGS,
    DIFFERENCES_SAY,
    HEADINGS,
    SEED_HEADINGS,
    SEEDS_SAY,
    TEXTS,
    WITH_INTERVAL,
    caption,
    cell,
    difference_rows,
    interval_words,
    p_equals,
    seed_rows,
    show,
    signed,
)
from ductal.files import write_text


def write_run_report(run_folder: Path) -> Path:
    """Write ``report.html`` into an evaluated run folder, with the figures that are there.

    Returns:
        The report's path.

    Raises:
        RunError: as `ductal.evaluation.compare.load_run`.
        StorageError: the disk refused the write.
    """
    run = load_run(run_folder)
    rows, _ = ranked([run])
    path = run.folder / "report.html"
    context = _shared(f"Run {run.name}", [run], rows, named=True) | _ALONE
    context |= {"runs": [model_section(run, named=True)], "checklists": filled(run)}
    write_text(path, _render(context))
    return path


def write_comparison_report(
    out: Path, run_folders: list[Path], title: str, *, allow_different: bool = False
) -> Path:
    """Write ``<out>/report.html``: verdict, leaderboard, cohort, leak audit and a section for each model.

    Also writes ``<out>/figures/leaderboard.png`` and ``roc_pr.png``. Patients and files are not named: each run's own
    report does that.

    Args:
        out: the folder of the comparison.
        run_folders: run folders, control models included.
        title: heading of the report.
        allow_different: as `ductal.evaluation.compare.leaderboard`; differences are noted.

    Returns:
        The report's path.

    Raises:
        RunError: as `ductal.evaluation.compare.leaderboard`.
        StorageError: the disk refused the write.
    """
    rows, runs = ranked(load_runs(run_folders), allow_different=allow_different)
    part = rows["part"].iloc[0]
    # Pooled folds have no common scale along which one curve could be drawn.
    single = [(name, run.predictions(part)) for name, run in zip(rows["name"], runs, strict=True) if not run.pooled]
    scores: list[figures.Scores] = [
        (name, table["label"].to_numpy(), table["prob"].to_numpy()) for name, table in single
    ]
    drawn = [(*_BARS, figures.leaderboard_bars(rows, out / "figures" / "leaderboard.png"))]
    if scores:
        drawn.append((*_ROC_PR, figures.roc_pr(scores, out / "figures" / "roc_pr.png")))
    context = _shared(title, runs, rows, named=False) | {
        "runs": [model_section(run, named=False) for run in runs if not run.control],
        "checklists": [],
        "comparison": [(what, look, inline(path)) for what, look, path in drawn],
        "differences": {"headings": DIFFERENCE_HEADINGS, "rows": difference_rows(rows), "says": DIFFERENCES_SAY},
        "seeds": {"headings": SEED_HEADINGS, "rows": seed_rows(rows), "says": SEEDS_SAY},
    }
    path = out / "report.html"
    write_text(path, _render(context))
    return path


def verdict(rows: pd.DataFrame) -> str:
    """The result in plain words: the best model, on whom, and whether it really beats the control models."""
    is_control = rows["control"].astype(bool)
    models, controls = rows[~is_control], rows[is_control]
    best = rows.loc[best_on_validation(rows)].to_dict()
    patients = f" of {best['patients']:,} {PART_WORDS[best['part']]} patients" if best["patients"] else ""
    chosen = "Best of" if _chosen_by_result(best) else "Chosen on validation patients out of"
    lead = f"{chosen} {len(models)} models: {best['title']}" if len(models) > 1 else str(best["title"])
    text = (
        f"{lead}. ROC AUC {cell(best, 'roc_auc')} and balanced accuracy "
        f"{cell(best, 'balanced_accuracy')} on {best['patches']:,} patches{patients}."
    )
    if not len(models) or not len(controls):
        return text
    control = controls.iloc[0]
    against = f"the best control model, {control['name']} (ROC AUC {show('', control['roc_auc'])})"
    if not best["roc_auc"] > control["roc_auc"]:
        return f"{text} It does not beat {against}: nothing here shows that it learned more than colour."
    if best.get("to_control", "n/a") == "n/a":
        return f"{text} It is above {against}; whether by more than chance cannot be said without patients."
    by = f"by {signed(best, 'roc_auc_minus_control')}, p {p_equals(best['roc_auc_minus_control_p'])}"
    if best["to_control"] == "higher":
        return f"{text} It beats {against}, {by}."
    return f"{text} It is above {against}, {by}: on these patients that may be chance."


def warnings_of(runs: Sequence[RunRecord], rows: pd.DataFrame) -> list[tuple[str, str]]:
    """(heading, sentence) for everything that limits what the figures may be used for."""
    found = []
    if any(run.run["cohort"].get("synthetic") for run in runs):
        found.append(("SYNTHETIC", _SYNTHETIC))
    if any(not run.run["cohort"].get("has_patients", True) for run in runs):
        found.append(("No patient ids", _NO_PATIENTS))
    if rows["part"].iloc[0] == "val":
        found.append(("Validation patients only", f"{_why_validation(runs)} {_OPTIMISTIC}"))
    if any(check.get("status") == "failed" for run in runs for check in _audit(run).get("checks", [])):
        found.append(
            ("Leak audit failed", "Training and evaluation share patients or tissue: see the audit.")
        )
    elif int((~rows["control"].astype(bool)).sum()) > 1:
        if _chosen_by_result(rows.loc[best_on_validation(rows)].to_dict()):
            found.append(("Best of several by the figure that is shown", _BEST_OF))
        elif any(run.pooled for run in runs):
            found.append(("Folds share their patients", _SHARED))
    if "note" in rows:
        found.append(("Different runs", "Some rows were measured on other data: see the column Note."))
    incomplete = [run for run in runs if run.pooled and _tested(run) < run.run["cohort"].get("n_patients", 0)]
    if incomplete:
        tested, of = _tested(incomplete[0]), incomplete[0].run["cohort"]["n_patients"]
        found.append(("Folds are missing", f"Only {tested} of {of} patients of the cohort are in the pooled folds."))
    opened = max(int(run.run.get("test_opened", 0)) for run in runs)
    if opened > 1:
        found.append(("Test patients were opened more than once", f"Up to {opened} times. {_OPENED}"))
    return found


_BARS = (
    "Balanced accuracy and ROC AUC of every model",
    "Look how far a model is above the hollow marks, the controls that see colours or nothing. Bars that overlap do "
    "not show that two models are alike; the section Differences compares them patient by patient.",
)
_ROC_PR = (
    "ROC and precision-recall curves of every model",
    "Left: the nearer to the upper left corner the better, and the dotted diagonal is chance. Lines that cross are "
    "better at different thresholds, not better altogether.",
)
# What a report of one run leaves out.
_ALONE: dict[str, Any] = {"comparison": [], "differences": {"rows": []}, "seeds": {"rows": []}}
_SYNTHETIC = (
    "These patches were drawn by a program, not taken from patients. The figures show that the software "
    "works; they are no results about cancer."
)
_NO_PATIENTS = (
    "The source does not say which patch is whose, so patches of one patient may be in training and "
    "evaluation alike, which inflates every figure."
)
_OPTIMISTIC = (
    "The kept epochs and the threshold were chosen on the same patients, so the figures are optimistic."
)
_BEST_OF = "No model has a ROC AUC on validation patients; the highest on test patients is above the truth by luck."
_SHARED = (
    "A validation patient of one fold is a test patient of another. The best model is chosen by validation scores, "
    "which other networks gave, but the patients are the same: its figures may be a little too good."
)
_OPENED = "Each look invites choices that fit the test patients."


def _why_validation(runs: Sequence[RunRecord]) -> str:
    counts = [run.run.get("split", {}).get("counts", {}).get("test") or {} for run in runs]
    if any(count.get("patches") for count in counts):
        return "Not every run was evaluated on the test patients."
    return "This cohort has no test patients."


def _chosen_by_result(best: Mapping[Any, Any]) -> bool:
    """Whether the best model is best by the very figures that are reported of it."""
    return best["part"] == "val" or bool(np.isnan(best["val_roc_auc"]))


def _tested(run: RunRecord) -> int:
    """How many patients pooled folds have tested."""
    return int(run.run["split"]["counts"][run.parts[-1]]["patients"])


def _audit(run: RunRecord) -> dict[str, Any]:
    return run.run.get("audit") or {}


def _shown_audit(run: RunRecord, *, named: bool) -> dict[str, Any]:
    """Without examples and notes, which name files and patients, unless `named`."""
    audit = _audit(run)
    hidden: dict[str, Any] = {} if named else {"examples": []}
    checks = [{"pairs": 0} | check | hidden for check in audit.get("checks") or []]
    return {"checks": checks, "notes": audit.get("notes", []) if named else []}


def _shared(title: str, runs: Sequence[RunRecord], rows: pd.DataFrame, *, named: bool) -> dict[str, Any]:
    """What both kinds of report show; names of files and patients only where `named`."""
    first = runs[0].run
    split = first.get("split", {})
    return {
        "title": title,
        "use": intended_use(),
        "not_for": out_of_scope(),
        "verdict": verdict(rows),
        "warnings": warnings_of(runs, rows),
        "board": _board(rows),
        "caption": caption(rows),
        "cohort": dict.fromkeys(("n_patches", "n_patients", "n_positive"), 0) | first["cohort"],
        # A split's notes say how many; a cohort's also say which, such as a file that was ignored.
        "notes": [*((named and first["cohort"].get("notes")) or []), *(split.get("notes") or [])],
        "named": named,
        "selection": flat(first["cohort"].get("selection", {})),
        "rules": RULES,
        "split": split,
        "parts_table": {part: _shares(counts) for part, counts in split.get("counts", {}).items()},
        "part_words": PART_WORDS | {"train": "training"},
        "audit": _shown_audit(runs[0], named=named),
        "glossary": [(name, meaning) for _, name, meaning in METRICS],
        "version": first.get("versions", {}).get("ductal", ""),
        "finished": max(str(run.run.get("finished", "")) for run in runs),
    }


def _board(rows: pd.DataFrame) -> dict[str, Any]:
    # At 0.5 each model's own table has them, and a single run's has the rest: the board should fit a page.
    wanted = {*WITH_INTERVAL, "name", "threshold", "note"} if len(rows) == 1 else {name for name, _, _ in HEADINGS}
    shown = [(column, heading) for column, heading, _ in HEADINGS
             if column in rows and column in wanted and not column.endswith("_at_0.5")]  # fmt: skip
    return {
        "headings": [(heading, column in TEXTS) for column, heading in shown],
        "rows": [
            {
                "control": row["control"],
                "title": row["title"],
                "cells": [
                    (
                        show(column, row[column]),
                        column in TEXTS,
                        interval_words(row, column) if column in WITH_INTERVAL else "",
                    )
                    for column, _ in shown
                ],
            }
            for row in rows.to_dict("records")
        ],
    }


def _shares(counts: Mapping[str, int]) -> dict[str, Any]:
    patches = counts["patches"]
    return {**counts, "prevalence": f"{counts['positives'] / patches:.1%}" if patches else "n/a"}


def _render(context: Mapping[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined, UndefinedError

    # Patient names come from file names: everything is escaped.
    environment = Environment(
        loader=PackageLoader("ductal.evaluation", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    try:
        return environment.get_template("report.html.j2").render(context)
    except UndefinedError as error:
        raise RunError(f"run.json lacks what a report shows ({error.message}). Train the run again.") from error

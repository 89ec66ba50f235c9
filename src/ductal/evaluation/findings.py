"""What is made of a run's predictions and metrics: figures, tables of failures, card, checklist, report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from ductal.data.cohort import Cohort
from ductal.data.split import Part
from ductal.evaluation import analysis, checklist, figures, figures_decision, figures_training, model_card
from ductal.evaluation.judgement import MAX_ERROR, calibrated_by_others, limits_of
from ductal.evaluation.report import write_run_report
from ductal.evaluation.report_model import FIGURES
from ductal.evaluation.temperature import Scaling
from ductal.files import refusals_of

REPORT = "report.html"  # the last file of an evaluation
METRICS = "metrics.json"  # a run that lacks it was not evaluated


def remove_findings(folder: Path) -> None:
    """Take away what an earlier evaluation said, its metrics first.

    Whoever is interrupted between this and the new metrics leaves a run that was not evaluated, and not one with
    figures of one evaluation and predictions or a threshold of another.

    Raises:
        StorageError: the disk refused.
    """
    names = [METRICS, REPORT, model_card.FILE, checklist.FILE]
    names += [f"figures/{name}.png" for name, *_ in FIGURES]
    names += [f"{analysis.FOLDER}/{name}.csv" for name, *_ in analysis.TABLES]
    with refusals_of(folder):
        for name in names:
            (folder / name).unlink(missing_ok=True)


def write_findings(
    folder: Path,
    tables: dict[Part, pd.DataFrame],
    cohort: Cohort,
    settings: dict[str, Any],
    history: pd.DataFrame | None,
) -> None:
    """Write them all, the report last.

    Args:
        folder: the run folder, with its new predictions and metrics.
        tables: the predictions of each part, validation first: columns patch_id, patient, label, prob.
        cohort: the cohort they come from.
        settings: what calibration.json holds.
        history: of the training; None for an ensemble.

    Raises:
        RunError: the record is damaged. StorageError: the disk refused the write.
    """
    if history is not None:
        figures_training.curves(history, folder / "figures" / "curves.png")
    _draw(folder, tables, cohort, settings)
    analysis.write_failures(folder, list(tables.values())[-1], cohort, settings["threshold"])
    model_card.write_model_card(folder)
    checklist.write_checklist(folder)
    write_run_report(folder)


def _draw(folder: Path, tables: dict[Part, pd.DataFrame], cohort: Cohort, settings: dict[str, Any]) -> None:
    parts, threshold = list(tables), settings["threshold"]
    for part, table in tables.items():
        y, p = table["label"].to_numpy(), table["prob"].to_numpy()
        figures.confusion(y, p, threshold, folder / "figures" / f"confusion_{part}.png")
    names = {"val": "validation", "test": "test"}
    scores = [
        (names[part], table["label"].to_numpy(), table["prob"].to_numpy()) for part, table in tables.items()
    ]
    figures.roc_pr(scores, folder / "figures" / "roc_pr.png")
    shown = tables[parts[-1]]
    _draw_reliability(folder, shown, settings, held_out=parts[-1] == "test")
    figures_decision.risk_coverage(
        scores, [threshold] * len(scores), folder / "figures" / "risk_coverage.png",
        limits=limits_of(settings.get("abstention", {})), aim=MAX_ERROR,
    )  # fmt: skip
    figures_decision.decision_curve(scores[-1:], folder / "figures" / "decision_curve.png")
    rows = pd.Index(cohort.table["patch_id"]).get_indexer(shown["patch_id"])
    figures.sample_patches(
        cohort.view(rows),
        shown["label"],
        shown["prob"],
        folder / "figures" / "samples.png",
        patch_ids=shown["patch_id"].tolist(),
        threshold=threshold,
    )


def _draw_reliability(folder: Path, shown: pd.DataFrame, settings: dict[str, Any], *, held_out: bool) -> None:
    """Before and after calibration, after it as metrics.json scores it: nobody calibrated by his own patches."""
    scaling = Scaling(settings["temperature"], settings.get("bias", 0.0))
    label, patients = shown["label"], _ids(shown)
    lines = [("before calibration", label, scaling.undo(shown["prob"]), patients)]
    fit = settings.get("calibration", {}).get("fit", "temperature")
    after = calibrated_by_others(label, shown["prob"], shown["patient"], scaling, fit, held_out=held_out)
    if after is not None:
        lines.append(("calibrated" if held_out else "calibrated by other patients", label, after[0], patients))
    figures_decision.reliability(lines, folder / "figures" / "reliability.png")


def _ids(table: pd.DataFrame) -> pd.Series | None:
    """Patients of the patches, or None where they are unknown."""
    return None if (table["patient"] == "").any() else table["patient"]

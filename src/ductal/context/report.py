"""The report of a context study: tables as CSV, JSON and Markdown, the figure, and the predictions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from rich import box
from rich.table import Table

from ductal.context.figures import draw_context
from ductal.context.scores import MIN_SLIDES_FOR_INTERVALS
from ductal.evaluation.bootstrap import MIN_PATIENTS, REPLICATES
from ductal.evaluation.tables import p_words
from ductal.record import to_json

if TYPE_CHECKING:
    from ductal.context.study import Study

SHOWN = {
    "roc_auc": "ROC AUC",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "ece": "ECE",
}
DIFFERENCES = {"roc_auc": "ROC AUC", "balanced_accuracy": "balanced accuracy", "f1": "F1"}


def write_report(folder: Path, study: Study, *, synthetic: bool) -> None:
    """Write `models.csv`, `slides.csv`, `report.json`, `report.md`, `context.png` and `predictions.parquet`."""
    study.models.to_csv(folder / "models.csv", index=False)
    study.slides.to_csv(folder / "slides.csv", index=False)
    study.predictions.to_parquet(folder / "predictions.parquet", index=False)
    record = {
        "notes": notes(study, synthetic=synthetic),
        "models": study.models.to_dict("records"),
        "slides": study.slides.to_dict("records"),
        "left_out": study.left_out,
    }
    (folder / "report.json").write_text(to_json(record), encoding="utf-8")
    (folder / "report.md").write_text(to_markdown(study, synthetic=synthetic), encoding="utf-8")
    draw_context(study.models, study.slides, folder / "context.png", synthetic=synthetic)


def to_markdown(study: Study, *, synthetic: bool) -> str:
    """The tables for readers: all slides together, differences to the patch model, and each slide."""
    lines = ["# Context: neighbours on the slide's grid", ""]
    lines += [f"- {note}" for note in notes(study, synthetic=synthetic)]
    lines += ["", "## All slides together, each called by what was fitted on the others", ""]
    lines += _table(
        ["model", "track", *SHOWN.values(), "mean of the slides' ROC AUC", "what it is"],
        [
            [row["name"], row["track"], *(with_interval(row, name) for name in SHOWN),
             f"{row['mean_slide_roc_auc']:.3f}", row["says"]]
            for _, row in study.models.iterrows()
        ],
    )  # fmt: skip
    if len(study.models) > 1:
        lines += ["", "## Slide context less patch-only, on the same patches", ""]
        lines += _table(
            ["model", "track", *(f"{name}, p" if key != "f1" else name for key, name in DIFFERENCES.items())],
            [
                [row["name"], row["track"], *(_difference(row, name) for name in DIFFERENCES)]
                for _, row in study.models.iloc[1:].iterrows()
            ],
        )
    lines += ["", "## Each slide", ""]
    lines += _table(
        ["patient", "part", "patches", "IDC", "model", "track", "ROC AUC", "balanced accuracy", "F1"],
        [
            [row["patient"], row["part"] or "no part", f"{row['patches']:,}", f"{row['prevalence']:.1%}", row["name"],
             row["track"], *(_number(row[name]) for name in ("roc_auc", "balanced_accuracy", "f1"))]
            for _, row in study.slides.iterrows()
        ],
    )  # fmt: skip
    return "\n".join(lines) + "\n"


def notes(study: Study, *, synthetic: bool) -> list[str]:
    """What a reader must know beside the figures."""
    slides = len(study.model.patients)
    found = ["SYNTHETIC slides, drawn by a program: these figures are no results."] if synthetic else []
    found += [
        f"{slides} complete slides ({', '.join(study.model.patients)}) that the patch model was not trained on; "
        "each is called by heads fitted, calibrated and given their threshold on the other slides.",
        "Tracks are never mixed: slide context sees the neighbours of a patch, patch-only does not.",
    ]
    if slides < MIN_SLIDES_FOR_INTERVALS:
        found.append(f"No intervals: they need {MIN_SLIDES_FOR_INTERVALS} slides.")
    else:
        few = f" Fewer than {MIN_PATIENTS} slides: read them as rough." if slides < MIN_PATIENTS else ""
        found.append(
            f"Intervals are 95 %, over slides ({REPLICATES:,} draws).{few} p is of a permutation test over slides, "
            f"corrected for the number of tests; with {slides} slides it cannot be below "
            f"{2 / 2**slides:.2g} before that."
        )
    if (study.slides["part"] == "val").any():
        found.append(
            "Validation patients are among them: epochs were chosen on them, so that all rows may flatter a little."
        )
    if (study.slides["part"] == "test").any():
        found.append("Test patients are among them: they no longer test the context that context.json holds.")
    if study.left_out:
        counted = pd.Series(study.left_out).value_counts()
        found.append("Left out: " + ", ".join(f"{number} patients ({why})" for why, number in counted.items()) + ".")
    return found


def to_rich_table(models: pd.DataFrame) -> Table:
    """For a terminal."""
    table = Table("model", "track", *SHOWN.values(), box=box.SIMPLE_HEAD, title="Leave-one-slide-out")
    for _, row in models.iterrows():
        table.add_row(row["name"], row["track"], *(with_interval(row, name) for name in SHOWN))
    return table


def with_interval(row: Any, name: str, sign: str = "") -> str:
    """0.951 (0.921 to 0.972), without the brackets where there is no interval."""
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    bounds = "" if np.isnan(low) else f" ({low:{sign}.3f} to {high:{sign}.3f})"
    return _number(value, sign) + bounds


def _difference(row: Any, name: str) -> str:
    p = row.get(f"{name}_difference_p", np.nan)
    return with_interval(row, f"{name}_difference", "+") + ("" if np.isnan(p) else f", {p_words(p)}")


def _number(value: float, sign: str = "") -> str:
    return "n/a" if np.isnan(value) else f"{value:{sign}.3f}"


def _table(headings: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return [*lines, *("| " + " | ".join(cells).replace("<", "&lt;") + " |" for cells in rows)]

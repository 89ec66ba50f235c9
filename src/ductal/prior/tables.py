"""The outcomes as people read them: a table for the terminal, CSV, Markdown and JSON."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from ductal.prior.reporting import METRICS, Figures, Outcome, in_words
from ductal.record import to_json

NOTICE = (
    "A demonstration of mistakes, made on purpose, on small networks. It is no way to train, no model is kept, and "
    "none of its figures is a result; `ductal run` trains."
)
HEADINGS = ("Fault", "Reported: accuracy, balanced accuracy, ROC AUC", "True", "Difference", "What happened")


def to_row(outcome: Outcome) -> dict[str, Any]:
    """One outcome as a flat row, for CSV and JSON; a figure that the data cannot define is nan."""
    configuration, reported, true = outcome.configuration, outcome.reported, outcome.true
    row: dict[str, Any] = {"fault": configuration.name, "network": configuration.training.label}
    row |= {f"reported_{metric}": getattr(reported, metric) for metric in METRICS}
    row |= {f"true_{metric}": getattr(true, metric) for metric in METRICS}
    row |= {f"difference_{metric}": outcome.difference(metric) for metric in METRICS}
    row |= {f"true_without_fault_{metric}": getattr(outcome.honest, metric) for metric in METRICS}
    return row | {
        "reported_patches": reported.patches,
        "reported_prevalence": reported.prevalence,
        "true_patches": true.patches,
        "true_prevalence": true.prevalence,
        "reported_patients_in_training": outcome.patients_seen,
        "reported_copies_in_training": outcome.copies_seen,
        "seconds": round(outcome.seconds, 1),
        "what_happened": in_words(outcome),
    }


def to_csv(outcomes: Sequence[Outcome]) -> str:
    """All columns of `to_row` with full precision; an undefined figure is an empty cell."""
    rows = [to_row(outcome) for outcome in outcomes]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: "" if _undefined(value) else value for key, value in row.items()})
    return text.getvalue()


def to_record(outcomes: Sequence[Outcome], about: Mapping[str, Any]) -> str:
    """Strict JSON: the notice, what it was measured on, and the rows of `to_row`."""
    return to_json({"notice": NOTICE, **about, "rows": [to_row(outcome) for outcome in outcomes]})


def to_markdown(outcomes: Sequence[Outcome], caption: str) -> str:
    """A GitHub table, what it was measured on, and the notice."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---|---:|---:|---:|---|"]
    for outcome in outcomes:
        cells = [
            outcome.configuration.name, three(outcome.reported), three(outcome.true), differences(outcome),
            in_words(outcome),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cell.replace("|", r"\|").replace("<", "&lt;") for cell in cells) + " |")
    return "\n".join([NOTICE, "", *lines, "", caption]) + "\n"


def to_rich_table(outcomes: Sequence[Outcome], caption: str) -> Table:
    """The figures for a terminal: accuracy, balanced accuracy and ROC AUC in each of three columns."""
    table = Table(title="Faults and what they do", caption=caption, box=box.SIMPLE_HEAD)
    table.add_column("Fault", overflow="fold")
    for heading in ("Reported", "True", "Difference"):
        table.add_column(f"{heading}\nacc.  bal.  AUC", justify="right")
    for outcome in outcomes:
        cells = (
            outcome.configuration.name, three(outcome.reported), three(outcome.true), differences(outcome)
        )  # fmt: skip
        table.add_row(*map(Text, cells), style=None if outcome.configuration.faults else "dim")
    return table


def three(figures: Figures) -> str:
    """Accuracy, balanced accuracy and ROC AUC: 0.912 0.887 0.951."""
    return " ".join(_shown(getattr(figures, metric), "{:.3f}") for metric in METRICS)


def differences(outcome: Outcome) -> str:
    """Reported less true: +0.061 +0.074 +0.038."""
    return " ".join(_shown(outcome.difference(metric), "{:+.3f}") for metric in METRICS)


def _shown(value: float, form: str) -> str:
    return "n/a" if math.isnan(value) else form.format(value)


def _undefined(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)

"""The leaderboard and its differences as people read them: CSV, Markdown and a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from ductal.evaluation.bootstrap import MIN_PATIENTS
from ductal.evaluation.differences import COMPARED
from ductal.evaluation.runs import PART_WORDS
from ductal.evaluation.seeds import RANGED, seed_ranges

Row = Mapping[Any, Any]  # of a leaderboard: column and value

# Column of the leaderboard, its heading for readers, and the short one of the terminal's narrow table.
HEADINGS: tuple[tuple[str, str, str], ...] = (
    ("name", "Model", "Model"),
    ("roc_auc", "ROC AUC", "AUC"),
    ("balanced_accuracy", "Balanced accuracy", "Bal. acc."),
    ("f1", "F1", "F1"),
    ("accuracy", "Accuracy", ""),
    ("precision", "Precision", ""),
    ("recall", "Recall", ""),
    ("specificity", "Specificity", ""),
    ("average_precision", "Average precision", ""),
    ("to_best", "AUC against the best on validation", "vs best"),
    ("to_control", "AUC against the best control", "vs control"),
    ("threshold", "Threshold", ""),
    ("balanced_accuracy_at_0.5", "Balanced accuracy at 0.5", ""),
    ("f1_at_0.5", "F1 at 0.5", ""),
    ("accuracy_at_0.5", "Accuracy at 0.5", ""),
    ("brier", "Brier", ""),
    ("parameters", "Parameters", ""),
    ("epochs", "Epochs", ""),
    ("train_seconds", "Training time", ""),
    ("note", "Note", "Note"),
)
# Columns whose cells say the interval too; the CSV, and each run's own table, have all of them.
WITH_INTERVAL = ("roc_auc", "balanced_accuracy", "f1", "average_precision")
IN_TERMINAL = ("roc_auc", "balanced_accuracy")  # 80 characters hold no more
TEXTS = ("name", "to_best", "to_control", "note")

REFERENCES = {"best": "best on validation patients", "control": "the best control"}
DIFFERENCE_HEADINGS = ("Model", "Against", "ROC AUC", "p", "Balanced accuracy", "p")
DIFFERENCES_SAY = (
    "Each model less the one it is set against, on the same patches, with a 95 % interval over patients. p is of a "
    "permutation test that exchanges the two models' predictions patient by patient, corrected for the number of "
    "tests in this table (Holm); the intervals are not. Below 0.05 the difference is called real: higher or lower; "
    "otherwise it is unclear, which does not mean that there is none."
)
DIFFERS_SAY = "Higher and lower: a real difference in ROC AUC; unclear: it may be chance."
SEED_HEADINGS = ("Model", "Seeds", "ROC AUC", "Balanced accuracy", "F1", "Average precision")
SEEDS_SAY = (
    "Runs of one recipe that differ in their seed only: mean (lowest to highest). This is the range of these runs, "
    "not an interval; the intervals over patients take each trained network as given."
)


def to_csv(rows: pd.DataFrame) -> str:
    """All columns with full precision."""
    return rows.to_csv(index=False)


def to_markdown(rows: pd.DataFrame) -> str:
    """A GitHub table of the readers' columns, what it was measured on, and a table of the differences."""
    shown = [(column, heading) for column, heading, _ in HEADINGS if column in rows]
    lines = _markdown_table(
        [heading for _, heading in shown],
        [
            [cell(row, column) + (" (control)" if column == "name" and row["control"] else "") for column, _ in shown]
            for row in rows.to_dict("records")
        ],
        [column in TEXTS for column, _ in shown],
    )
    lines += ["", caption(rows)]
    found = difference_rows(rows)
    if found:
        text = [True, True, *[False] * (len(DIFFERENCE_HEADINGS) - 2)]
        lines += ["", *_markdown_table(DIFFERENCE_HEADINGS, found, text), "", DIFFERENCES_SAY]
    ranges = seed_rows(rows)
    if ranges:
        lines += ["", *_markdown_table(SEED_HEADINGS, ranges, [True, True, *[False] * len(RANGED)]), "", SEEDS_SAY]
    return "\n".join(lines) + "\n"


def to_rich_table(rows: pd.DataFrame) -> Table:
    """The most telling columns, for a terminal, intervals on a line of their own; control models are dim."""
    shown = [(column, short) for column, _, short in HEADINGS if short and column in rows]
    title = f"Leaderboard, {PART_WORDS[rows['part'].iloc[0]]} patients"
    table = Table(title=title, caption=caption(rows), box=box.SIMPLE_HEAD, collapse_padding=True)
    for column, heading in shown:
        text = column in ("name", "note")
        table.add_column(heading, justify="left" if column in TEXTS else "right", overflow="fold", no_wrap=not text)
    for row in rows.to_dict("records"):
        # Text, not str: names are not markup.
        cells = [Text(_narrow(row, column)) for column, _ in shown]
        table.add_row(*cells, style="dim" if row["control"] else None)
    return table


def difference_rows(rows: pd.DataFrame) -> list[list[str]]:
    """The cells below `DIFFERENCE_HEADINGS`: every model against the best, then against the best control."""
    found = []
    for reference in REFERENCES:
        if f"roc_auc_minus_{reference}" not in rows:
            continue
        names = rows.loc[rows[f"to_{reference}"] == reference, "name"]
        if reference == "control" and rows.loc[names.index[0], "to_best"] == "best":  # these rows are there already
            continue
        for row in rows.to_dict("records"):
            column = f"minus_{reference}"
            if row[f"to_{reference}"] in (reference, "n/a"):
                continue
            cells = [str(row["name"]), f"{names.iloc[0]} ({REFERENCES[reference]})"]
            for metric in COMPARED:
                cells += [signed(row, f"{metric}_{column}"), p_words(row[f"{metric}_{column}_p"])]
            found.append(cells)
    return found


def seed_rows(rows: pd.DataFrame) -> list[list[str]]:
    """The cells below `SEED_HEADINGS`, one row for each recipe that was trained with several seeds."""
    return [
        [
            str(row["name"]),
            str(row["seeds"]),
            *(f"{row[f'{m}_mean']:.3f} ({row[f'{m}_min']:.3f} to {row[f'{m}_max']:.3f})" for m in RANGED),
        ]
        for row in seed_ranges(rows).to_dict("records")
    ]


def caption(rows: pd.DataFrame) -> str:
    """What a leaderboard was measured on, its track, how it is sorted, and what its intervals are, in plain words."""
    first = rows.iloc[0]
    word = PART_WORDS[first["part"]]
    of_patients = f" of {first['patients']:,} {word} patients" if first["patients"] else ""
    text = (
        f"{first['patches']:,} {'' if of_patients else word + ' '}patches{of_patients}, "
        f"{_percent(first['prevalence'])} IDC; track {' and '.join(rows['track'].unique())}; sorted by ROC AUC. "
        "Classes are called at the threshold that each model got on validation patients, "
        "unless a column says 0.5. "
    )
    if "roc_auc_low" in rows and rows["roc_auc_low"].notna().any():
        text += "The ranges with the figures are 95 % intervals over patients."
        return f"{text} {DIFFERS_SAY}" if "to_best" in rows else text
    return text + (
        f"No intervals over patients: there are fewer than {MIN_PATIENTS} of them, they are unknown, or the runs "
        "were evaluated before intervals existed."
    )


def cell(row: Row, column: str) -> str:
    """A cell of the leaderboard, with its interval where there is one: 0.951 (0.921 to 0.972)."""
    bounds = interval_words(row, column) if column in WITH_INTERVAL else ""
    return f"{show(column, row[column])} ({bounds})" if bounds else show(column, row[column])


def interval_words(row: Row, column: str) -> str:
    """The interval of a column, such as 0.921 to 0.972; "" where there is none."""
    low, high = row.get(f"{column}_low", np.nan), row.get(f"{column}_high", np.nan)
    return "" if np.isnan(low) or np.isnan(high) else f"{low:.3f} to {high:.3f}"


def signed(row: Row, column: str) -> str:
    """A difference and its interval: -0.019 (-0.031 to -0.008)."""
    if np.isnan(row[column]):
        return "n/a"
    low, high = row[f"{column}_low"], row[f"{column}_high"]
    return f"{row[column]:+.3f}" + ("" if np.isnan(low) else f" ({low:+.3f} to {high:+.3f})")


def p_words(p: float) -> str:
    """A p value: 0.031, or < 0.001."""
    if np.isnan(p):
        return "n/a"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_equals(p: float) -> str:
    """A p value in a sentence: = 0.031, or < 0.001."""
    return p_words(p) if p < 0.001 else f"= {p_words(p)}"


def show(column: str, value: Any) -> str:
    """A single value as readers see it."""
    if isinstance(value, str):
        return value
    if value is None or np.isnan(value):
        return "n/a"
    if column == "train_seconds":
        return duration(float(value))
    if column in ("parameters", "epochs", "patches", "patients", "n", "tp", "fp", "tn", "fn"):
        return f"{int(value):,}"
    return f"{value:.3f}"


def duration(seconds: float) -> str:
    """Seconds in words: 0.8 s, 42 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]], text: Sequence[bool]) -> list[str]:
    lines = ["| " + " | ".join(headings) + " |", "|" + "|".join("---" if one else "---:" for one in text) + "|"]
    for row in rows:
        # A bar inside a cell would start another column; markup would be rendered.
        cells = [one.replace("|", r"\|").replace("<", "&lt;").replace("\n", " ") for one in row]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _narrow(row: Row, column: str) -> str:
    bounds = interval_words(row, column).replace(" to ", "-") if column in IN_TERMINAL else ""
    return f"{show(column, row[column])}\n{bounds}" if bounds else show(column, row[column])


def _percent(value: float) -> str:
    return "n/a" if np.isnan(value) else f"{value:.1%}"

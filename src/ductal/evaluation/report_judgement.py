"""What a report says of a model's calibration, of decisions made with it, and of where it fails, as tables."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ductal.evaluation.analysis import COUNTS, TABLES, read_failures
from ductal.evaluation.runs import PART_WORDS, RunRecord
from ductal.evaluation.tables import interval_words, show

ROWS = 12  # of a table of failures; the whole of it is in the run folder
_SCORES = (("ece", "ECE"), ("mce", "MCE"), ("brier", "Brier score"), ("nll", "Log loss"))


def calibration_tables(run: RunRecord) -> list[dict[str, Any]]:
    """For each part: scores before and after calibration. Empty for runs of an older version and for controls."""
    tables = []
    for part in run.parts:
        block = run.metrics[part].get("calibration") or {}
        if not block.get("after"):
            continue
        rows = [
            [name, *(_with_interval(block[when], key) for when in ("before", "after"))] for key, name in _SCORES
        ]
        tables.append({
            "headings": [f"{PART_WORDS[part].capitalize()} patients", "Before", "After"],
            "rows": rows,
            "says": f"After: {block['after_is']}. ECE: how far a probability is off on average, in 15 bins of equal "
            "size (chance alone gives a perfect model some); MCE: in the worst bin; log loss: the mean surprise, in "
            "nats. In brackets: 95 % intervals over patients.",
        })  # fmt: skip
    return tables


def _with_interval(scores: dict[str, Any], key: str) -> str:
    low, high = (scores.get("intervals") or {}).get(key) or (None, None)
    words = "" if low is None else f" ({interval_words({'m_low': low, 'm_high': high}, 'm')})"
    return show(key, scores.get(key)) + words


def decision_table(run: RunRecord) -> dict[str, Any] | None:
    """Sensitivity at fixed specificities, and what is left when the model abstains, for each part."""
    blocks = {part: run.metrics[part].get("decision") or {} for part in run.parts}
    if not all(blocks.values()):
        return None
    levels = list(next(iter(blocks.values()))["sensitivity_at_specificity"])
    rows = [
        [f"Sensitivity at specificity {level}",
         *(show("", (block["sensitivity_at_specificity"].get(level) or {}).get("sensitivity"))
           for block in blocks.values())]
        for level in levels
    ]  # fmt: skip
    rows.append(["Area under the risk-coverage curve", *(show("", block["aurc"]) for block in blocks.values())])
    if all(block.get("abstention") for block in blocks.values()):
        found = next(iter(blocks.values()))["abstention"]
        between = f"{show('', found['low'])} and {show('', found['high'])}"
        for key, words in (
            ("coverage", f"Share of patches called, if none is between {between}"),
            ("error_rate", "Share of wrong calls among these"),
        ):
            rows.append([words, *(show("", block["abstention"][key]) for block in blocks.values())])
    return {
        "headings": ["For decisions", *(f"{PART_WORDS[part].capitalize()} patients" for part in blocks)],
        "rows": rows,
        "says": "The limits of abstention were chosen on validation patients, so their column is optimistic. "
        "The thresholds for a fixed specificity are those of the very patients of each column: what the model could "
        "do, not what a threshold chosen beforehand would give.",
    }


def failure_tables(run: RunRecord, *, named: bool) -> list[dict[str, Any]]:
    """The first rows of each table of failures, with a heading and what to look for; without names unless `named`."""
    hidden = [] if named else ["patch_id", "patient"]
    found = {name: table.drop(columns=hidden, errors="ignore") for name, table in read_failures(run.folder).items()}
    return [
        {
            "heading": heading,
            "headings": [column.replace("_", " ") for column in found[name].columns],
            "rows": [[_cell(column, row[column]) for column in found[name].columns]
                     for row in found[name].head(ROWS).to_dict("records")],
            "says": says + (
                f" The first {ROWS} of {len(found[name]):,}; all are in failures/{name}.csv."
                if len(found[name]) > ROWS else ""
            ),
        }
        for name, heading, says in TABLES
        if name in found and len(found[name])
    ]  # fmt: skip


def _cell(column: str, value: Any) -> str:
    if pd.isna(value):
        return "n/a"
    if column in COUNTS:
        return f"{int(value):,}"
    return show("", value) if isinstance(value, float) else str(value)

"""Runs side by side: reads finished run folders, without TensorFlow, into one leaderboard."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from ductal.errors import RunError

Part = Literal["val", "test"]
PART_WORDS = {"val": "validation", "test": "test"}
AT_THRESHOLD = ("accuracy", "balanced_accuracy", "precision", "recall", "specificity", "f1")

# Column of the leaderboard, its heading for readers, and the short one of the terminal's narrow table.
HEADINGS: tuple[tuple[str, str, str], ...] = (
    ("name", "Model", "Model"),
    ("roc_auc", "ROC AUC", "AUC"),
    ("balanced_accuracy", "Balanced accuracy", "Bal. acc."),
    ("f1", "F1", "F1"),
    ("accuracy", "Accuracy", "Acc."),
    ("precision", "Precision", ""),
    ("recall", "Recall", "Recall"),
    ("specificity", "Specificity", "Spec."),
    ("average_precision", "Average precision", ""),
    ("threshold", "Threshold", ""),
    ("balanced_accuracy_at_0.5", "Balanced accuracy at 0.5", ""),
    ("f1_at_0.5", "F1 at 0.5", ""),
    ("accuracy_at_0.5", "Accuracy at 0.5", ""),
    ("brier", "Brier", ""),
    ("parameters", "Parameters", ""),
    ("epochs", "Epochs", ""),
    ("train_seconds", "Training time", "Training"),
    ("note", "Note", "Note"),
)


@dataclass(frozen=True)
class RunRecord:
    """A finished run as its folder tells it.

    Attributes:
        folder: the run folder.
        run: run.json.
        metrics: metrics.json; a block for "val" and, where test patients were opened, "test".
        history: history.csv; None for a control model.
    """

    folder: Path
    run: dict[str, Any]
    metrics: dict[str, Any]
    history: pd.DataFrame | None

    @property
    def name(self) -> str:
        """The recipe's or control's name."""
        return str(self.run["name"])

    @property
    def title(self) -> str:
        """One line that says what it is."""
        return str(self.run.get("recipe", {}).get("title") or self.name)

    @property
    def control(self) -> bool:
        """Whether it is a control model."""
        return bool(self.run.get("control", False))

    @property
    def parts(self) -> list[Part]:
        """The parts of the split it was evaluated on, validation first."""
        return [part for part in ("val", "test") if part in self.metrics]

    def predictions(self, part: Part) -> pd.DataFrame:
        """Columns patch_id, patient, label, prob of one part. Raises RunError when they cannot be read."""
        path = self.folder / "predictions" / f"{part}.parquet"
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise RunError(f"{path} cannot be read ({error}). Evaluate the run again.") from error


def load_run(folder: str | Path) -> RunRecord:
    """Read a finished run.

    Raises:
        RunError: the folder is missing, is no run, was not evaluated, or lacks a file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RunError(f"There is no run folder {folder}. Name a folder below runs/.")
    run = _read_json(folder / "run.json", "so this is no finished run: train it again")
    metrics = _read_json(folder / "metrics.json", "so the run was not evaluated: run `ductal evaluate` on it")
    if not isinstance(run.get("name"), str) or "cohort" not in run or "val" not in metrics:
        raise RunError(f"{folder} holds no complete run: its name, cohort or validation metrics are missing.")
    record = RunRecord(folder, run, metrics, None if run.get("control") else _read_history(folder))
    for part in record.parts:
        if not (folder / "predictions" / f"{part}.parquet").is_file():
            raise RunError(f"{folder} lacks the predictions for the {part} part. Evaluate the run again.")
    return record


def leaderboard(
    folders: Iterable[str | Path], part: Part | None = None, *, allow_different: bool = False
) -> pd.DataFrame:
    """One row a run, control models included, sorted by ROC AUC on `part` (the best first).

    ROC AUC decides because it depends on no threshold. Columns without a suffix are taken at the
    threshold chosen on validation patients; those ending in ``_at_0.5`` at 0.5.

    Args:
        folders: run folders.
        part: "test" or "val"; None takes test patients when every run has been evaluated on
            them, else validation patients.
        allow_different: compare runs of other patches or splits too, and say so in a `note` column.

    Returns:
        Columns name, title, control, track, part, patches, patients, prevalence, roc_auc,
        average_precision, brier, threshold, AT_THRESHOLD at both thresholds,
        patient_balanced_accuracy (macro mean), parameters, epochs, train_seconds and perhaps note.

    Raises:
        RunError: no run, an incomplete one, one that was not evaluated on `part`, or (unless
            allowed) runs of another cohort, split or set of patches.
    """
    return ranked([load_run(folder) for folder in folders], part, allow_different=allow_different)[0]


def ranked(
    runs: Sequence[RunRecord], part: Part | None = None, *, allow_different: bool = False
) -> tuple[pd.DataFrame, list[RunRecord]]:
    """The leaderboard of runs that are read already, and the runs in its order; see `leaderboard`."""
    if not runs:
        raise RunError("There is no run to compare. Train a recipe first, or name run folders.")
    part = part or ("test" if all("test" in run.parts for run in runs) else "val")
    for run in runs:
        if part not in run.parts:
            raise RunError(
                f"{run.folder} was not evaluated on {PART_WORDS[part]} patients. "
                "Evaluate it on them, or compare on the other part."
            )
    tables = [run.predictions(part) for run in runs]
    rows = pd.DataFrame([_row(run, part, table) for run, table in zip(runs, tables, strict=True)])
    rows["name"] = _distinct_names(runs)
    differences = _differences(runs, tables)
    if any(differences):
        if not allow_different:
            first = next(index for index, text in enumerate(differences) if text)
            raise RunError(
                f"{runs[first].folder} and {runs[0].folder} cannot be compared: {differences[first]}. "
                "Evaluate both on the same patients, or allow different runs to get a noted table."
            )
        rows["note"] = differences
    rows = rows.sort_values(["roc_auc", "name"], ascending=[False, True])
    return rows.reset_index(drop=True), [runs[index] for index in rows.index]


def to_csv(rows: pd.DataFrame) -> str:
    """All columns with full precision."""
    return rows.to_csv(index=False)


def to_markdown(rows: pd.DataFrame) -> str:
    """A GitHub table of the readers' columns, and a line that says what it was measured on."""
    shown = [(column, heading) for column, heading, _ in HEADINGS if column in rows]
    lines = [
        "| " + " | ".join(heading for _, heading in shown) + " |",
        "|" + "|".join("---" if _is_text(column) else "---:" for column, _ in shown) + "|",
    ]
    for row in rows.to_dict("records"):
        # A bar inside a cell would start another column; markup would be rendered.
        cells = [
            show(column, row[column]).replace("|", r"\|").replace("<", "&lt;").replace("\n", " ")
            for column, _ in shown
        ]
        if row["control"]:
            cells[0] += " (control)"
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", caption(rows)]) + "\n"


def to_rich_table(rows: pd.DataFrame) -> Table:
    """The most telling columns, for a terminal; control models are dim."""
    shown = [(column, short) for column, _, short in HEADINGS if short and column in rows]
    title = f"Leaderboard, {PART_WORDS[rows['part'].iloc[0]]} patients"
    table = Table(title=title, caption=caption(rows), box=box.SIMPLE_HEAD, collapse_padding=True)
    for column, heading in shown:
        text = _is_text(column)
        table.add_column(heading, justify="left" if text else "right", overflow="fold", no_wrap=not text)
    for row in rows.to_dict("records"):
        # Text, not str: names are not markup.
        cells = [Text(show(column, row[column])) for column, _ in shown]
        table.add_row(*cells, style="dim" if row["control"] else None)
    return table


def caption(rows: pd.DataFrame) -> str:
    """What a leaderboard was measured on, its track, and how it is sorted, in plain words."""
    first = rows.iloc[0]
    word = PART_WORDS[first["part"]]
    of_patients = f" of {first['patients']:,} {word} patients" if first["patients"] else ""
    return (
        f"{first['patches']:,} {'' if of_patients else word + ' '}patches{of_patients}, "
        f"{_percent(first['prevalence'])} IDC; track {first['track']}; sorted by ROC AUC. "
        "Classes are called at the threshold that each model got on validation patients, "
        "unless a column says 0.5."
    )


def show(column: str, value: Any) -> str:
    """A cell as readers see it."""
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


def _row(run: RunRecord, part: Part, table: pd.DataFrame) -> dict[str, Any]:
    block = run.metrics[part]
    chosen, plain = block["at_threshold"], block["at_0.5"]
    return {
        "name": run.name,
        "title": run.title,
        "control": run.control,
        "track": "patch-only",
        "part": part,
        "patches": len(table),
        "patients": int((table["patient"].drop_duplicates() != "").sum()),
        "prevalence": _float(chosen["prevalence"]),
        "roc_auc": _float(chosen["roc_auc"]),
        "average_precision": _float(chosen["average_precision"]),
        "brier": _float(chosen["brier"]),
        "threshold": _float(block["threshold"]),
        **{metric: _float(chosen[metric]) for metric in AT_THRESHOLD},
        **{f"{metric}_at_0.5": _float(plain[metric]) for metric in AT_THRESHOLD},
        "patient_balanced_accuracy": _float(block["per_patient"].get("balanced_accuracy")),
        "parameters": _float((run.run.get("parameters") or {}).get("total")) if not run.control else np.nan,
        "epochs": np.nan if run.history is None else float(len(run.history)),
        "train_seconds": _float(run.run.get("timings", {}).get("train_seconds")),
    }


def _differences(runs: Sequence[RunRecord], tables: Sequence[pd.DataFrame]) -> list[str]:
    """Why each run cannot be put beside the first one; "" where it can."""
    first, patches = runs[0].run, set(tables[0]["patch_id"])
    found = []
    for run, table in zip(runs, tables, strict=True):
        why = []
        if run.run["cohort"].get("fingerprint") != first["cohort"].get("fingerprint"):
            why.append("another cohort")
        if run.run.get("split", {}).get("id") != first.get("split", {}).get("id"):
            why.append(f"another split ({run.run.get('split', {}).get('name')})")
        if set(table["patch_id"]) != patches:
            why.append("evaluated on other patches")
        found.append(", ".join(why))
    return found


def _distinct_names(runs: Sequence[RunRecord]) -> list[str]:
    names = [run.name for run in runs]
    return [
        f"{run.name} ({run.folder.parent.name}/{run.folder.name})" if names.count(run.name) > 1 else run.name
        for run in runs
    ]


def _read_json(path: Path, otherwise: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({type(error).__name__}), {otherwise}.") from error
    if not isinstance(content, dict):
        raise RunError(f"{path} holds no record, {otherwise}.")
    return content


def _read_history(folder: Path) -> pd.DataFrame:
    path = folder / "history.csv"
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({type(error).__name__}): train the run again.") from error


def _is_text(column: str) -> bool:
    return column in ("name", "note")


def _float(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _percent(value: float) -> str:
    return "n/a" if np.isnan(value) else f"{value:.1%}"

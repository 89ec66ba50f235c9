"""What a report says about one model: figures, metrics, facts, settings and patients."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ductal.errors import RunError
from ductal.evaluation.facts import calibration_facts
from ductal.evaluation.folds import each_patient
from ductal.evaluation.limits import limits
from ductal.evaluation.report_judgement import calibration_tables, decision_table, failure_tables
from ductal.evaluation.runs import PART_WORDS, Part, RunRecord
from ductal.evaluation.tables import duration, interval_words, show

# metrics.json's key, the name in the report, and what it means in one sentence.
METRICS: tuple[tuple[str, str, str], ...] = (
    ("accuracy", "Accuracy", "Share of all patches that are called rightly; calling everything "
     "not_cancer already reaches one minus the prevalence."),
    ("balanced_accuracy", "Balanced accuracy", "Mean of recall and specificity: both classes count "
     "alike, and a model that always says the same gets 0.5."),
    ("precision", "Precision", "Share of the patches called cancer that are cancer."),
    ("recall", "Recall (sensitivity)", "Share of the cancer patches that are called cancer."),
    ("specificity", "Specificity", "Share of the other patches that are called not_cancer."),
    ("f1", "F1 of the cancer class", "Harmonic mean of precision and recall."),
    ("roc_auc", "ROC AUC", "Probability that a cancer patch gets a higher score than another one; "
     "it needs no threshold, and chance is 0.5."),
    ("average_precision", "Average precision", "Mean precision over all recalls; chance is the prevalence."),
    ("brier", "Brier score", "Mean squared difference between probability and truth; 0 is perfect."),
)  # fmt: skip
# File below figures/, the part of the report it belongs to, what it shows, and what to look for.
FIGURES: tuple[tuple[str, str, str, str], ...] = (
    ("curves", "training", "Training and validation curves over all stages; stars mark the kept epochs",
     "Look whether the lines part: training that improves while validation does not is learning by heart. A "
     "validation line that still rises at the end wants more epochs."),
    ("confusion_val", "calls", "Confusion matrix, validation patients",
     "Look at the cells off the diagonal: lower left is missed cancer, upper right are false alarms."),
    ("confusion_test", "calls", "Confusion matrix, test patients",
     "Look whether the shares are those of the validation patients; if not, the threshold does not carry over."),
    ("roc_pr", "calls", "ROC and precision-recall curves",
     "Left: the nearer to the upper left corner the better, and the dotted diagonal is chance. Right: the dotted "
     "line is chance; read the precision where the recall is what you need."),
    ("reliability", "calibration", "Whether probabilities come true",
     "Marks on the diagonal do. Above it they are too low, below it too high; where a bar crosses the diagonal, "
     "nothing is shown to be wrong."),
    ("risk_coverage", "calibration", "Errors left when only the most confident calls are made",
     "The steeper the fall to the left, the better the model knows when it is unsure. A line that starts high has "
     "confident mistakes. The dots are what the limits of abstention leave; validation patients chose them, to come "
     "down to the dotted line."),
    ("decision_curve", "calibration", "Whether acting on the model pays",
     "It does where its line is above both calling all patches and calling none."),
    ("errors_by_distance", "failures", "Errors by distance from the border of the tumour, on patients whose patches "
     "make up a slide", "Errors next to the border (1) are partly a matter of where the outline was drawn; look at "
     "those far from it, which are the model's own."),
    ("errors_by_stain", "failures", "Errors from the palest to the darkest patches",
     "Look for triangles that part: missed cancer in one kind of stain and false alarms in another mean that colour "
     "sways the model."),
    ("samples", "failures", "The patches the model is surest about: right, missed and false alarms",
     "Look at the two lower rows: what do the missed have in common, and would you have called them otherwise?"),
)


# Figures that name patches, and so patients.
_NAMING = {"samples"}


def model_section(run: RunRecord, *, named: bool) -> dict[str, Any]:
    """Everything that the template shows of one run, with the names of patients and patches only where `named`.

    Raises:
        RunError: a file cannot be read.
    """
    record = run.run
    part = run.parts[-1]
    return {
        "name": run.name,
        "title": run.title,
        "anchor": f"run-{run.folder.name}",
        "figures": _pictures(run, named=named),
        "pooled": run.pooled,
        "tables": [metrics_table(part, run.metrics[part]) for part in run.parts],
        "alarms": record.get("alarms", []),
        "facts": _facts(run),
        "settings": flat(record.get("recipe", {})),
        "judged": calibration_facts(run),
        "limits": limits(run),
        "versions": record.get("versions", {}),
        "calibration": calibration_tables(run),
        "decisions": decision_table(run),
        "failures": [] if run.pooled else failure_tables(run, named=named),
        "patients": _patient_rows(run, part, named=named),
        "patients_of": PART_WORDS[part],
    }


def _pictures(run: RunRecord, *, named: bool) -> dict[str, list[tuple[str, str, str]]]:
    """The figures that are there, by the part of the report they belong to: (what, what to look for, picture)."""
    found: dict[str, list[tuple[str, str, str]]] = {part: [] for _, part, _, _ in FIGURES}
    for name, part, what, look in FIGURES:
        path = run.folder / "figures" / f"{name}.png"
        if not run.pooled and path.is_file() and (named or name not in _NAMING):
            found[part].append((what, look, inline(path)))
    return found


def _facts(run: RunRecord) -> list[tuple[str, str]]:
    record, history = run.run, run.history
    parameters, timings = record.get("parameters") or {}, record.get("timings") or {}
    return [
        ("Parameters", show("parameters", parameters.get("total"))),
        ("Trainable in the last stage", show("parameters", parameters.get("trainable_last_stage"))),
        ("Epochs", "n/a" if history is None else str(len(history))),
        *((f"{name.removesuffix('_seconds').replace('_', ' ').capitalize()} time", duration(float(value)))
          for name, value in timings.items() if isinstance(value, int | float)),
        ("Stages given up", " ".join(record.get("stages_given_up") or ["none"])),
        ("Device", str(record.get("device", "n/a"))),
        ("Precision", str(record.get("precision", "n/a"))),
        ("Seed", str(record.get("seed", "n/a"))),
        ("Averaged over flips and rotations (D4)", "yes" if run.metrics.get("d4") else "no"),
        ("Times the test patients were opened", str(record.get("test_opened", 0))),
        ("Finished", str(record.get("finished", "n/a"))),
    ]  # fmt: skip


def metrics_table(part: Part, block: Mapping[str, Any]) -> dict[str, Any]:
    """The METRICS of one part: at 0.5, at the threshold and as means over patients, with their intervals."""
    macro = block["per_patient"]
    intervals = block.get("intervals") or {}  # runs of an older version have none

    def cell(point: str, key: str) -> tuple[str, str]:
        low, high = (intervals.get(point) or {}).get(key) or (None, None)
        bounds = "" if low is None else interval_words({"m_low": low, "m_high": high}, "m")
        return show(key, block[point].get(key)), bounds

    return {
        "part": PART_WORDS[part],
        "threshold": "each fold's threshold" if block["threshold"] is None else show("", block["threshold"]),
        "patients": macro.get("patients", 0),
        "says": _intervals_say(intervals),
        "rows": [
            (
                name,
                *(cell(point, key) for point in ("at_0.5", "at_threshold", "per_patient")),
                show("patients", macro.get(f"{key}_patients", 0)),
            )
            for key, name, _ in METRICS
        ],
    }


def _intervals_say(intervals: Mapping[str, Any]) -> str:
    """What stands below a table of metrics about its intervals, or why there are none."""
    if not intervals:
        return "No intervals: this run was evaluated before they existed. Evaluate it again to get them."
    if intervals["patches_without_patient"]:
        return "No intervals: they are taken over patients, and some patches do not say whose they are."
    least = intervals["minimum_patients"]
    if intervals["patients"] < least:
        return f"No intervals: {intervals['patients']} patients are fewer than the {least} that they need."
    return (
        f"Below each figure: its {intervals['level']:.0%} interval over {intervals['patients']} patients "
        f"({intervals['replicates']:,} draws of patients with all their patches). It is left out where a figure is "
        f"undefined, or rests on fewer than {least} patients."
    )


def _patient_rows(run: RunRecord, part: Part, *, named: bool) -> list[list[str]]:
    """One row a patient at the chosen threshold; the worst balanced accuracy first."""
    each = each_patient(run.predictions(part))
    each = each.sort_values(["balanced_accuracy", "patient"], na_position="last")
    keys = ("n", "prevalence", "recall", "specificity", "balanced_accuracy", "roc_auc")
    return [
        [row["patient"] if named else str(number), *(show(key, row[key]) for key in keys)]
        for number, row in enumerate(each.to_dict("records"), start=1)
    ]


def flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted key, value) pairs; list entries that are tables are numbered from 1."""
    pairs: list[tuple[str, str]] = []
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            pairs += flat(value, f"{name}.")
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            for number, item in enumerate(value, 1):
                pairs += flat(item, f"{name}[{number}].")
        elif isinstance(value, list):
            pairs.append((name, ", ".join(map(str, value)) or "none"))
        else:
            words = {"None": "not set", "True": "yes", "False": "no"}
            pairs.append((name, words.get(str(value), str(value))))
    return pairs


def inline(path: Path) -> str:
    """A PNG as a data URI, so that the report is one file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(
            f"The figure {path} cannot be read ({error.strerror}). Evaluate the run again."
        ) from error
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")

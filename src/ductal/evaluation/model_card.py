"""`MODEL_CARD.md` of a run or an ensemble: what it is, what it was measured on, and what it must not be used for.

Everything in it comes from the run folder; what the folder does not hold is called "not recorded". Its head is the
YAML that the Hugging Face Hub reads.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from ductal.data.quality import RULES
from ductal.evaluation import facts, limits
from ductal.evaluation.analysis import read_failures
from ductal.evaluation.markdown import render
from ductal.evaluation.report_judgement import calibration_tables, decision_table
from ductal.evaluation.report_model import METRICS, flat, metrics_table
from ductal.evaluation.runs import PART_WORDS, RunRecord, load_run
from ductal.evaluation.tables import show
from ductal.files import write_text

FILE = "MODEL_CARD.md"
WORST = 5  # patients that are listed
# Our metric, and its name on the Hub.
_HUB_METRICS = (
    ("roc_auc", "roc_auc"),
    ("average_precision", "average_precision"),
    ("accuracy", "accuracy"),
    ("balanced_accuracy", "balanced_accuracy"),
    ("f1", "f1"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("brier", "brier_score"),
)


def write_model_card(run_folder: str | Path) -> Path:
    """Write ``MODEL_CARD.md`` into a run folder, evaluated or not; returns its path.

    Raises:
        RunError: as `ductal.evaluation.runs.load_run`.
        StorageError: the disk refused the write.
    """
    run = load_run(run_folder, evaluated=False)
    path = run.folder / FILE
    write_text(path, model_card(run))
    return path


def model_card(run: RunRecord) -> str:
    """The text of a run's card."""
    return render("MODEL_CARD.md.j2", _context(run))


def _context(run: RunRecord) -> dict[str, Any]:
    return {
        "title": run.title,
        "name": run.name,
        "front": front_matter(run),
        "synthetic": run.synthetic,
        "summary": summary(run),
        "use": limits.intended_use(),
        "not_for": limits.out_of_scope(),
        "limits": limits.limits(run),
        "data": data_facts(run),
        "split": facts.split_rows(run),
        "audit": [
            (check.get("name", ""), check.get("what", ""), check.get("status", ""))
            for check in (run.run.get("audit") or {}).get("checks", [])
        ],
        "notes": [*(run.run["cohort"].get("notes") or []), *(run.run.get("split", {}).get("notes") or [])],
        "model": facts.model_facts(run),
        "training": facts.training_facts(run),
        "settings": flat(run.run.get("recipe") or {}),
        "tables": [metrics_table(part, run.metrics[part]) for part in run.parts],
        "glossary": [(name, meaning) for _, name, meaning in METRICS],
        "calibration": facts.calibration_facts(run),
        "calibrated": calibration_tables(run),
        "decisions": decision_table(run) if run.parts else None,
        "failures": failure_summary(run),
        "command": limits.command_use(run),
        "python": limits.python_use(run),
        "citations": limits.citations(run),
    }


def front_matter(run: RunRecord) -> dict[str, str]:
    """The keys of the card's YAML head and their values, as JSON, which is YAML too.

    The licence of a model is its authors' to choose, so it is left open.
    """
    name = str(run.run["cohort"].get("name"))
    measured = _hub_results(run)
    front: dict[str, Any] = {
        "license": "other",
        "license_name": "to-be-chosen-by-the-authors",
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": ["histopathology", "breast-cancer", "invasive-ductal-carcinoma", "research-only",
                 *(["synthetic-data"] if run.synthetic else [])],
        "metrics": [metric["type"] for metric in measured] or [hub for _, hub in _HUB_METRICS],
    }  # fmt: skip
    if measured:
        result = {
            "task": {"type": "image-classification"},
            "dataset": {"type": "synthetic" if run.synthetic else "histology-patches", "name": name,
                        "split": PART_WORDS[run.parts[-1]]},
            "metrics": measured,
        }  # fmt: skip
        front["model-index"] = [{"name": run.name, "results": [result]}]
    # Hubs show the head as HTML, too.
    return {key: json.dumps(value).replace("<", "\\u003c") for key, value in front.items()}


def _hub_results(run: RunRecord) -> list[dict[str, Any]]:
    if not run.parts:
        return []
    found = run.metrics[run.parts[-1]]["at_threshold"]
    values = {hub: found.get(ours) for ours, hub in _HUB_METRICS}
    return [{"type": hub, "value": round(value, 4)} for hub, value in values.items() if value is not None]


def summary(run: RunRecord) -> str:
    """The main result in one sentence, with its interval where there is one."""
    if not run.parts:
        return "Not evaluated yet: there are no figures."
    part = run.parts[-1]
    table = metrics_table(part, run.metrics[part])
    shown = {row[0]: row[2] for row in table["rows"]}  # at the chosen threshold
    told = ("ROC AUC", "Balanced accuracy", "F1 of the cancer class")
    words = [f"{name} {_bounded(*shown[name])}" for name in told]
    patients = table["patients"]
    whom = f"{patients:,} {table['part']} patients" if patients else f"{table['part']} patches without patient ids"
    return f"{', '.join(words)}, on {whom} at the threshold {table['threshold']}."


def data_facts(run: RunRecord) -> facts.Pairs:
    """What it was trained and measured on."""
    cohort = run.run["cohort"]
    split = run.run.get("split", {})
    trained = split.get("trained_on")
    whose = "the validation patches at most, each network" if split.get("cross_fitted") else "the training patches"
    reasons = [reason for reason in cohort.get("quarantined") or {} if reason in RULES]
    rules = [f"{reason}: {RULES[reason].rstrip('.')}" for reason in reasons]
    return [
        ("Patches", facts.cohort_words(run)),
        ("Fingerprint of the patches", str(cohort.get("fingerprint", facts.UNKNOWN))),
        ("Size of a patch", facts.scale_words(run)),
        ("Selection", facts.selection_words(run)),
        ("Files", facts.left_out_words(run) + (f". {'; '.join(rules)}" if rules else "")),
        ("Division", facts.split_words(run)),
        ("Trained on", facts.UNKNOWN if trained is None else f"{trained:,} of {whose}"),
    ]


def failure_summary(run: RunRecord) -> dict[str, Any]:
    """Who has the errors, where they are, and how many labels are in doubt; {} before the evaluation."""
    found = read_failures(run.folder)
    if not found or not run.parts:
        return {}
    patients = found.get("patients", pd.DataFrame())
    return {
        "part": PART_WORDS[run.parts[-1]],
        "concentration": _concentration(patients),
        "patients": _rows(patients.head(WORST), ("patient", "n", "prevalence", "error_rate", "error_share", "recall",
                                                 "specificity")),
        "distance": _rows(found.get("distance"), ("distance", "n", "patients", "error_rate", "missed_rate",
                                                  "false_alarm_rate")),
        "stain": _rows(found.get("stain"), ("stain", "group", "n", "error_rate", "missed_rate", "false_alarm_rate")),
        "suspects": {name: len(found[name]) for name in ("suspects", "suspects_alone") if name in found},
    }  # fmt: skip


def _concentration(patients: pd.DataFrame) -> str:
    """How few patients have half of all errors."""
    if patients.empty or not patients["errors"].sum():
        return ""
    shares = patients["errors"].sort_values(ascending=False).cumsum() / patients["errors"].sum()
    return f"Half of all wrong calls are on {int((shares < 0.5).sum()) + 1} of {len(patients)} patients."


def _rows(table: pd.DataFrame | None, columns: tuple[str, ...]) -> list[list[str]]:
    if table is None or not set(columns) <= set(table):
        return []
    return [[_cell(column, row[column]) for column in columns] for row in table.to_dict("records")]


def _cell(column: str, value: Any) -> str:
    return str(value) if column in ("group", "distance") else show(column, value)


def _bounded(value: str, bounds: str) -> str:
    return f"{value} ({bounds})" if bounds else value

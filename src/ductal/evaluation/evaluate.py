"""The final evaluation of a run, and the only reader of test patients."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ductal.data.audit import AuditReport
from ductal.data.cohort import Cohort
from ductal.data.split import Part, Split
from ductal.errors import RunError
from ductal.evaluation.controls import CONTROLS
from ductal.evaluation.cross_fit import out_of_fold
from ductal.evaluation.decision import ThresholdRule
from ductal.evaluation.ensemble import member_splits
from ductal.evaluation.findings import METRICS, remove_findings, write_findings
from ductal.evaluation.judgement import calibration_block, decision_block, rechoose
from ductal.evaluation.metrics import best_threshold, evaluate_predictions, join_labels
from ductal.evaluation.runs import read_trained
from ductal.evaluation.temperature import Scaling
from ductal.files import atomic_folder, sole_writer, write_text
from ductal.inference.predictor import Predictor
from ductal.loading.records import read_table
from ductal.record import (
    check_run_target,
    describe_data,
    package_versions,
    predictions_of,
    save_predictions,
    to_json,
)

Progress = Callable[[int, int], None]


def evaluate(
    run_folder: str | Path,
    cohort: Cohort,
    split: Split,
    *,
    threshold_rule: str | None = None,
    fast: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate a trained run on the validation patients, and on the test patients where there are any.

    A run is evaluated as it predicts: averaged over flips and turns where it was calibrated so (`ductal ensemble RUN
    --d4`), and not otherwise, since temperature and threshold belong to what they were chosen on.

    Writes predictions, `metrics.json`, figures, tables of failures, `MODEL_CARD.md`, `CHECKLIST.md` and
    `report.html` into the run folder and counts in `run.json` how often its test patients were opened. What an
    earlier evaluation said is removed before any of it is replaced, so that an interruption leaves a run that
    counts as not evaluated, and never figures of one evaluation beside predictions of another.

    Args:
        run_folder: as written by `ductal.training.trainer.train`.
        cohort: the cohort it was trained on.
        split: the split it was trained with.
        threshold_rule: choose the run's threshold anew, on its validation patients, and write it into
            `calibration.json` (see `ThresholdRule.parse`); None keeps the one it has.
        fast: compute as `ductal predict` does, in 16 bits where the run was trained in them, instead of in float32.
            Figures then depend on the processor in the third or fourth decimal; recorded with the metrics.
        progress: called with (patches done, patches in all) for each part.

    Returns:
        The content of metrics.json.

    Raises:
        RunError: not a finished run, a damaged one, one with links in it, trained on another cohort or split, or no
            such rule. All of it is told before a test patient is opened.
        StorageError: the disk refused. BusyError: another command writes into the run.
    """
    folder = Path(run_folder)
    rule = None if threshold_rule is None else ThresholdRule.parse(threshold_rule)
    _check_same(read_trained(folder).run, cohort, split)
    with sole_writer(folder):
        return _evaluate_alone(folder, cohort, split, rule, fast, progress)


def _evaluate_alone(
    folder: Path, cohort: Cohort, split: Split, rule: ThresholdRule | None, fast: bool, progress: Progress | None
) -> dict[str, Any]:
    """`evaluate`, while nobody else writes into the run, so that no opening of the test patients is lost."""
    trained = read_trained(folder)
    record, settings = trained.run, trained.calibration
    _check_same(record, cohort, split)
    predictor = Predictor.from_run(folder, exact=not fast)  # figures should not depend on the machine
    members = member_splits(folder) if split.cross_fitted else []
    known = _known(folder, record, cohort, split, exact=not fast)
    if not known and record.pop("exact", None) is not None:  # what is saved is replaced, and so no longer known
        write_text(folder / "run.json", to_json(record))

    def predict(part: Part, rows: np.ndarray) -> np.ndarray:
        if part not in known and part == "val" and split.cross_fitted:
            known[part] = out_of_fold(predictor, members, cohort, rows, progress)
        elif part not in known:
            known[part] = predictor.predict(cohort.pixels, rows, progress=progress)
        return known[part]

    if rule is not None:
        rows = split.rows(cohort, "val")
        settings = rechoose(settings, cohort.labels[rows], predict("val", rows), rule)
    metrics, tables = _evaluate_parts(folder, record, cohort, split, predict, settings["threshold"], settings)
    metrics |= {"d4": predictor.d4, "engine": predictor.engine.name, "exact": not fast}
    # A failure until here leaves what the run said before. From here to the new metrics it was not evaluated.
    remove_findings(folder)
    _save(folder, record, tables)
    if rule is not None:
        write_text(folder / "calibration.json", to_json(settings))
    write_text(folder / METRICS, to_json(metrics))
    write_findings(folder, tables, cohort, settings, trained.history)
    return metrics


def _known(
    folder: Path, record: dict[str, Any], cohort: Cohort, split: Split, *, exact: bool
) -> dict[Part, np.ndarray]:
    """What an ensemble has computed already when it was made: validation predictions, in the same precision."""
    if record.get("exact") is not exact:
        return {}
    rows = split.rows(cohort, "val")
    try:
        saved = read_table(folder / "predictions" / "val.parquet", ["patch_id", "prob"])
    except (OSError, ValueError):
        return {}
    same = saved["patch_id"].tolist() == cohort.table["patch_id"].iloc[rows].tolist()
    return {"val": saved["prob"].to_numpy(np.float32)} if same else {}


def evaluate_control(
    name: str, cohort: Cohort, split: Split, audit: AuditReport, out: str | Path, *, seed: int = 42
) -> Path:
    """Fit a control model on the training patients and evaluate it like a run; returns its folder.

    Raises:
        RunError: `out` holds something else than a run. StorageError: the disk refused the write.
    """
    started, out = time.perf_counter(), Path(out)
    check_run_target(out, [cohort.folder])
    train = split.rows(cohort, "train")
    control = CONTROLS[name](seed).fit(cohort.view(train), cohort.labels[train])
    record = {
        "name": name,
        "control": True,
        "recipe": {"name": name, "title": control.says},
        **describe_data(cohort, split, audit),
        "seed": seed,
        "versions": package_versions("ductal", "scikit-learn", "numpy"),
        "device": "CPU",
        "precision": "float64",
        "timings": {"train_seconds": time.perf_counter() - started},
        "test_opened": 0,
        "evaluated_on": [],
        "alarms": [],
        "parameters": {"total": 0, "trainable_last_stage": 0},
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }

    def predict(_part: Part, rows: np.ndarray) -> np.ndarray:
        return control.predict(cohort.view(rows))

    val = split.rows(cohort, "val")
    threshold = best_threshold(cohort.labels[val], predict("val", val))
    with atomic_folder(out) as folder:
        metrics, tables = _evaluate_parts(folder, record, cohort, split, predict, threshold, {})
        _save(folder, record, tables)
        write_text(folder / METRICS, to_json(metrics))
    return out


def _evaluate_parts(
    folder: Path,
    record: dict[str, Any],
    cohort: Cohort,
    split: Split,
    predict: Callable[[Part, np.ndarray], np.ndarray],
    threshold: float,
    settings: dict[str, Any],
) -> tuple[dict[str, Any], dict[Part, pd.DataFrame]]:
    """Predict and score validation, then test if it has patients: the metrics, and the predictions of each part.

    `settings` is what calibration.json holds; {} for a model without calibration. Nothing is written but that the
    test patients are opened.
    """
    started = time.perf_counter()
    scaling = Scaling(settings["temperature"], settings.get("bias", 0.0)) if settings else None
    fit = settings.get("calibration", {}).get("fit", "temperature")
    metrics: dict[str, Any] = {}
    tables: dict[Part, pd.DataFrame] = {}
    parts: list[Part] = ["val", "test"] if split.parts.get("test") else ["val"]
    for part in parts:
        if part == "test":
            # Counted and written before the patients are read, so that a crash cannot hide an opening.
            record["test_opened"] += 1
            write_text(folder / "run.json", to_json(record))
        rows = split.rows(cohort, part, final_evaluation=True)
        tables[part] = predictions_of(cohort, rows, predict(part, rows))
        table = join_labels(tables[part], cohort.table.iloc[rows])
        y, p = table["label"].to_numpy(), table["prob"].to_numpy()
        metrics[part] = evaluate_predictions(table, threshold) | {
            "calibration": calibration_block(y, p, table["patient"], scaling, fit, held_out=part == "test"),
            "decision": decision_block(y, p, threshold, settings.get("abstention", {})),
        }
    record["evaluated_on"] = parts
    record["timings"]["evaluate_seconds"] = time.perf_counter() - started
    return metrics, tables


def _save(folder: Path, record: dict[str, Any], tables: dict[Part, pd.DataFrame]) -> None:
    for part, table in tables.items():
        save_predictions(folder, part, table)
    write_text(folder / "run.json", to_json(record))


def _check_same(record: dict[str, Any], cohort: Cohort, split: Split) -> None:
    if record["cohort"]["fingerprint"] != cohort.info.fingerprint:
        raise RunError(
            f"The run was trained on the cohort {record['cohort']['name']} with other content than "
            f"{cohort.folder}: its training patients could be among your test patients. Use that cohort."
        )
    if record["split"]["id"] != split.identity:
        raise RunError(
            f"The run was trained with another split ({record['split']['name']}) than the one given "
            f"({split.name}). Use the split.json in its own folder."
        )

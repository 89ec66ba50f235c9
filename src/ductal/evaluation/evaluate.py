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
from ductal.evaluation import figures, figures_decision, figures_training
from ductal.evaluation.analysis import write_failures
from ductal.evaluation.checklist import write_checklist
from ductal.evaluation.controls import CONTROLS
from ductal.evaluation.cross_fit import out_of_fold
from ductal.evaluation.decision import ThresholdRule
from ductal.evaluation.ensemble import member_splits
from ductal.evaluation.judgement import (
    MAX_ERROR,
    calibrated_by_others,
    calibration_block,
    decision_block,
    limits_of,
    rechoose,
)
from ductal.evaluation.metrics import best_threshold, evaluate_predictions, join_labels
from ductal.evaluation.model_card import write_model_card
from ductal.evaluation.report import write_run_report
from ductal.evaluation.temperature import Scaling
from ductal.files import atomic_folder, sole_writer, write_text
from ductal.inference.predictor import Predictor
from ductal.loading.links import refuse_links
from ductal.loading.records import read_json, read_table
from ductal.record import check_run_target, describe_data, package_versions, save_predictions, to_json

Progress = Callable[[int, int], None]
REPORT = "report.html"  # the last file of an evaluation


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
    `report.html` into the run folder and counts in `run.json` how often its test patients were opened.

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
        RunError: not a finished run, one with links in it, trained on another cohort or split, or no such rule.
        StorageError: the disk refused. BusyError: another command writes into the run.
    """
    folder = Path(run_folder)
    rule = None if threshold_rule is None else ThresholdRule.parse(threshold_rule)
    refuse_links(folder)
    _check_same(_read_json(folder / "run.json"), cohort, split)
    with sole_writer(folder):
        return _evaluate_alone(folder, cohort, split, rule, fast, progress)


def _evaluate_alone(
    folder: Path, cohort: Cohort, split: Split, rule: ThresholdRule | None, fast: bool, progress: Progress | None
) -> dict[str, Any]:
    """`evaluate`, while nobody else writes into the run, so that no opening of the test patients is lost."""
    record = _read_json(folder / "run.json")
    _check_same(record, cohort, split)
    predictor = Predictor.from_run(folder, exact=not fast)  # figures should not depend on the machine
    settings = _read_json(folder / "calibration.json")
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
    (folder / REPORT).unlink(missing_ok=True)  # its absence says that an evaluation did not come to its end
    metrics = _evaluate_parts(folder, record, cohort, split, predict, settings["threshold"], settings)
    metrics |= {"d4": predictor.d4, "engine": predictor.engine.name, "exact": not fast}
    if rule is not None:  # after the predictions, so that a failure leaves the run as it was
        write_text(folder / "calibration.json", to_json(settings))
    write_text(folder / "metrics.json", to_json(metrics))
    _write_findings(folder, record, cohort, settings)
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


def _write_findings(folder: Path, record: dict[str, Any], cohort: Cohort, settings: dict[str, Any]) -> None:
    """Everything that is made of predictions and metrics.json: figures, tables of failures, card, report."""
    (folder / "figures").mkdir(exist_ok=True)
    if not record.get("ensemble"):
        figures_training.curves(pd.read_csv(folder / "history.csv"), folder / "figures" / "curves.png")
    parts = record["evaluated_on"]
    _draw(folder, parts, cohort, settings["threshold"], settings)
    shown = pd.read_parquet(folder / "predictions" / f"{parts[-1]}.parquet")
    write_failures(folder, shown, cohort, settings["threshold"])
    write_model_card(folder)
    write_checklist(folder)
    write_run_report(folder)


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
        metrics = _evaluate_parts(folder, record, cohort, split, predict, threshold, {})
        (folder / "metrics.json").write_text(to_json(metrics), encoding="utf-8")
    return out


def _evaluate_parts(
    folder: Path,
    record: dict[str, Any],
    cohort: Cohort,
    split: Split,
    predict: Callable[[Part, np.ndarray], np.ndarray],
    threshold: float,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Predict and score validation, then test if it has patients; saves predictions and the record.

    `settings` is what calibration.json holds; {} for a model without calibration.
    """
    started = time.perf_counter()
    scaling = Scaling(settings["temperature"], settings.get("bias", 0.0)) if settings else None
    fit = settings.get("calibration", {}).get("fit", "temperature")
    metrics: dict[str, Any] = {}
    parts: list[Part] = ["val", "test"] if split.parts.get("test") else ["val"]
    for part in parts:
        if part == "test":
            # Counted and written before the patients are read, so that a crash cannot hide an opening.
            record["test_opened"] += 1
            write_text(folder / "run.json", to_json(record))
        rows = split.rows(cohort, part, final_evaluation=True)
        predictions = save_predictions(folder, part, cohort, rows, predict(part, rows))
        table = join_labels(predictions, cohort.table.iloc[rows])
        y, p = table["label"].to_numpy(), table["prob"].to_numpy()
        metrics[part] = evaluate_predictions(table, threshold) | {
            "calibration": calibration_block(y, p, table["patient"], scaling, fit, held_out=part == "test"),
            "decision": decision_block(y, p, threshold, settings.get("abstention", {})),
        }
    record["evaluated_on"] = parts
    record["timings"]["evaluate_seconds"] = time.perf_counter() - started
    write_text(folder / "run.json", to_json(record))
    return metrics


def _draw(folder: Path, parts: list[Part], cohort: Cohort, threshold: float, settings: dict[str, Any]) -> None:
    tables = {part: pd.read_parquet(folder / "predictions" / f"{part}.parquet") for part in parts}
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


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path.parent} is not a run folder: {path.name} cannot be read ({error}). Name a folder under runs/."
        ) from error


def _check_same(record: dict[str, Any], cohort: Cohort, split: Split) -> None:
    if record["cohort"]["fingerprint"] != cohort.info.fingerprint:
        raise RunError(
            f"The run was trained on the cohort {record['cohort']['name']} with other content than "
            f"{cohort.folder}: its training patients could be among your test patients. Use that cohort."
        )
    if record["split"]["id"] != split.identity:
        raise RunError(
            f"The run was trained with another split ({record['split']['name']}) than the one given "
            f"({split.name}). Use the split.json that lies beside its runs/ folder."
        )

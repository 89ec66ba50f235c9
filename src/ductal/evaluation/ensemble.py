"""Several runs, or one with D4 averaging, as a run of their own: evaluated, calibrated and used like any other."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ductal.data.audit import AuditReport, audit_split, refuse_leaks
from ductal.data.cohort import Cohort
from ductal.data.split import Split
from ductal.errors import RunError
from ductal.evaluation.checklist import write_checklist
from ductal.evaluation.cross_fit import joined_split, out_of_fold
from ductal.evaluation.decision import ThresholdRule
from ductal.evaluation.judgement import judge
from ductal.evaluation.model_card import write_model_card
from ductal.evaluation.runs import read_calibration
from ductal.files import atomic_folder
from ductal.inference.encoder import ENCODER_FOLDER
from ductal.inference.engines import IR_FOLDER
from ductal.inference.predictor import MEMBERS, Predictor
from ductal.loading.links import refuse_links
from ductal.loading.records import read_json
from ductal.loading.schema import check_member
from ductal.record import (
    check_run_target,
    describe_data,
    package_versions,
    predictions_of,
    save_predictions,
    to_json,
)


def combine(
    runs: Sequence[Path],
    cohort: Cohort,
    out: str | Path,
    *,
    d4: bool = False,
    rule: str = "balanced_accuracy",
    fast: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make a run folder whose predictor averages the calibrated logits of `runs`; returns it.

    The networks are copied into it, so that it can be moved and outlives its parts. It is calibrated, and its
    threshold chosen, on the same validation patients as its members; test patients are not read. Where the members
    were trained on folds inside one split, on all these patients, each scored by the networks that were not trained
    on that patient (`ductal.evaluation.cross_fit`).

    Args:
        runs: run folders trained on this cohort, with one split or splits of the same test patients; one is enough
            with `d4`.
        cohort: what all of them were trained on.
        out: the run folder; an earlier run there is replaced. Its name is the run's.
        d4: average over the 8 rotations and flips of each patch, too.
        rule: see `ThresholdRule.parse`.
        fast: compute as `ductal predict` does, see `ductal.evaluation.evaluate.evaluate`.
        progress: called with (patches done, patches in all).

    Raises:
        RunError: no run, one twice, a control or an ensemble among them, another cohort, or other test patients;
            or `out` holds something else than a run, or one of them.
        LeakError: the split leaks. StorageError: the disk refused the write.
    """
    out = Path(out)
    members = [_member(folder, cohort) for folder in runs]
    if len({folder.resolve() for folder in runs}) < len(runs) or not runs or (len(runs) == 1 and not d4):
        raise RunError("An ensemble needs two runs or more, each once; or one run and D4 averaging (--d4).")
    check_run_target(out, [*runs, cohort.folder])
    records, calibrations, splits = zip(*members, strict=True)
    split = joined_split(splits)
    audit = audit_split(cohort, split)
    refuse_leaks(audit)
    started = time.perf_counter()
    rows = split.rows(cohort, "val")
    with atomic_folder(out) as folder:
        for number, source in enumerate(runs):
            _copy(source, folder / MEMBERS / f"{number}-{source.name}")
        always = {"d4": d4, "members": len(runs)}
        plain = {"threshold": 0.5, "temperature": 1.0} | always
        (folder / "calibration.json").write_text(to_json(plain), encoding="utf-8")
        predictor = Predictor.from_run(folder, exact=not fast)
        if split.cross_fitted:
            probs = out_of_fold(predictor, splits, cohort, rows, progress)
        else:
            probs = predictor.predict(cohort.pixels, rows, progress=progress)
        judged = judge(cohort.labels[rows], probs, cohort.groups[rows], ThresholdRule.parse(rule))
        kept = {name: calibrations[0][name] for name in ("labels", "patch_size", "spacing_um")}
        (folder / "calibration.json").write_text(to_json(judged.settings | always | kept), encoding="utf-8")
        record = _record(out.name, records, cohort, split, audit, d4=d4, rule=rule)
        record["split"]["trained_on"] = max(one["split"]["trained_on"] for one in records)
        record["timings"] = {"combine_seconds": time.perf_counter() - started}
        record["exact"] = not fast  # how predictions/val.parquet was computed
        (folder / "run.json").write_text(to_json(record), encoding="utf-8")
        split.save(folder / "split.json")
        save_predictions(folder, "val", predictions_of(cohort, rows, judged.probs))
        write_model_card(folder)
        write_checklist(folder)
    return out


def member_splits(folder: Path) -> list[Split]:
    """What the networks of an ensemble were trained with, in their order."""
    return [Split.load(path) for path in sorted((folder / MEMBERS).glob("*/split.json"))]


def _member(folder: Path, cohort: Cohort) -> tuple[dict[str, Any], dict[str, Any], Split]:
    """run.json, calibration.json and the split of a run that may be a member."""
    refuse_links(folder)
    try:
        record = read_json(folder / "run.json")
    except (OSError, ValueError) as error:
        raise RunError(f"{folder} is not a run folder ({error!r}). Name folders under runs/.") from error
    if not (folder / "model.keras").is_file():
        raise RunError(f"{folder} holds no network: it is a control model or an ensemble. Name trained recipes.")
    calibration = read_calibration(folder)
    try:
        check_member(record, calibration)
    except RunError as error:
        raise RunError(f"{folder} is not whole ({error}). Train the run again.") from error
    if record["cohort"]["fingerprint"] != cohort.info.fingerprint:
        raise RunError(
            f"{folder} was trained on another cohort: its training patients could be among the others' "
            "validation patients. Combine runs of one cohort."
        )
    split = Split.load(folder / "split.json")
    if split.identity != record["split"]["id"]:
        raise RunError(f"{folder / 'split.json'} is not what the run was trained with. Take the run's own file.")
    return record, calibration, split


def _copy(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for name in ("model.keras", "calibration.json", "run.json", "split.json"):
        shutil.copy2(source / name, target / name)
    for name in (IR_FOLDER, ENCODER_FOLDER):
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name)


def _record(
    name: str,
    records: Sequence[dict[str, Any]],
    cohort: Cohort,
    split: Split,
    audit: AuditReport,
    *,
    d4: bool,
    rule: str,
) -> dict[str, Any]:
    counts = Counter(record["name"] for record in records)
    names = [name if count == 1 else f"{count} x {name}" for name, count in counts.items()]
    title = ("Ensemble of " if len(records) > 1 else "") + ", ".join(names) + (", D4 averaged" if d4 else "")
    told = ("name", "seed", "precision", "finished", "test_opened")
    members = [{key: record[key] for key in told} for record in records]
    return {
        "name": name,
        "control": False,
        "ensemble": True,
        "recipe": {
            "name": name, "title": title, "d4": d4, "threshold": rule,
            "members": [record["recipe"] for record in records],
        },
        "members": members,
        **describe_data(cohort, split, audit),
        "seed": records[0]["seed"],
        "weights": ", ".join(dict.fromkeys(record["weights"] for record in records)),
        "versions": package_versions("ductal", "keras", "numpy"),
        "device": "CPU",
        "precision": "float32",
        # Whoever has seen figures of its members on test patients chose the ensemble with them in mind.
        "test_opened": max(record["test_opened"] for record in records),
        "evaluated_on": [],
        "alarms": [alarm for record in records for alarm in record["alarms"]],
        "parameters": {
            "total": int(np.sum([record["parameters"]["total"] for record in records])),
            "trainable_last_stage": 0,
        },
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }

"""What a training writes down: the run folder, with `run.json`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from ductal.data.audit import AuditReport
from ductal.data.cohort import Cohort
from ductal.data.split import Split
from ductal.evaluation.checklist import write_checklist
from ductal.evaluation.decision import ThresholdRule
from ductal.evaluation.judgement import judge
from ductal.evaluation.model_card import write_model_card
from ductal.inference.encoder import ENCODER_FOLDER
from ductal.record import describe_data, package_versions, predictions_of, save_predictions, to_json
from ductal.training.deterministic import threads
from ductal.training.devices import replicas_of
from ductal.training.network import PATCH_PX
from ductal.training.recipe import Recipe
from ductal.training.stages import Job

LABELS = {"0": "not_cancer", "1": "cancer"}


def run_record(
    job: Job, recipe: Recipe, cohort: Cohort, split: Split, audit: AuditReport, profile: str
) -> dict[str, Any]:
    """`run.json`, as far as it does not depend on how long the training took."""
    return {
        "name": recipe.name,
        "control": False,
        "profile": profile,
        "recipe": recipe.model_dump(mode="json"),
        **describe_data(cohort, split, audit),
        **_describe(job),
    }


def _describe(job: Job) -> dict[str, Any]:
    """What `run.json` says of the training itself."""
    model = job.network.model
    return {
        "seed": job.seed,
        "weights": job.network.weights_origin,
        "versions": versions(),
        "device": device_of(job.strategy),
        "deterministic": job.deterministic,
        "threads": threads(),
        "precision": job.choice.precision,
        "precision_choice": asdict(job.choice),
        "test_opened": 0,
        "evaluated_on": [],
        "alarms": job.alarms,
        "stages_given_up": job.given_up,
        "continued_after": job.continued_after,
        "parameters": {
            "total": int(model.count_params()),
            "trainable_last_stage": int(sum(np.prod(w.shape) for w in model.trainable_weights)),
        },
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    } | ({"encoder_runtime": encoder.runtime} if (encoder := job.network.encoder) else {})


def versions() -> dict[str, str]:
    """Of what decides how a training goes."""
    return package_versions("ductal", "keras", "numpy") | {"tensorflow": tf.__version__}


def device_of(strategy: Any | None) -> str:
    """Where TensorFlow computes: "CPU", "GPU x1", "2 x GPU at once"."""
    if strategy is not None:
        kind = strategy.extended.worker_devices[0].split(":")[-2]
        return f"{replicas_of(strategy)} x {kind} at once"
    gpus = tf.config.list_physical_devices("GPU")
    return f"GPU x{len(gpus)}" if gpus else "CPU"


def write_run(folder: Path, model: keras.Model, job: Job, split: Split, record: dict[str, Any]) -> None:
    """Everything of a finished run, calibrated on its validation patches, into `folder`, which is there."""
    rows, rule = job.rows["val"], ThresholdRule.parse(job.recipe.threshold)
    judged = judge(
        job.labels["val"], job.val_probs, job.cohort.groups[rows], rule,
        "platt" if job.recipe.rebalanced else None,
    )
    calibration = judged.settings | {
        "labels": LABELS,
        "patch_size": PATCH_PX,
        "spacing_um": job.cohort.info.spacing_um,
    }
    model.save(folder / "model.keras")
    if job.network.encoder is not None:
        job.network.encoder.save(folder / ENCODER_FOLDER)
    (folder / "calibration.json").write_text(to_json(calibration), encoding="utf-8")
    (folder / "run.json").write_text(to_json(record), encoding="utf-8")
    split.save(folder / "split.json")
    pd.DataFrame(job.history).to_csv(folder / "history.csv", index=False)
    save_predictions(folder, "val", predictions_of(job.cohort, rows, judged.probs))
    write_model_card(folder)
    write_checklist(folder)

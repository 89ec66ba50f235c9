"""How good heads are on slides they never saw, and whether they are better than the patch model alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ductal.context.heads import Slide
from ductal.context.nested import HeldOut
from ductal.evaluation.bootstrap import Resampling, patients_of, resampled_metrics
from ductal.evaluation.calibration import calibration_intervals, calibration_scores
from ductal.evaluation.differences import Patches, Scored, difference, holm
from ductal.evaluation.metrics import binary_metrics

METRICS = ("roc_auc", "balanced_accuracy", "f1", "recall", "specificity")
COMPARED = ("roc_auc", "balanced_accuracy", "f1")
# Fewer than `MIN_PATIENTS`, since complete slides are few; the report says to read them as rough.
MIN_SLIDES_FOR_INTERVALS = 6
NAN = float("nan")


def score_models(slides: Sequence[Slide], held: Sequence[HeldOut]) -> pd.DataFrame:
    """Figures over the patches of all slides, one row for each head.

    Scores of different slides come from heads that were fitted on different slides; they are ranked together as
    calibrated probabilities of one patch model. The mean of the slides' own ROC AUC, which ranks within slides
    only, is beside it.

    Args:
        slides: which were called, in the order of `HeldOut`.
        held: of each head; the first is the one that the others are compared with.

    Returns:
        name, track, says, slides, patches, the `METRICS` and ece with `_low` and `_high` (nan without an interval),
        nll, mean_slide_roc_auc; for the `COMPARED`, `<metric>_difference` to the first head with `_low` and
        `_high`, and for the first two of them `_p`, of a permutation test over patients, corrected for the
        number of tests in the table (`holm`).
    """
    truth = np.concatenate([slide.labels for slide in slides]) == 1
    group = np.repeat(np.arange(len(slides)), [len(slide.labels) for slide in slides])
    draws = Resampling(len(slides), minimum=MIN_SLIDES_FOR_INTERVALS)
    rests_on = patients_of(truth, group, len(slides))
    resampled = [
        resampled_metrics(truth, each.probs, {"own": each.called}, group, draws.weights)["own"] for each in held
    ]
    rows = []
    for number, (each, values) in enumerate(zip(held, resampled, strict=True)):
        row: dict[str, Any] = {
            "name": each.head.name, "track": each.head.track, "says": each.head.says,
            "slides": len(slides), "patches": truth.size,
        }  # fmt: skip
        for metric in METRICS:
            bounds = draws.interval(values[metric], patches=truth.size, rests_on=rests_on[metric])
            row |= _with_bounds(metric, float(values[metric][0]), bounds)
        row |= _calibration(truth, each, group)
        row["mean_slide_roc_auc"] = float(slide_scores(slides, [each])["roc_auc"].mean())
        if number:
            row |= _differences(truth, group, draws, held, resampled, number)
        rows.append(row)
    table = pd.DataFrame(rows)
    tested = [str(name) for name in table if str(name).endswith("_p")]
    if tested:
        table[tested] = holm(table[tested].to_numpy(np.float64).ravel()).reshape(len(table), len(tested))
    return table


def slide_scores(slides: Sequence[Slide], held: Sequence[HeldOut]) -> pd.DataFrame:
    """The same figures for each slide and head: patient, part, patches, prevalence, name, `METRICS`, threshold.

    A figure that a slide cannot define (no IDC in it) is nan.
    """
    ends = np.cumsum([len(slide.labels) for slide in slides])
    rows = []
    for number, (slide, end) in enumerate(zip(slides, ends, strict=True)):
        part = slice(end - len(slide.labels), end)
        for each in held:
            ranked = binary_metrics(slide.labels, each.probs[part])
            called = binary_metrics(slide.labels, each.called[part].astype(float))
            rows.append(
                {
                    "patient": slide.patient, "part": slide.part, "patches": len(slide.labels),
                    "prevalence": ranked["prevalence"], "name": each.head.name, "track": each.head.track,
                    "roc_auc": ranked["roc_auc"],
                    **{metric: called[metric] for metric in METRICS if metric != "roc_auc"},
                    "threshold": each.models[number].threshold, "setting": str(each.models[number].setting or ""),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def _calibration(truth: np.ndarray, held: HeldOut, group: np.ndarray) -> dict[str, float]:
    scores = calibration_scores(truth, held.probs)
    bounds = calibration_intervals(truth, held.probs, group, minimum=MIN_SLIDES_FOR_INTERVALS)["ece"]
    return _with_bounds("ece", scores["ece"], bounds) | {"nll": scores["nll"]}


def _differences(
    truth: np.ndarray,
    group: np.ndarray,
    draws: Resampling,
    held: Sequence[HeldOut],
    resampled: Sequence[dict[str, np.ndarray]],
    number: int,
) -> dict[str, float]:
    """The row of head `number` against the first."""
    row: dict[str, float] = {}
    rests_on = patients_of(truth, group, draws.patients)
    for metric in COMPARED:
        values = resampled[number][metric] - resampled[0][metric]
        row |= _with_bounds(
            f"{metric}_difference", float(values[0]), draws.interval(values, rests_on=rests_on[metric])
        )
    one, first = (Scored(each.probs, each.called) for each in (held[number], held[0]))
    patches, values_of = Patches(truth, group, draws.patients), (resampled[number], resampled[0])
    tested = difference(patches, one, first, draws, values_of)
    return row | {f"{metric}_difference_p": found.p for metric, found in tested.items()}


def _with_bounds(name: str, value: float, bounds: tuple[float, float] | None) -> dict[str, float]:
    low, high = bounds or (NAN, NAN)
    return {name: value, f"{name}_low": low, f"{name}_high": high}

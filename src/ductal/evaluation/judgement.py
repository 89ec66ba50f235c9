"""Calibration of a run on its validation patients, and the blocks of metrics.json that say how good it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ductal.errors import RunError
from ductal.evaluation.arrays import Floats
from ductal.evaluation.calibration import calibration_intervals, calibration_scores
from ductal.evaluation.decision import ThresholdRule, sensitivity_at_specificity
from ductal.evaluation.selective import abstention_for_error, aurc, within_limits
from ductal.evaluation.temperature import Scaling, bias_helps, cross_fitted, fit_platt, fit_temperature

MAX_ERROR = 0.05  # of the calls that are left when a model abstains from the unsure ones
SPECIFICITIES = (0.90, 0.95)
Fit = Literal["temperature", "platt"]
FITS = {"temperature": fit_temperature, "platt": fit_platt}


@dataclass(frozen=True)
class Judged:
    """How the predictor of a run turns logits into calls.

    Attributes:
        scaling: the calibration.
        threshold: on calibrated probabilities.
        probs: the calibrated probabilities of the validation patches, float32 (n,).
        settings: the part of calibration.json that comes of it.
    """

    scaling: Scaling
    threshold: float
    probs: npt.NDArray[np.float32]
    settings: dict[str, Any]


def judge(
    y: npt.ArrayLike, p: npt.ArrayLike, groups: npt.ArrayLike, rule: ThresholdRule, fit: Fit | None = None
) -> Judged:
    """Calibrate on validation patients, then choose threshold and abstention on the calibrated probabilities.

    Args:
        y: labels, shape (n,).
        p: the network's probabilities of IDC, shape (n,).
        groups: patients (or content hashes where unknown), shape (n,).
        rule: how the threshold is chosen.
        fit: "platt" adds a bias to the temperature, for networks trained with class weights; None adds one where it
            helps on patients it was not fitted on.

    Raises:
        RunError: a probability is nan (the training diverged), or as `binary_metrics`.
    """
    fit = fit or ("platt" if bias_helps(y, p, groups) else "temperature")
    scaling = FITS[fit](y, p, groups)
    probs = scaling.apply(p).astype(np.float32)
    decided = _decided(y, probs, rule)
    settings = {
        "temperature": scaling.temperature,
        "bias": scaling.bias,
        "calibration": asdict(scaling) | {"fit": fit},
        **decided,
    }
    return Judged(scaling, decided["threshold"], probs, settings)


def rechoose(settings: dict[str, Any], y: npt.ArrayLike, p: npt.ArrayLike, rule: ThresholdRule) -> dict[str, Any]:
    """The content of calibration.json with a threshold chosen anew; the calibration itself stays.

    Args:
        settings: the content until now.
        y: labels of validation patches, shape (n,).
        p: their calibrated probabilities of IDC, shape (n,).
        rule: how the threshold is chosen.

    Returns:
        `settings` with another threshold, rule and abstention. ``earlier_thresholds`` lists what was given up,
        oldest first: whoever has seen test figures in between has chosen with them in mind.

    Raises:
        RunError: the patches lack a class that the rule needs, or as `binary_metrics`.
    """
    decided = _decided(y, p, rule)
    if not np.isfinite(decided["threshold"]):
        raise RunError(
            f"The rule {rule.name} finds no threshold: the validation patients lack a class that it needs. "
            "Use another rule, or train with validation patients of both classes."
        )
    given_up = {name: settings.get(name) for name in ("threshold", "threshold_rule")}
    return settings | decided | {"earlier_thresholds": [*settings.get("earlier_thresholds", []), given_up]}


def _decided(y: npt.ArrayLike, probs: npt.ArrayLike, rule: ThresholdRule) -> dict[str, Any]:
    """Threshold and abstention on calibrated probabilities, as calibration.json holds them."""
    threshold = rule.choose(y, probs)
    abstention = abstention_for_error(y, probs, threshold, MAX_ERROR)
    return {
        "threshold": threshold,
        "threshold_rule": rule.says,
        "abstention": {"max_error": MAX_ERROR, **abstention._asdict()},
    }


def calibration_block(
    y: npt.ArrayLike, p: npt.ArrayLike, patients: npt.ArrayLike, scaling: Scaling | None, fit: Fit, *, held_out: bool
) -> dict[str, Any]:
    """How far probabilities are off before and after calibration, with intervals over patients.

    Args:
        y: labels, shape (n,).
        p: calibrated probabilities, shape (n,); the plain ones where `scaling` is None.
        patients: ids, shape (n,); "" where unknown, which leaves no intervals and nothing to cross-fit.
        scaling: the calibration in `p`; None for a model that has none.
        fit: how it was fitted.
        held_out: whether it was fitted on other patients. Where it was not, "after" is cross-fitted: each patient
            is calibrated by the others.

    Returns:
        "before", and where there is a calibration "after" and "after_is": each of the scores of
        `calibration_scores`, with `intervals` ({"ece": (low, high) or None, ...}).
    """

    def scores(probs: npt.ArrayLike) -> dict[str, Any]:
        return calibration_scores(y, probs) | {"intervals": calibration_intervals(y, probs, patients)}

    if scaling is None:
        return {"before": scores(p)}
    after = calibrated_by_others(y, p, patients, scaling, fit, held_out=held_out)
    before = {"before": scores(scaling.undo(p))}
    return before if after is None else before | {"after": scores(after[0]), "after_is": after[1]}


def calibrated_by_others(
    y: npt.ArrayLike, p: npt.ArrayLike, patients: npt.ArrayLike, scaling: Scaling, fit: Fit, *, held_out: bool
) -> tuple[Floats, str] | None:
    """Probabilities none of which was calibrated with its own patient, and how that was done.

    Args:
        y, p, patients, scaling, fit, held_out: as `calibration_block`.

    Returns:
        float64 (n,) and words; None where patients are unknown or there is one only.
    """
    if held_out:
        return np.asarray(p, np.float64), "fitted on validation patients"
    ids = np.asarray(patients).astype(str)
    if (ids == "").any() or np.unique(ids).size < 2:
        return None
    crossed = cross_fitted(y, scaling.undo(p), ids, FITS[fit])
    return crossed.probs, f"cross-fitted: each patient calibrated by others, in {len(crossed.scalings)} parts"


def decision_block(
    y: npt.ArrayLike, p: npt.ArrayLike, threshold: float, abstention: dict[str, Any]
) -> dict[str, Any]:
    """Figures for a decision: sensitivity at fixed specificities, ranking of errors, what abstention leaves.

    Args:
        y: labels, shape (n,).
        p: calibrated probabilities, shape (n,).
        threshold: a patch is called IDC from this probability on.
        abstention: of calibration.json: patches with low < p < high are left uncalled; {} for none.
    """
    points = {str(level): sensitivity_at_specificity(y, p, level)._asdict() for level in SPECIFICITIES}
    block: dict[str, Any] = {"sensitivity_at_specificity": points, "aurc": aurc(y, p, threshold)}
    limits = limits_of(abstention)
    if limits is not None:
        coverage, error_rate = within_limits(y, p, threshold, *limits)
        block["abstention"] = {"low": limits[0], "high": limits[1], "coverage": coverage, "error_rate": error_rate}
    return block


def limits_of(abstention: dict[str, Any]) -> tuple[float, float] | None:
    """low and high of calibration.json's abstention; None where no limits reach its error rate."""
    low, high = abstention.get("low"), abstention.get("high")
    return None if low is None or high is None or not np.isfinite([low, high]).all() else (low, high)

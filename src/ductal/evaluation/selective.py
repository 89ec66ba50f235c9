"""Selective prediction: how few errors are left when the unsure patches go to a person instead.

A patch's confidence is the distance of its logit from that of the threshold, which is the same order
before and after temperature scaling if the threshold moves along.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from ductal.errors import RunError
from ductal.evaluation.arrays import Floats, checked, expit, logit

NAN = float("nan")


class Abstention(NamedTuple):
    """Which patches to leave uncalled, and what the others reach.

    Attributes:
        margin: a patch is called when its confidence is at least this; nan when no margin reaches the target.
        low, high: the same as probabilities: a patch is left uncalled when ``low < p < high``.
        coverage: share of patches that are called; 0.0 when no margin reaches the target.
        error_rate: among these; nan when there are none.
    """

    margin: float
    low: float
    high: float
    coverage: float
    error_rate: float


def confidence(p: npt.ArrayLike, threshold: float) -> Floats:
    """Distance from the threshold in logits, float64 (n,): 0 is a toss-up.

    Rounded to ten decimals, so that 0.1 and 0.9 are equally far from 0.5, as they are but for floating point.

    Raises:
        RunError: the threshold is not a number.
    """
    if np.isnan(threshold):
        raise RunError("Confidence needs a threshold. Received: nan; choose one on validation patients.")
    distance: Floats = np.abs(logit(p) - logit(threshold))
    return distance.round(10)


def risk_coverage(y: npt.ArrayLike, p: npt.ArrayLike, threshold: float) -> pd.DataFrame:
    """Error rate among the most confident share of patches (El-Yaniv & Wiener 2010).

    Patches of equal confidence are called together, so there is a row for each distinct confidence.

    Args:
        y: labels, shape (n,), IDC = 1.
        p: probabilities of IDC, shape (n,).
        threshold: a patch is called IDC from this probability on.

    Returns:
        Columns confidence (the lowest that is called, falling), coverage (rising to 1) and risk (share of errors
        among those called; at coverage 1 it is the error rate). No row without patches.

    Raises:
        RunError: the threshold is nan, or as `binary_metrics`.
    """
    levels, called, errors = _counts(y, p, threshold)
    n = max(1, np.size(y))
    return pd.DataFrame({"confidence": levels, "coverage": called / n, "risk": errors / called})


def aurc(y: npt.ArrayLike, p: npt.ArrayLike, threshold: float) -> float:
    """Area under the risk-coverage curve: mean of the risk over coverages 1/n, 2/n, ..., 1 (Geifman et al. 2019).

    Within equal confidences the errors are taken as evenly spread, the mean over all orders, so the
    order of rows does not matter. If confidence says nothing about errors, it is the error rate; lower is better.

    Returns:
        The area, in [0, 1]; nan without patches.

    Raises:
        RunError: as `risk_coverage`.
    """
    _, called, errors = _counts(y, p, threshold)
    if not called.size:
        return NAN
    k = np.arange(1, called[-1] + 1)
    return float(np.mean(np.interp(k, np.append(0, called), np.append(0, errors)) / k))


def abstention_for_error(y: npt.ArrayLike, p: npt.ArrayLike, threshold: float, max_error: float) -> Abstention:
    """The smallest abstention with which at most `max_error` of the called patches are wrong.

    Choose it on validation patients. It is optimistic there: the margin was fitted to the same errors.

    Args:
        y: labels, shape (n,), IDC = 1.
        p: probabilities of IDC, shape (n,).
        threshold: a patch is called IDC from this probability on.
        max_error: in [0, 1].

    Returns:
        The margin, halfway between the least confident called patch and the next (0 when all are called).

    Raises:
        RunError: `max_error` is not in [0, 1], or as `risk_coverage`.
    """
    if not 0 <= max_error <= 1:
        raise RunError(f"The error rate to reach must be in [0, 1]. Received: {max_error}.")
    levels, called, errors = _counts(y, p, threshold)
    good = np.flatnonzero(errors <= max_error * called * (1 + 1e-12))
    if not good.size:
        return Abstention(NAN, NAN, NAN, 0.0, NAN)
    last = int(good[-1])
    margin = 0.0 if last == levels.size - 1 else float((levels[last] + levels[last + 1]) / 2)
    centre = logit(threshold)
    return Abstention(
        margin,
        float(expit(centre - margin)),
        float(expit(centre + margin)),
        float(called[last] / called[-1]),
        float(errors[last] / called[last]),
    )


def within_limits(
    y: npt.ArrayLike, p: npt.ArrayLike, threshold: float, low: float, high: float
) -> tuple[float, float]:
    """What limits chosen elsewhere leave: the share of patches called, and of wrong calls among these.

    Args:
        y: labels, shape (n,), IDC = 1.
        p: probabilities of IDC, shape (n,).
        threshold: a called patch is called IDC from this probability on.
        low, high: patches with low < p < high are not called.

    Returns:
        Both in [0, 1]; the second is nan where no patch is called.
    """
    truth, probs = np.asarray(y) == 1, np.asarray(p, dtype=np.float64)
    called = ~((probs > low) & (probs < high))
    wrong = (probs >= threshold) != truth
    return float(called.mean()), float(wrong[called].mean()) if called.any() else NAN


def _counts(
    y: npt.ArrayLike, p: npt.ArrayLike, threshold: float
) -> tuple[Floats, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Distinct confidences, falling, and how many patches, and errors, are at least as confident."""
    truth, probs = checked(y, p)
    wrong = (probs >= threshold) != truth
    levels, where, sizes = np.unique(-confidence(probs, threshold), return_inverse=True, return_counts=True)
    errors = np.bincount(where[wrong], minlength=levels.size)
    return -levels, np.cumsum(sizes), np.cumsum(errors)

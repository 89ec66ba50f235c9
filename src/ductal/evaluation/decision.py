"""Where to call a patch cancer: threshold rules, what they reach, and whether using the model pays.

Candidates of every rule are the midpoints between neighbouring distinct probabilities, which call
exactly the same patches as any other value in the gap and survive the rounding of another
engine; below the lowest and above the highest come "call all" and "call none". Choose on validation patients only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from ductal.errors import RunError
from ductal.evaluation.arrays import Bools, Floats, checked
from ductal.evaluation.metrics import best_threshold

RuleName = Literal["balanced_accuracy", "sensitivity", "cost"]
DEFAULT_SENSITIVITY = 0.95
NAN = float("nan")
_EXACT = 1e-12  # a share of 19 / 20 must reach 0.95, however that is rounded
_CALL_NONE = float(np.nextafter(np.float32(1), np.float32(2)))  # above 1 in float32, too


class OperatingPoint(NamedTuple):
    """A threshold and what it reaches; nan where undefined."""

    threshold: float
    sensitivity: float
    specificity: float


@dataclass(frozen=True)
class ThresholdRule:
    """A named way to choose the threshold.

    Attributes:
        name: "balanced_accuracy" maximises it; "sensitivity" takes the highest threshold that reaches `value`;
            "cost" minimises the expected cost where a missed cancer costs `value` times a false alarm.
        value: None for balanced accuracy, a share in (0, 1] for sensitivity, above 0 for cost.

    Raises:
        RunError: an unknown name, or a value that does not suit it.
    """

    name: RuleName = "balanced_accuracy"
    value: float | None = None

    def __post_init__(self) -> None:
        if self.name not in get_args(RuleName):
            raise RunError(
                f"There is no threshold rule {self.name!r}. Use one of {', '.join(get_args(RuleName))}."
            )
        if (self.value is None) != (self.name == "balanced_accuracy"):
            raise RunError(
                "sensitivity and cost take a value, as in sensitivity:0.95 or cost:5, and balanced_accuracy none. "
                f"Received: {self.name} with {self.value}."
            )
        if self.name == "sensitivity":
            _check_share("sensitivity", self.value)
        if self.name == "cost":
            _check_ratio(self.value)

    @classmethod
    def parse(cls, text: str) -> ThresholdRule:
        """Read "balanced_accuracy", "sensitivity" (0.95), "sensitivity:0.9" or "cost:5" ("=" does as well as ":").

        Raises:
            RunError: as the class, or the value is no number.
        """
        name, _, number = text.replace("=", ":", 1).partition(":")
        try:
            value = float(number) if number else DEFAULT_SENSITIVITY if name == "sensitivity" else None
        except ValueError as error:
            raise RunError(
                f"A threshold rule's value is a number, as in sensitivity:0.95. Received: {text!r}."
            ) from error
        return cls(name, value)  # type: ignore[arg-type]  # checked there

    def choose(self, y: npt.ArrayLike, p: npt.ArrayLike) -> float:
        """The threshold for labels and calibrated probabilities, both shape (n,).

        nan where the data lack a class that the rule needs; balanced accuracy gives 0.5 there.
        """
        if self.name == "sensitivity":
            return threshold_for_sensitivity(y, p, self.value or DEFAULT_SENSITIVITY).threshold
        if self.name == "cost":
            return threshold_for_cost(y, p, self.value or 1.0)
        return best_threshold(y, p)

    @property
    def says(self) -> str:
        """The rule in words, for `calibration.json`."""
        return {
            "balanced_accuracy": "maximises balanced accuracy on validation patients",
            "sensitivity": f"the highest that finds {self.value} of the IDC patches of validation patients",
            "cost": f"minimises the cost on validation patients, a missed IDC patch costing {self.value} times a "
            "false alarm",
        }[self.name]


def threshold_for_sensitivity(
    y: npt.ArrayLike, p: npt.ArrayLike, sensitivity: float = DEFAULT_SENSITIVITY
) -> OperatingPoint:
    """The highest threshold (of the candidates) that finds at least this share of the IDC patches.

    Args:
        y: labels, shape (n,), IDC = 1.
        p: probabilities of IDC, shape (n,).
        sensitivity: in (0, 1].

    Returns:
        The threshold and what it reaches; all nan without an IDC patch, specificity nan without another.

    Raises:
        RunError: `sensitivity` is not in (0, 1], or as `binary_metrics`.
    """
    _check_share("sensitivity", sensitivity)
    found = _candidates(*checked(y, p))
    reached = np.flatnonzero(found.sensitivity >= sensitivity - _EXACT)
    return found.at(reached[-1]) if reached.size else OperatingPoint(NAN, NAN, NAN)


def sensitivity_at_specificity(y: npt.ArrayLike, p: npt.ArrayLike, specificity: float = 0.95) -> OperatingPoint:
    """The highest sensitivity among thresholds that leave at least this share of the other patches alone.

    Args:
        y: labels, shape (n,), IDC = 1.
        p: probabilities of IDC, shape (n,).
        specificity: in (0, 1].

    Returns:
        The lowest such threshold and what it reaches (calling none, of sensitivity 0, if nothing else does);
        all nan without a patch of class 0, sensitivity nan without an IDC patch.

    Raises:
        RunError: `specificity` is not in (0, 1], or as `binary_metrics`.
    """
    _check_share("specificity", specificity)
    found = _candidates(*checked(y, p))
    reached = np.flatnonzero(found.specificity >= specificity - _EXACT)
    return found.at(reached[0]) if reached.size else OperatingPoint(NAN, NAN, NAN)


def threshold_for_cost(y: npt.ArrayLike, p: npt.ArrayLike, ratio: float) -> float:
    """The threshold with the smallest expected cost on these data; see `expected_cost`.

    Of equally good ones the closest to `bayes_threshold` is taken, which is also where it tends to
    when probabilities are calibrated.

    Args:
        y: labels, shape (n,), IDC = 1.
        p: probabilities of IDC, shape (n,).
        ratio: cost of a missed IDC patch in false alarms, above 0.

    Returns:
        The threshold; nan with one class only, where calling all or none would always be best.

    Raises:
        RunError: `ratio` is not above 0, or as `binary_metrics`.
    """
    _check_ratio(ratio)
    truth, probs = checked(y, p)
    if not 0 < truth.sum() < truth.size:
        return NAN
    found = _candidates(truth, probs)
    cost = ratio * (truth.sum() - found.tp) + found.fp
    cheapest = found.threshold[cost <= cost.min() * (1 + _EXACT)]
    return float(cheapest[np.argmin(np.abs(cheapest - bayes_threshold(ratio)))])


def bayes_threshold(ratio: float) -> float:
    """1 / (1 + ratio): the best threshold for calibrated probabilities (Elkan 2001).

    Raises:
        RunError: `ratio` is not above 0.
    """
    _check_ratio(ratio)
    return 1.0 / (1.0 + ratio)


def expected_cost(y: npt.ArrayLike, p: npt.ArrayLike, threshold: float, ratio: float) -> float:
    """(ratio x missed + false alarms) / n: cost per patch, in false alarms; nan without patches.

    Args:
        y: labels, shape (n,), IDC = 1.
        p: probabilities of IDC, shape (n,).
        threshold: a patch is called IDC from this probability on.
        ratio: cost of a missed IDC patch in false alarms, above 0.

    Raises:
        RunError: `ratio` is not above 0, or as `binary_metrics`.
    """
    _check_ratio(ratio)
    truth, probs = checked(y, p)
    called = probs >= threshold
    return float(np.mean(ratio * (truth & ~called) + (called & ~truth))) if truth.size else NAN


def decision_curve(y: npt.ArrayLike, p: npt.ArrayLike, thresholds: npt.ArrayLike | None = None) -> pd.DataFrame:
    """Net benefit over thresholds (Vickers & Elkin 2006, 10.1177/0272989X06295361).

    Who acts from probability t on takes a missed cancer to be as bad as (1 - t) / t false alarms. So
    net benefit = TP / n - FP / n x t / (1 - t): true positives per patch, less false alarms at that
    price. A model is of use at t where it is above both treating all and treating none.
    It presumes calibrated probabilities.

    Args:
        y: labels, shape (n,), IDC = 1.
        p: calibrated probabilities of IDC, shape (n,).
        thresholds: shape (m,), each in (0, 1); 0.01, 0.02, ..., 0.99 when None.

    Returns:
        Columns threshold, net_benefit, treat_all, treat_none (0); nan without patches.

    Raises:
        RunError: a threshold is not in (0, 1), or as `binary_metrics`.
    """
    truth, probs = checked(y, p)
    t = np.arange(1, 100) / 100 if thresholds is None else np.atleast_1d(np.asarray(thresholds, dtype=np.float64))
    wrong = ~((t > 0) & (t < 1))
    if wrong.any():
        raise RunError(f"Thresholds of a decision curve must be in (0, 1). Received: {t[wrong][0]}.")
    n, odds = truth.size, t / (1 - t)
    if not n:
        nothing = np.full(t.size, NAN)
        return pd.DataFrame(dict(zip(_CURVE, (t, nothing, nothing, nothing), strict=True)))
    tp = truth.sum() - np.searchsorted(np.sort(probs[truth]), t, "left")
    fp = n - truth.sum() - np.searchsorted(np.sort(probs[~truth]), t, "left")
    prevalence = truth.mean()
    benefit, treat_all = tp / n - fp / n * odds, prevalence - (1 - prevalence) * odds
    return pd.DataFrame(dict(zip(_CURVE, (t, benefit, treat_all, np.zeros(t.size)), strict=True)))


_CURVE = ("threshold", "net_benefit", "treat_all", "treat_none")


@dataclass(frozen=True)
class _Candidates:
    """Thresholds ascending, from call all to call none, and the counts each gives."""

    threshold: Floats
    tp: npt.NDArray[np.int64]
    fp: npt.NDArray[np.int64]

    @property
    def sensitivity(self) -> Floats:
        return _divided(self.tp, self.tp[0])

    @property
    def specificity(self) -> Floats:
        return _divided(self.fp[0] - self.fp, self.fp[0])

    def at(self, index: int) -> OperatingPoint:
        return OperatingPoint(
            float(self.threshold[index]), float(self.sensitivity[index]), float(self.specificity[index])
        )


def _candidates(truth: Bools, probs: Floats) -> _Candidates:
    scores, where, counts = np.unique(probs, return_inverse=True, return_counts=True)
    positives = np.bincount(where[truth], minlength=scores.size)
    upper, lower = np.append(scores, 1.0), np.append(0.0, scores)
    middle = lower + (upper - lower) / 2
    # Between adjacent floats the midpoint rounds down to `lower`, which `p >= threshold` would include.
    middle[1:] = np.where(middle[1:] > lower[1:], middle[1:], upper[1:])
    if scores.size and scores[-1] == 1.0:
        middle[-1] = _CALL_NONE
    tp = truth.sum() - np.append(0, np.cumsum(positives))
    fp = truth.size - truth.sum() - np.append(0, np.cumsum(counts - positives))
    return _Candidates(middle, tp, fp)


def _divided(part: npt.NDArray[np.int64], whole: int) -> Floats:
    return part / whole if whole else np.full(part.size, NAN)


def _check_share(what: str, value: float | None) -> None:
    if value is None or not 0 < value <= 1:
        raise RunError(f"The {what} to reach must be in (0, 1]. Received: {value}.")


def _check_ratio(ratio: float | None) -> None:
    if ratio is None or not 0 < ratio < float("inf"):
        raise RunError(f"The cost ratio must be above 0: a missed IDC patch in false alarms. Received: {ratio}.")

"""95 % intervals over patients: how far a figure could lie from what other patients would have given.

Patches of one patient resemble each other, so patches are no independent observations: an interval
that resamples them is far too narrow. Patients are drawn instead, with all their patches (the cluster
bootstrap; Field & Welsh 2007, J. R. Stat. Soc. B 69:369).

**Which interval.** Percentile intervals are too short with few clusters, and BCa does not mend it: on
simulated cohorts of 20 patients they covered 89 to 93 % instead of 95 % (docs/evaluation.md). Taken here is the
bootstrap standard error on the logit scale with a t quantile: ``logit(m) +- t(df) SE sqrt(P / (P - 1))``.
The logit keeps the limits inside 0 and 1 and makes the distribution near symmetric (for the ROC AUC see
Pepe 2003, The Statistical Evaluation of Medical Tests). ``sqrt(P / (P - 1))`` and t correct for a
variance estimated from P patients (Hesterberg 2015, Am. Stat. 69:371). The degrees of freedom are those
that the kurtosis of the patients' influence leaves (Satterthwaite 1946, Biometrics Bull. 2:110; for clustered
data Pan & Wall 2002, Stat. Med. 21:1429): a figure that hangs on a few large patients gets a wider interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit, stdtrit

from ductal.evaluation.weighted import (
    Bools,
    Floats,
    Ints,
    pair_counts,
    weighted_average_precision,
    weighted_brier,
    weighted_calls,
    weighted_means,
    weighted_roc_auc,
)

LEVEL = 0.95
REPLICATES = 2000
SEED = 20140320  # any number: it is fixed so that the same predictions give the same interval
MIN_PATIENTS = 10  # coverage was measured from here on
MAX_UNDEFINED = 0.05  # share of replicates in which a metric may be undefined
METHOD = "cluster bootstrap over patients, t interval on the logit scale"

Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Resampling:
    """Weights of the patients: as they are, each left out once, and drawn with replacement.

    Attributes:
        patients: how many there are.
        replicates: draws with replacement.
        seed: of the draws; two metrics or models on the same patients see the same draws.
        minimum: with fewer patients there is no interval; below `MIN_PATIENTS` coverage must be told beside it.
        weights: float64, shape (1 + patients + replicates, patients). Metrics are computed for all rows at
            once (`ductal.evaluation.weighted`); the first is the estimate.
    """

    patients: int
    replicates: int = REPLICATES
    seed: int = SEED
    minimum: int = MIN_PATIENTS
    weights: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        p = self.patients
        drawn = np.random.default_rng(self.seed).multinomial(p, np.full(p, 1 / max(p, 1)), self.replicates)
        weights = np.concatenate([np.ones((1, p)), 1 - np.eye(p), drawn.astype(np.float64)])
        object.__setattr__(self, "weights", weights)

    def interval(self, values: Floats, *, patches: int | None = None, rests_on: int | None = None) -> Interval | None:
        """The 95 % interval of a metric, or of a difference between metrics.

        Args:
            values: the metric for every row of `weights`, shape (1 + patients + replicates,).
            patches: given for a metric between 0 and 1, how many patches it was taken on: the interval is then
                made on the logit scale, with values of 0 and 1 moved inwards by half a patch. None for a
                difference, which has no bounds to keep.
            rests_on: patients that the metric depends on, where these are not all.

        Returns:
            (low, high), or None where it would mean nothing: fewer than `minimum` patients, a metric that
            is undefined, that one patient alone defines or that more than `MAX_UNDEFINED` of the replicates leave
            undefined, or one that no resampling changes (no mistake at all says nothing about the next patient).
        """
        p = self.patients
        if min(p, p if rests_on is None else rests_on) < self.minimum:
            return None
        estimate, left_out, drawn = values[0], values[1 : p + 1], values[p + 1 :]
        defined = drawn[np.isfinite(drawn)]
        if not np.isfinite(values[: p + 1]).all() or len(defined) < (1 - MAX_UNDEFINED) * len(drawn):
            return None
        half = None if patches is None else 0.5 / patches
        centre = _scaled(estimate, half)
        error = float(np.std(_scaled(defined, half), ddof=1)) * np.sqrt(p / (p - 1))
        if not error > 1e-12:
            return None
        reach = stdtrit(degrees_of_freedom(left_out), (1 + LEVEL) / 2) * error
        low, high = centre - reach, centre + reach
        return (float(low), float(high)) if half is None else (float(expit(low)), float(expit(high)))


def degrees_of_freedom(left_out: Floats) -> float:
    """Degrees of freedom of a variance estimated from patients of unequal influence (Satterthwaite 1946).

    The variance of a sample variance is sigma^4 (kurtosis - 1) / P for large P, and 2 sigma^4 / df for a
    multiple of chi-squared; equating them, df = 2 P / (kurtosis - 1), at most P - 1 and at least 2.

    Args:
        left_out: the metric without each patient, shape (P,): its deviations are the patients' influence.
    """
    squares = (left_out - left_out.mean()) ** 2
    if not squares.any():
        return float(max(2, len(left_out) - 1))
    kurtosis = float(np.mean(squares**2) / np.mean(squares) ** 2)
    limit = 2 * len(left_out) / (kurtosis - 1) if kurtosis > 1 else np.inf
    return float(max(2.0, min(len(left_out) - 1.0, limit)))


def resampled_metrics(
    truth: Bools,
    probs: Floats,
    called: Mapping[str, Bools],
    group: Ints,
    weights: Floats,
    stratum: Ints | None = None,
) -> dict[str, dict[str, Floats]]:
    """Every metric of `ductal.evaluation.metrics.binary_metrics` but the counts, for every set of weights.

    Args:
        truth: shape (n,).
        probs: probabilities of IDC, shape (n,).
        called: calls, shape (n,), under the name of their operating point, such as "at_0.5".
        group: each patch's patient as a column of `weights`, shape (n,).
        weights: shape (sets, patients).
        stratum: as `pair_counts`.

    Returns:
        For each operating point the metrics, each shape (sets,); those without a threshold are in all.
    """
    ranking = {
        "roc_auc": weighted_roc_auc(*pair_counts(truth, probs, group, weights.shape[1], stratum), weights),
        "average_precision": weighted_average_precision(truth, probs, group, weights, stratum),
        "brier": weighted_brier(truth, probs, group, weights),
    }
    return {name: weighted_calls(truth, calls, group, weights) | ranking for name, calls in called.items()}


def patient_intervals(
    truth: npt.ArrayLike,
    probs: npt.ArrayLike,
    called: Mapping[str, npt.ArrayLike],
    patient: npt.ArrayLike,
    each: pd.DataFrame,
    stratum: npt.ArrayLike | None = None,
) -> dict[str, Any]:
    """The block `intervals` of metrics.json.

    Patches without a patient id may be anybody's, so a set that has any gets no interval at all: it would have to
    assume that they are independent, which is what makes intervals too narrow.

    Args:
        truth, probs, called, stratum: as `resampled_metrics`.
        patient: patient ids, shape (n,); "" where unknown.
        each: metrics of each patient, one row a patient in the order of sorted ids.

    Returns:
        ``level``, ``method``, ``replicates``, ``seed``, ``minimum_patients``, ``patients`` and
        ``patches_without_patient``; ``patients_of``: for each metric the patients it rests on (those with an IDC
        patch for recall). Each operating point, and ``per_patient``, holds ``{metric: (low, high) or None}``.
    """
    ids = np.asarray(patient).astype(str)
    unknown = int((ids == "").sum())
    names, group = np.unique(ids, return_inverse=True)
    block: dict[str, Any] = {
        "level": LEVEL,
        "method": METHOD,
        "replicates": REPLICATES,
        "seed": SEED,
        "minimum_patients": MIN_PATIENTS,
        "patients": int((names != "").sum()),
        "patches_without_patient": unknown,
    }
    if unknown or len(names) < MIN_PATIENTS:
        return block | {"patients_of": {}, **{name: {} for name in called}, "per_patient": {}}
    labels = np.asarray(truth).astype(bool)
    draws = Resampling(len(names))
    found = resampled_metrics(
        labels,
        np.asarray(probs, dtype=np.float64),
        {name: np.asarray(calls).astype(bool) for name, calls in called.items()},
        group,
        draws.weights,
        None if stratum is None else np.asarray(stratum),
    )
    rests_on = patients_of(labels, group, len(names))
    for name, metrics in found.items():
        block[name] = {
            metric: draws.interval(values, patches=len(labels), rests_on=rests_on[metric])
            for metric, values in metrics.items()
        }
    columns = [metric for metric in rests_on if metric in each and metric != "prevalence"]
    means = weighted_means({metric: each[metric].to_numpy(dtype=np.float64) for metric in columns}, draws.weights)
    block["per_patient"] = {
        metric: draws.interval(values, patches=len(labels), rests_on=int(each[metric].notna().sum()))
        for metric, values in means.items()
    }
    return block | {"patients_of": rests_on}


def patients_of(truth: Bools, group: Ints, patients: int) -> dict[str, int]:
    """How many patients each metric rests on: a patient without IDC says nothing about recall."""
    with_idc = int((np.bincount(group[truth], minlength=patients) > 0).sum())
    with_other = int((np.bincount(group[~truth], minlength=patients) > 0).sum())
    both = min(with_idc, with_other)
    return {
        **dict.fromkeys(("prevalence", "accuracy", "brier"), patients),
        **dict.fromkeys(("recall", "precision", "f1", "average_precision"), with_idc),
        **dict.fromkeys(("balanced_accuracy", "roc_auc"), both),
        "specificity": with_other,
    }


def _scaled(values: Any, half: float | None) -> Any:
    return values if half is None else logit(np.clip(values, half, 1 - half))

"""Metrics of a binary classifier, over patches and over patients; IDC is class 1, the positive one.

Pure functions over arrays. A metric that the data cannot define (no positive patch, nothing
predicted positive) is ``nan``, never a silent 0 or 1, so that a mean can leave it out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ductal.errors import RunError
from ductal.evaluation.arrays import checked
from ductal.evaluation.bootstrap import patient_intervals

PATIENT_METRICS = (
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "specificity",
    "f1",
    "roc_auc",
    "average_precision",
    "brier",
)


def binary_metrics(y: npt.ArrayLike, p: npt.ArrayLike, threshold: float = 0.5) -> dict[str, float]:
    """Counts and scores of probabilities `p` against labels `y`.

    A patch is called IDC when ``p >= threshold``. Definitions follow scikit-learn, with
    ``zero_division=nan``; average precision is the step-wise sum of (R_n - R_{n-1}) P_n.

    Args:
        y: labels, shape (n,), 0 or 1.
        p: probabilities of IDC, shape (n,), in [0, 1].
        threshold: the operating point.

    Returns:
        n, prevalence, accuracy, balanced_accuracy, precision, recall, specificity, f1, roc_auc,
        average_precision, brier, tp, fp, tn, fn.

    Raises:
        RunError: shapes differ, a label is not 0 or 1, or a probability is not in [0, 1].
    """
    truth, probs = checked(y, p)
    called = probs >= threshold
    n, positives = truth.size, int(truth.sum())
    tp = int((called & truth).sum())
    fp = int(called.sum()) - tp
    fn, tn = positives - tp, n - positives - fp
    recall, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    roc_auc, average_precision = _ranking_scores(truth, probs)
    return {
        "n": n,
        "prevalence": _ratio(positives, n),
        "accuracy": _ratio(tp + tn, n),
        "balanced_accuracy": (recall + specificity) / 2,
        "precision": _ratio(tp, tp + fp),
        "recall": recall,
        "specificity": specificity,
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "roc_auc": roc_auc,
        "average_precision": average_precision,
        "brier": float(np.mean((probs - truth) ** 2)) if n else float("nan"),
        "tp": tp,
        "fp": fp,
        "tn": tn,
        "fn": fn,
    }


def per_patient_metrics(
    y: npt.ArrayLike, p: npt.ArrayLike, patient: npt.ArrayLike, threshold: float
) -> tuple[pd.DataFrame, dict[str, float]]:
    """The same metrics for each patient, and their plain means over patients (macro means).

    A patient without IDC has no recall; a metric's mean takes the patients for whom it is defined,
    and ``<metric>_patients`` says how many they are. Patches without a patient id are left out.

    Args:
        y: labels, shape (n,).
        p: probabilities of IDC, shape (n,).
        patient: patient ids, shape (n,); "" where unknown.
        threshold: the operating point.

    Returns:
        A table with one row a patient (columns `patient` and those of `binary_metrics`), sorted by
        patient, and the means: ``{"patients": count, "accuracy": ..., "accuracy_patients": ..., ...}``.

    Raises:
        RunError: as `binary_metrics`.
    """
    truth, probs = checked(y, p)
    ids = np.asarray(patient).astype(str)
    if ids.shape != truth.shape:
        raise RunError(
            f"There must be one patient id for each patch. Received: {ids.size} ids for {truth.size} patches."
        )
    names, group = np.unique(ids, return_inverse=True)
    order = np.argsort(group, kind="stable")
    ends = np.cumsum(np.bincount(group, minlength=names.size))
    rows = [
        {"patient": str(name), **binary_metrics(truth[members], probs[members], threshold)}
        for name, members in zip(names, np.split(order, ends[:-1]), strict=True)
        if name
    ]
    columns = ["patient", *binary_metrics([], [])]
    table = pd.DataFrame(rows, columns=columns)
    return table, patient_means(table)


def patient_means(table: pd.DataFrame) -> dict[str, float]:
    """Macro means of a table with one row a patient, and over how many patients each was taken."""
    means: dict[str, float] = {"patients": len(table)}
    for metric in PATIENT_METRICS:
        defined = table[metric].dropna().astype(float)
        means[metric] = float(defined.mean()) if len(defined) else float("nan")
        means[f"{metric}_patients"] = len(defined)
    return means


def best_threshold(y: npt.ArrayLike, p: npt.ArrayLike) -> float:
    """The operating point that maximises balanced accuracy; to be chosen on validation patients only.

    Candidates are the midpoints between neighbouring distinct scores. Of several equally good ones
    the closest to 0.5 is taken (the lower of two equally close).

    Args:
        y: labels, shape (n,).
        p: probabilities of IDC, shape (n,).

    Returns:
        The threshold; 0.5 when only one class or one distinct score is present, since nothing
        can be chosen then.

    Raises:
        RunError: as `binary_metrics`.
    """
    truth, probs = checked(y, p)
    scores, positives, negatives = _by_score(truth, probs)
    if scores.size < 2 or not positives.sum() or not negatives.sum():
        return 0.5
    lower, upper = scores[:-1], scores[1:]
    middle = lower + (upper - lower) / 2
    # Between adjacent floats the midpoint rounds down to `lower`, which `p >= threshold` would include.
    candidates = np.where(middle > lower, middle, upper)
    true_positives = positives.sum() - np.cumsum(positives)[:-1]
    true_negatives = np.cumsum(negatives)[:-1]
    # recall + specificity over their common denominator: integers, so ties are exact.
    quality = true_positives * negatives.sum() + true_negatives * positives.sum()
    ties = candidates[quality == quality.max()]
    return float(ties[np.argmin(np.abs(ties - 0.5))])


def evaluate_predictions(table: pd.DataFrame, threshold: float) -> dict[str, Any]:
    """The block that metrics.json holds for one part of the split.

    Args:
        table: as from `join_labels`; columns patch_id, patient, label, prob.
        threshold: the operating point chosen on validation patients.

    Returns:
        ``{"at_0.5": {...}, "at_threshold": {...}, "per_patient": {...}, "threshold": float, "intervals": {...}}``;
        `per_patient` is taken at the chosen threshold, `intervals` is as from `patient_intervals`.

    Raises:
        RunError: a patch occurs twice, or as `binary_metrics`.
    """
    _refuse_duplicates(table, "the evaluated table")
    y, p, patient = (table[name].to_numpy() for name in ("label", "prob", "patient"))
    each, means = per_patient_metrics(y, p, patient, threshold)
    # In float64, as `binary_metrics` compares: a float32 probability would round the threshold.
    scores = p.astype(np.float64)
    called = {"at_0.5": scores >= 0.5, "at_threshold": scores >= threshold}
    return {
        "at_0.5": binary_metrics(y, p, 0.5),
        "at_threshold": binary_metrics(y, p, threshold),
        "per_patient": means,
        "threshold": float(threshold),
        "intervals": patient_intervals(y, p, called, patient, each),
    }


def join_labels(predictions: pd.DataFrame, cohort_table: pd.DataFrame) -> pd.DataFrame:
    """Put each prediction beside its label by patch id, whatever the order of either table.

    Metrics are computed from this join and never from row order: a shuffled generator scored
    against unshuffled labels turns a model of accuracy 0.78 into one of 0.50.

    Args:
        predictions: columns patch_id and prob; a `label` column, when present, must agree.
        cohort_table: the cohort rows that were to be predicted (``cohort.table.iloc[rows]``), all of
            them: columns patch_id, patient, label.

    Returns:
        Columns patch_id, patient, label (int8), prob (float32), in the order of `cohort_table`.

    Raises:
        RunError: an id occurs twice in either table, a patch has no prediction, a prediction has no
            patch, or the labels that came with the predictions differ from the cohort's.
    """
    _refuse_duplicates(predictions, "the predictions")
    _refuse_duplicates(cohort_table, "the cohort")
    wanted, given = pd.Index(cohort_table["patch_id"]), pd.Index(predictions["patch_id"])
    for lacking, what in (
        (wanted.difference(given), "patches have no prediction"),
        (given.difference(wanted), "predictions are for patches outside the evaluated rows"),
    ):
        if len(lacking):
            raise RunError(
                f"{len(lacking)} {what} (first: {lacking[0]}), so metrics would cover other patches than "
                "they claim. Predict exactly the rows that are evaluated."
            )
    joined = cohort_table[["patch_id", "patient", "label"]].reset_index(drop=True)
    found = predictions.set_index("patch_id").loc[joined["patch_id"]]
    if "label" in found and not np.array_equal(found["label"].to_numpy(), joined["label"].to_numpy()):
        differing = int((found["label"].to_numpy() != joined["label"].to_numpy()).sum())
        raise RunError(
            f"{differing} predictions carry another label than the cohort has for the same patch: they "
            "come from another cohort, or from inverted classes (IDC = 1). Predict again from this cohort."
        )
    return joined.assign(
        label=joined["label"].astype("int8"), prob=found["prob"].to_numpy().astype("float32")
    )


def _refuse_duplicates(table: pd.DataFrame, what: str) -> None:
    twice = table["patch_id"][table["patch_id"].duplicated()]
    if len(twice):
        raise RunError(
            f"{len(twice)} patch ids occur more than once in {what} (first: {twice.iloc[0]}), so they would "
            "count twice. Keep one row a patch."
        )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _by_score(
    truth: npt.NDArray[np.bool_], probs: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Distinct scores ascending, and how many positives and negatives have each."""
    scores, where, counts = np.unique(probs, return_inverse=True, return_counts=True)
    positives = np.bincount(where[truth], minlength=scores.size)
    return scores, positives, counts - positives


def _ranking_scores(truth: npt.NDArray[np.bool_], probs: npt.NDArray[np.float64]) -> tuple[float, float]:
    """ROC AUC (ties count half) and average precision, from one sort."""
    _, positives, negatives = _by_score(truth, probs)
    n_positive, n_negative = int(positives.sum()), int(negatives.sum())
    if not n_positive:
        return float("nan"), float("nan")
    at_or_above = np.cumsum((positives + negatives)[::-1])[::-1]
    precision = np.cumsum(positives[::-1])[::-1] / at_or_above
    average_precision = float(np.sum(precision * positives) / n_positive)
    if not n_negative:
        return float("nan"), average_precision
    below = np.cumsum(negatives) - negatives
    # Twice the Mann-Whitney statistic is an integer: no rounding until the division.
    twice_wins = int(np.sum(positives * (2 * below + negatives)))
    return twice_wins / (2 * n_positive * n_negative), average_precision

"""Metrics in which every patient has a weight, for many sets of weights at once.

Drawing patients with replacement is giving each an integer weight; leaving one out is the weight 0;
exchanging two models' predictions of a patient is moving a weight from one to the other. So all
resampling of patients is these functions on a matrix of weights, shape (sets, patients), and a
metric is a vector, shape (sets,). Every patch carries its patient's weight, and the metrics are
those of scikit-learn with that `sample_weight`; ``nan`` where a set of weights leaves one undefined.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.intp]

# Cells (patches x sets of weights) of one block of the average precision: 4 MB stay in the cache. A row of fewer
# sets would cost more in overhead than the cache saves.
BLOCK = 1 << 19
LEAST_SETS = 8


def weighted_calls(truth: Bools, called: Bools, group: Ints, weights: Floats) -> dict[str, Floats]:
    """Metrics of yes-or-no calls: weighted sums of each patient's counts, so one matrix product.

    Args:
        truth: whether the patch is IDC, shape (n,).
        called: whether it was called IDC, shape (n,).
        group: the patch's patient as a column of `weights`, shape (n,).
        weights: shape (sets, patients), not negative.

    Returns:
        prevalence, accuracy, balanced_accuracy, precision, recall, specificity, f1; each shape (sets,).
    """
    patients = weights.shape[1]
    kinds = (truth & called, ~truth & called, ~truth & ~called, truth & ~called)
    counts = np.stack([np.bincount(group[kind], minlength=patients) for kind in kinds], axis=1)
    tp, fp, tn, fn = (weights @ counts).T
    recall, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    return {
        "prevalence": _ratio(tp + fn, tp + fp + tn + fn),
        "accuracy": _ratio(tp + tn, tp + fp + tn + fn),
        "balanced_accuracy": (recall + specificity) / 2,
        "precision": _ratio(tp, tp + fp),
        "recall": recall,
        "specificity": specificity,
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
    }


def weighted_brier(truth: Bools, probs: Floats, group: Ints, weights: Floats) -> Floats:
    """Weighted mean squared difference between probability and truth; arguments as `weighted_calls`."""
    patients = weights.shape[1]
    errors = np.bincount(group, weights=(probs - truth) ** 2, minlength=patients)
    return _ratio(weights @ errors, weights @ np.bincount(group, minlength=patients))


def pair_counts(
    truth: Bools, scores: Floats, group: Ints, patients: int, stratum: Ints | None = None
) -> tuple[Floats, Floats]:
    """How often an IDC patch of one patient outscores another patch of a second one.

    The Mann-Whitney statistic is a sum over pairs of patients, so these two matrices are all that
    the ROC AUC needs, whatever the weights.

    Args:
        truth: shape (n,).
        scores: higher means IDC, shape (n,); only their order matters.
        group: the patch's patient, 0 to patients - 1, shape (n,).
        patients: the number of patients.
        stratum: shape (n,), constant within a patient; pairs across strata (folds scored by different
            networks) are not counted. One stratum when None.

    Returns:
        (wins, pairs), each shape (patients, patients): ``wins[g, h]`` counts pairs of an IDC patch of g
        and another patch of h that the IDC patch wins, ties as a half; ``pairs[g, h]`` counts them all.
    """
    wins = np.zeros((patients, patients))
    distinct, rank = np.unique(scores, return_inverse=True)
    ascending = np.argsort(rank[truth], kind="stable")  # look-ups in order stay in the cache
    positive_rank, positive_group = rank[truth][ascending], group[truth][ascending]
    by_patient = np.argsort(group[~truth], kind="stable")
    n_positive = np.bincount(positive_group, minlength=patients)
    n_negative = np.bincount(group[~truth], minlength=patients)
    ends = np.cumsum(n_negative)
    for patient, negatives in enumerate(np.split(rank[~truth][by_patient], ends[:-1])):
        at_score = np.bincount(negatives, minlength=distinct.size)
        beaten = np.cumsum(at_score) - at_score / 2
        wins[:, patient] = np.bincount(positive_group, weights=beaten[positive_rank], minlength=patients)
    pairs = np.outer(n_positive, n_negative).astype(np.float64)
    if stratum is not None:
        of_patient = np.zeros(patients, dtype=np.intp)
        of_patient[group] = stratum
        same = of_patient[:, None] == of_patient[None, :]
        wins, pairs = wins * same, pairs * same
    return wins, pairs


def weighted_roc_auc(wins: Floats, pairs: Floats, weights: Floats) -> Floats:
    """ROC AUC, shape (sets,), from the matrices of `pair_counts`: w' wins w / w' pairs w.

    With strata this is the mean of the strata's AUC, each weighted by its number of pairs.
    """
    return _ratio(_quadratic(weights, wins), _quadratic(weights, pairs))


def weighted_average_precision(
    truth: Bools, scores: Floats, group: Ints, weights: Floats, stratum: Ints | None = None
) -> Floats:
    """Average precision, shape (sets,): the weighted mean, over IDC patches, of the precision at their score.

    One sort for all sets of weights, then cumulative sums over blocks of them. With strata, precision is
    taken within a patch's own stratum. Arguments as `pair_counts` and `weighted_calls`.
    """
    total, summed = np.zeros(len(weights)), np.zeros(len(weights))
    for members in _strata(stratum, truth.size):
        order = members[np.argsort(-scores[members], kind="stable")]
        positive = truth[order]
        total += weights @ np.bincount(group[order][positive], minlength=weights.shape[1])
        ascending = -scores[order]
        # The last place with the same score: all of a tie is called IDC together.
        end = np.searchsorted(ascending, ascending[positive], "right") - 1
        size = max(LEAST_SETS, BLOCK // max(1, order.size))
        for start in range(0, len(weights), size):
            block = weights[start : start + size].T[group[order]]  # (patches, sets)
            summed[start : start + size] += _precision_sum(block, positive, end)
    return _ratio(summed, total)


def weighted_means(values: Mapping[str, npt.ArrayLike], weights: Floats) -> dict[str, Floats]:
    """Macro means: every patient counts with their weight, and is left out where a value is ``nan``.

    Args:
        values: a metric of each patient, shape (patients,).
        weights: shape (sets, patients).
    """
    means = {}
    for name, column in values.items():
        each = np.asarray(column, dtype=np.float64)
        defined = ~np.isnan(each)
        means[name] = _ratio(weights @ np.where(defined, each, 0.0), weights @ defined.astype(np.float64))
    return means


def _precision_sum(weight: Floats, positive: Bools, end: Ints) -> Floats:
    """Sum over IDC patches of weight x precision; `weight` is (patches, sets), best score first."""
    above = np.cumsum(weight, axis=0)[end]
    hits = np.cumsum(weight[positive], axis=0)
    # Position of a patch's last tie among the IDC patches.
    hits = hits[np.cumsum(positive)[end] - 1]
    precision = np.divide(hits, above, out=np.zeros_like(hits), where=above > 0)
    found: Floats = np.einsum("ps,ps->s", weight[positive], precision)
    return found


def _strata(stratum: Ints | None, patches: int) -> list[Ints]:
    if stratum is None:
        return [np.arange(patches)]
    return [np.flatnonzero(stratum == value) for value in np.unique(stratum)]


def _quadratic(weights: Floats, matrix: Floats) -> Floats:
    found: Floats = np.einsum("sp,sp->s", weights @ matrix, weights)
    return found


def _ratio(part: Floats, whole: Floats) -> Floats:
    """part / whole, and nan where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)

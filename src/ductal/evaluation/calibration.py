"""Whether probabilities come true: of the patches called with 0.8, eight of ten should be IDC.

Pure functions over arrays; a figure that the data cannot define is ``nan``. For how probabilities are
made to come true see `ductal.evaluation.temperature`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from ductal.evaluation.arrays import CLIP, checked, patient_numbers, patient_weights
from ductal.evaluation.bins import clustered_share, design_effect, equal_mass_bins
from ductal.evaluation.bootstrap import MIN_PATIENTS, Interval, Resampling

BINS = 15


def negative_log_likelihood(y: npt.ArrayLike, p: npt.ArrayLike, patients: npt.ArrayLike | None = None) -> float:
    """Mean of -log(probability of what was true), in nats; probabilities are clipped at 1e-7.

    Args:
        y: labels, shape (n,).
        p: probabilities of IDC, shape (n,).
        patients: ids, shape (n,); where given, each patient counts the same.

    Returns:
        The mean; nan without patches.

    Raises:
        RunError: as `fit_temperature`.
    """
    truth, probs = checked(y, p)
    if not truth.size:
        return float("nan")
    clipped = np.clip(probs, CLIP, 1.0 - CLIP)
    losses = -np.log(np.where(truth, clipped, 1.0 - clipped))
    return float(np.mean(losses * patient_weights(patients, truth.size)))


def calibration_scores(y: npt.ArrayLike, p: npt.ArrayLike, *, bins: int = BINS) -> dict[str, float]:
    """How far probabilities are from what happened, over patches.

    The Brier score is reliability - resolution + uncertainty + within_bin (Murphy 1973; the last term, for
    probabilities that differ within a bin: Stephenson et al. 2008). ECE and MCE are the mean, weighted by size, and
    the maximum over bins of |mean probability - share of IDC| (Naeini et al. 2015), here over
    equal-mass bins of the probability of IDC (Nguyen & O'Connor 2015). Chance makes them larger than 0
    also for perfect probabilities: ECE by up to about
    0.4 sqrt(bins / n) with independent patches.

    Args:
        y: labels, shape (n,).
        p: probabilities of IDC, shape (n,).
        bins: of equal mass; see `equal_mass_bins` for ties.

    Returns:
        n, prevalence, mean_predicted, nll, brier, reliability, resolution, uncertainty, within_bin, ece,
        mce. With fewer patches than bins, the five figures that need bins are nan.

    Raises:
        RunError: as `binary_metrics`.
    """
    truth, probs = checked(y, p)
    nan = float("nan")
    if not truth.size:
        names = ("prevalence", "mean_predicted", "nll", "brier", "uncertainty", *_BINNED)
        return {"n": 0} | dict.fromkeys(names, nan)
    prevalence = float(truth.mean())
    scores = {
        "n": truth.size,
        "prevalence": prevalence,
        "mean_predicted": float(probs.mean()),
        "nll": negative_log_likelihood(truth, probs),
        "brier": float(np.mean((probs - truth) ** 2)),
        "uncertainty": prevalence * (1.0 - prevalence),
    }
    if truth.size < bins:
        return scores | dict.fromkeys(_BINNED, nan)
    number = equal_mass_bins(probs, bins)
    sizes = np.bincount(number)
    predicted = np.bincount(number, weights=probs) / sizes
    observed = np.bincount(number, weights=truth) / sizes
    share, gap = sizes / truth.size, np.abs(predicted - observed)
    spread, off = probs - predicted[number], truth - observed[number]
    return scores | {
        "reliability": float(share @ gap**2),
        "resolution": float(share @ (observed - prevalence) ** 2),
        "within_bin": float(np.mean(spread**2 - 2 * spread * off)),
        "ece": float(np.minimum(share @ gap, 1.0)),
        "mce": float(gap.max()),
    }


def calibration_intervals(
    y: npt.ArrayLike, p: npt.ArrayLike, patients: npt.ArrayLike, *, bins: int = BINS, minimum: int = MIN_PATIENTS
) -> dict[str, Interval | None]:
    """95 % intervals over patients (see `ductal.evaluation.bootstrap`) of ece, brier and nll.

    The bins are those of all patches; a draw of patients changes what is in them. ECE is a mean of absolute
    values, so that draws have a larger one than the data: only their spread is used.

    Args:
        y: labels, shape (n,).
        p: probabilities of IDC, shape (n,).
        patients: ids, shape (n,).
        bins: of equal mass.
        minimum: as `Resampling`.

    Returns:
        For each figure (low, high); None with too few patients, with fewer patches than bins, or where a patch's
        patient is unknown.

    Raises:
        RunError: as `fit_temperature`.
    """
    truth, probs = checked(y, p)
    ids = np.asarray(patients).astype(str)
    names, group = np.unique(ids, return_inverse=True)
    if truth.size < bins or (ids == "").any() or len(names) < minimum:
        return dict.fromkeys(("ece", "brier", "nll"))
    draws = Resampling(len(names), minimum=minimum)
    number = equal_mass_bins(probs, bins)
    off = np.zeros((len(names), int(number.max()) + 1))
    np.add.at(off, (group, number), probs - truth)
    clipped = np.clip(probs, CLIP, 1.0 - CLIP)
    per_patch = {"brier": (probs - truth) ** 2, "nll": -np.log(np.where(truth, clipped, 1.0 - clipped))}
    sizes = draws.weights @ np.bincount(group)
    values = {"ece": np.abs(draws.weights @ off).sum(axis=1) / sizes} | {
        name: (draws.weights @ np.bincount(group, weights=each)) / sizes for name, each in per_patch.items()
    }
    return {  # the log loss has no upper bound
        name: draws.interval(found, patches=None if name == "nll" else truth.size) for name, found in values.items()
    }


def reliability_table(
    y: npt.ArrayLike, p: npt.ArrayLike, patients: npt.ArrayLike | None = None, *, bins: int = BINS
) -> pd.DataFrame:
    """What a reliability diagram shows: one row for each equal-mass bin, lowest first.

    Args:
        y: labels, shape (n,).
        p: probabilities of IDC, shape (n,).
        patients: ids, shape (n,); None takes patches as independent, which makes intervals too narrow.
        bins: at most this many.

    Returns:
        Columns lowest, highest, predicted (mean probability), observed (share of IDC), low and high (its
        95 % interval, see `clustered_share`, with a design effect not below the bins' median; nan with one
        patient), n, patients.

    Raises:
        RunError: as `fit_temperature`.
    """
    truth, probs = checked(y, p)
    numbers = patient_numbers(patients, truth.size)
    number = equal_mass_bins(probs, bins)
    bin_members = [number == k for k in np.unique(number)]
    effects = [design_effect(truth[members], numbers[members]) for members in bin_members]
    # A bin with next to no hits says nothing of its own; its patches are as alike as those of other bins.
    typical = float(np.nanmedian(effects)) if np.isfinite(effects).any() else None
    rows = []
    for members in bin_members:
        observed, low, high = clustered_share(truth[members], numbers[members], least_effect=typical)
        inside = probs[members]
        rows.append((inside.min(), inside.max(), inside.mean(), observed, low, high, inside.size,
                     np.unique(numbers[members]).size))  # fmt: skip
    return pd.DataFrame(rows, columns=["lowest", "highest", "predicted", "observed", "low", "high", "n", "patients"])


_BINNED = ("reliability", "resolution", "within_bin", "ece", "mce")

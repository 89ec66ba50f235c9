"""Equal-mass bins, and the share of something within a bin with an interval that knows of patients."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from ductal.evaluation.arrays import Ints, patient_numbers


class Share(NamedTuple):
    """A share and its confidence interval; nan where undefined."""

    value: float
    low: float
    high: float


def equal_mass_bins(values: npt.ArrayLike, bins: int) -> Ints:
    """Number each value's bin so that bins hold about the same number of values, shape (n,).

    Equal values share a bin, that of their middle rank, so the result does not depend on the order of
    rows. Where many are equal, bins are uneven and there are fewer of them; none is empty.

    Args:
        values: shape (n,), not nan.
        bins: how many are wanted.

    Returns:
        0 for the lowest bin and so on, without gaps; distinct values get at most `bins` of them.
    """
    _, where, sizes = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    if not where.size:
        return np.empty(0, dtype=np.intp)
    below = np.cumsum(sizes) - sizes
    wanted = bins * (2 * below + sizes) // (2 * where.size)  # integers: no rounding at a border
    return np.unique(wanted, return_inverse=True)[1][where]


def clustered_share(
    hit: npt.ArrayLike,
    patients: npt.ArrayLike | None = None,
    *,
    level: float = 0.95,
    least_effect: float | None = None,
) -> Share:
    """The share of hits, with a Wilson interval on the effective number of patches.

    Patches of one patient are alike, so n of them tell less than n independent ones would: n is divided by
    the `design_effect`, and Wilson's formula (1927) takes the quotient, with Student's t at one
    degree of freedom less than there are patients (as Korn & Graubard 1998 adjust Clopper-Pearson's).
    Where every patch is a hit, or none, the effect cannot be seen, and patients are counted instead of
    patches, unless `least_effect` says better.

    Args:
        hit: shape (n,), bool.
        patients: ids, shape (n,), "" where unknown; None, or all unknown, treats patches as independent,
            which gives too narrow an interval where they come from the same patients.
        level: of confidence.
        least_effect: the design effect is taken to be no smaller; from similar data with more hits.

    Returns:
        The share, and nan for the interval with fewer than two patients.

    Raises:
        RunError: there is not one id for each patch.
    """
    hits = np.asarray(hit, dtype=np.float64)
    n = hits.size
    groups = np.unique(patient_numbers(patients, n)).size
    if not n:
        return Share(float("nan"), float("nan"), float("nan"))
    share = float(hits.mean())
    if groups < 2:
        return Share(share, float("nan"), float("nan"))
    if groups == n:
        return Share(share, *_wilson(share, n, float(stats.norm.ppf(0.5 + level / 2))))
    effect = design_effect(hits, patients)
    if np.isnan(effect):
        effect = n / groups if least_effect is None else least_effect
    effect = max(effect, least_effect or 1.0)
    return Share(share, *_wilson(share, n / effect, float(stats.t.ppf(0.5 + level / 2, groups - 1))))


def design_effect(hit: npt.ArrayLike, patients: npt.ArrayLike | None) -> float:
    """How many times the variance of a share over patients is that over as many independent patches.

    The variance between patients is the ratio estimator's of cluster sampling (Cochran 1977, ch. 3).

    Args:
        hit: shape (n,), bool.
        patients: ids, shape (n,), "" where unknown.

    Returns:
        The effect, about 1 where patches are independent; nan where all or none are hits, or with
        fewer than two patients.

    Raises:
        RunError: there is not one id for each patch.
    """
    hits = np.asarray(hit, dtype=np.float64)
    n = hits.size
    numbers = np.unique(patient_numbers(patients, n), return_inverse=True)[1]
    sizes = np.bincount(numbers)
    groups, share = sizes.size, float(hits.mean()) if n else 0.0
    if groups < 2 or share in (0.0, 1.0):
        return float("nan")
    residuals = np.bincount(numbers, weights=hits) - share * sizes
    return float(groups / (groups - 1) * np.sum(residuals**2) / (n * share * (1.0 - share)))


def _wilson(share: float, n: float, quantile: float) -> tuple[float, float]:
    square = quantile**2 / n
    middle = (share + square / 2) / (1 + square)
    half = np.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    # At a share of 0 or 1 the border is exactly that; rounding would leave it a hair inside.
    return float(min(share, max(0.0, middle - half))), float(max(share, min(1.0, middle + half)))

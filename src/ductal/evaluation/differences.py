"""Whether two models differ on the same patches: paired by patch, clustered by patient.

Two questions, two answers. How large is the difference: an interval, from drawing patients for both models at
once (`ductal.evaluation.bootstrap`). Could it be chance: a permutation test. If the models are alike, it does not
matter which of the two scored a patient, so their predictions are exchanged patient by patient, and the observed
difference is placed among those that such exchanges give (for paired ROC curves: Venkatraman & Begg 1996,
Biometrika 83:835; Bandos, Rockette & Gur 2005, Stat. Med. 24:2873). Two models use the scale from 0 to 1
differently, so their scores are replaced by ranks before they are exchanged; the ROC AUC is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from ductal.errors import RunError
from ductal.evaluation.bootstrap import Interval, Resampling, patients_of
from ductal.evaluation.weighted import Bools, Floats, Ints, pair_counts, weighted_calls, weighted_roc_auc

COMPARED = ("roc_auc", "balanced_accuracy")
PERMUTATIONS = 4999
ALPHA = 0.05


@dataclass(frozen=True)
class Difference:
    """One metric of a model less that of another.

    Attributes:
        value: the difference on these patients.
        interval: 95 % interval over patients; None where there are too few.
        p: two-sided p value of the permutation test, as it is or corrected by `holm`.
    """

    value: float
    interval: Interval | None
    p: float

    @property
    def real(self) -> bool:
        """Whether chance is an unlikely explanation: p below 0.05."""
        return self.p < ALPHA


@dataclass(frozen=True, eq=False)
class Patches:
    """The patches that all compared models scored, in one order.

    Attributes:
        truth: shape (n,), bool.
        group: each patch's patient, 0 to patients - 1, shape (n,).
        patients: how many there are.
        stratum: the fold, shape (n,), where several networks scored a part each; one when None.
    """

    truth: Bools
    group: Ints
    patients: int
    stratum: Ints | None = None


@dataclass(frozen=True, eq=False)
class Scored:
    """A model's scores, shape (n,), float64, and its calls at its own threshold, shape (n,), bool."""

    scores: Floats
    called: Bools


def resampled(patches: Patches, model: Scored, draws: Resampling) -> dict[str, Floats]:
    """The `COMPARED` metrics of a model for all weights of `draws`, each shape (1 + patients + replicates,)."""
    return _compared(patches, model, draws.weights)


def difference(
    patches: Patches,
    first: Scored,
    second: Scored,
    draws: Resampling,
    metrics: tuple[dict[str, Floats], dict[str, Floats]] | None = None,
    *,
    permutations: int = PERMUTATIONS,
) -> dict[str, Difference]:
    """`first` less `second`, for ROC AUC and for balanced accuracy at each one's own threshold.

    Args:
        patches: what both have scored.
        first, second: the models.
        draws: patients drawn; the same for all pairs of a table.
        metrics: `resampled` of both, where it was computed already.
        permutations: exchanges of patients' predictions; seeded by `draws.seed`.

    Raises:
        RunError: the models have not scored exactly these patches.
    """
    for model in (first, second):
        if not model.scores.shape == model.called.shape == patches.truth.shape:
            raise RunError(
                "Two models can be compared on the same patches only. Received: "
                f"{model.scores.size} scores and {model.called.size} calls for {patches.truth.size} patches."
            )
    of_first, of_second = metrics or (resampled(patches, first, draws), resampled(patches, second, draws))
    chance = exchanged(patches, first, second, permutations, draws.seed)
    rests_on = patients_of(patches.truth, patches.group, patches.patients)
    found = {}
    for name in COMPARED:
        values = of_first[name] - of_second[name]
        interval = draws.interval(values, rests_on=rests_on[name])
        found[name] = Difference(float(values[0]), interval, p_value(values[0], chance[name]))
    return found


def holm(p: npt.ArrayLike) -> Floats:
    """p values corrected for their number by Holm's step-down procedure (1979, Scand. J. Stat. 6:65).

    The k-th smallest of m is multiplied by m - k + 1, and none may fall below a smaller one. The chance of
    any false "real" among the m is then below 0.05, whatever the tests' dependence.

    Args:
        p: shape (m,); ``nan`` (no test) is kept and not counted.

    Returns:
        Shape (m,), float64, at most 1.
    """
    values = np.asarray(p, dtype=np.float64)
    corrected = np.full(values.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    corrected[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(order.size, 0, -1)))
    return corrected


def corrected(pairs: Sequence[dict[str, Difference]]) -> list[dict[str, Difference]]:
    """The same differences with p values corrected (`holm`) for all tests of all pairs together."""
    flat = holm([each.p for pair in pairs for each in pair.values()])
    after = iter(flat.tolist())
    return [
        {name: Difference(each.value, each.interval, next(after)) for name, each in pair.items()} for pair in pairs
    ]


def _compared(patches: Patches, model: Scored, weights: Floats) -> dict[str, Floats]:
    wins, pairs = pair_counts(patches.truth, model.scores, patches.group, patches.patients, patches.stratum)
    calls = weighted_calls(patches.truth, model.called, patches.group, weights)
    return {
        "roc_auc": weighted_roc_auc(wins, pairs, weights),
        "balanced_accuracy": calls["balanced_accuracy"],
    }


def exchanged(
    patches: Patches, first: Scored, second: Scored, permutations: int, seed: int
) -> dict[str, Floats]:
    """Differences after exchanging the models' predictions of random patients, each shape (permutations,).

    The same `seed` and number of patients exchange the same patients.

    Every patient is there twice, as scored by `first` and by `second`; an exchange is a choice of weights 0 and 1.
    """
    p = patches.patients
    both = Patches(
        np.tile(patches.truth, 2),
        np.concatenate([patches.group, patches.group + p]),
        2 * p,
        None if patches.stratum is None else np.tile(patches.stratum, 2),
    )
    scores = np.concatenate([_ranks(model.scores, patches.stratum) for model in (first, second)])
    stacked = Scored(scores, np.concatenate([first.called, second.called]))
    kept = np.random.default_rng(seed).integers(0, 2, (permutations, p)).astype(np.float64)
    weights = np.concatenate([np.hstack([kept, 1 - kept]), np.hstack([1 - kept, kept])])
    found = _compared(both, stacked, weights)
    return {name: values[:permutations] - values[permutations:] for name, values in found.items()}


def _ranks(scores: Floats, stratum: Ints | None) -> Floats:
    ranks = np.empty(scores.shape)
    for rows in [np.arange(scores.size)] if stratum is None else [stratum == k for k in np.unique(stratum)]:
        ranks[rows] = rankdata(scores[rows])
    return ranks


def p_value(observed: float, chance: Floats) -> float:
    """Of an observed difference among those by chance, two-sided.

    The observed exchange (none) counts as one, so p is never 0 (Phipson & Smyth 2010).
    """
    if not (np.isfinite(observed) and np.isfinite(chance).all()):
        return float("nan")
    # Sums in another order differ in their last digits.
    at_least = int((np.abs(chance) >= abs(observed) - 1e-12).sum())
    return (1 + at_least) / (1 + chance.size)

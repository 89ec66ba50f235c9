"""By how much the best of many trials looks better than it is, from the validation predictions of all of them.

The largest of many noisy figures is partly luck. Bootstrap bias corrected cross-validation (Tsamardinos, Greasidou &
Borboudakis 2018, Mach. Learn. 107:1895) repeats the choice without training anything: patients are drawn with
replacement, the trial with the best figure on them is chosen, and its figure on the patients that were not drawn is
noted. The mean of these is the figure that such a choice can expect on other patients like these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ductal.evaluation.weighted import pair_counts, weighted_roc_auc

DRAWS = 1000
SEED = 20180809  # any number: it is fixed so that the same predictions give the same figure


@dataclass(frozen=True)
class Optimism:
    """What choosing the best trial adds to its figure.

    Attributes:
        shown: ROC AUC of the best trial on all validation patients.
        expected: what the choice gives on patients that had no part in it.
        trials, patients: how many there were to choose from, and to choose on.
    """

    shown: float
    expected: float
    trials: int
    patients: int


def selection_optimism(
    truth: npt.ArrayLike, probs: Sequence[npt.ArrayLike], patient: npt.ArrayLike, *, draws: int = DRAWS
) -> Optimism:
    """Repeat the choice among trials on drawn patients; see above.

    Each trial's own epoch was kept on the same patients, which this does not correct.

    Args:
        truth: labels, shape (n,).
        probs: of each trial, shape (n,).
        patient: ids, shape (n,).
        draws: how often patients are drawn; draws whose in or out part lacks a class are left out.
    """
    labels = np.asarray(truth).astype(bool)
    names, group = np.unique(np.asarray(patient).astype(str), return_inverse=True)
    count = len(names)
    drawn = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), draws).astype(np.float64)
    left = (drawn == 0).astype(np.float64)
    every = np.ones((1, count))
    inside, outside, whole = [], [], []
    for scores in probs:
        wins, pairs = pair_counts(labels, np.asarray(scores, np.float64), group, count)
        inside.append(weighted_roc_auc(wins, pairs, drawn))
        outside.append(weighted_roc_auc(wins, pairs, left))
        whole.append(weighted_roc_auc(wins, pairs, every)[0])
    seen, unseen = np.stack(inside), np.stack(outside)  # (trials, draws)
    usable = np.isfinite(seen).all(axis=0) & np.isfinite(unseen).all(axis=0)
    chosen = seen[:, usable].argmax(axis=0)
    expected = float(np.take_along_axis(unseen[:, usable], chosen[None], axis=0).mean()) if usable.any() else np.nan
    return Optimism(float(max(whole)), float(expected), len(seen), count)

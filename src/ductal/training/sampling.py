"""How often each training patch is drawn in an epoch: once, or so that classes, or patients too, count the same."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

MOST_DRAWS = 4.0  # of one patch in an epoch: a patient with a single patch of a class is not learned by heart
_STREAM = 0x73616D


class Expected(NamedTuple):
    """How often each training patch is to be drawn in an epoch, which has as many places as there are patches.

    Attributes:
        draws: float64 (n,) with sum n.
        stratum: int64 (n,), patches of one class and patient in "patients", of one class in "classes".
    """

    draws: np.ndarray
    stratum: np.ndarray


def expected_draws(
    sampling: Literal["patches", "classes", "patients"], labels: np.ndarray, patients: np.ndarray
) -> Expected | None:
    """How an epoch is to be made up.

    "classes": both classes fill half of the places, and patches of a class are alike. "patients": within a class,
    too, each patient fills the same number of places, as far as no patch is drawn more than `MOST_DRAWS` times; what
    patients with few patches leave goes to the others in the same way.

    Args:
        labels: int (n,), 1 = IDC; both classes occur.
        patients: str (n,).

    Returns:
        None for "patches", which are drawn once each.
    """
    if sampling == "patches":
        return None
    expected, stratum = np.empty(len(labels)), np.empty(len(labels), np.int64)
    for label in (0, 1):
        rows = np.flatnonzero(labels == label)
        places = len(labels) / 2
        groups = patients[rows] if sampling == "patients" else np.zeros(len(rows), np.int64)
        _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        expected[rows] = (_evenly(places, sizes) / sizes)[group]
        stratum[rows] = group + label * len(labels)
    return Expected(expected, stratum)


def _evenly(places: float, sizes: np.ndarray) -> np.ndarray:
    """`places` for groups of patches of these `sizes`: the same for each, within what the group can fill."""
    room = sizes * max(MOST_DRAWS, places / sizes.sum())
    given = np.zeros(len(sizes))
    for position, group in enumerate(order := np.argsort(room, kind="stable")):
        given[group] = min(room[group], (places - given.sum()) / (len(order) - position))
    return given


def draw_epoch(expected: Expected, seed: int, epoch: int) -> np.ndarray:
    """The patches of one epoch, int64 (n,), sorted; patches, strata and classes occur as expected, within one.

    Systematic sampling along an order that is random within each stratum: n marks at equal distances on a line on
    which each patch has the length it is expected to be drawn.
    """
    n = len(expected.draws)
    rng = np.random.default_rng([seed, epoch, _STREAM])
    order = rng.permutation(n)
    order = order[np.argsort(expected.stratum[order], kind="stable")]
    ends = np.cumsum(expected.draws[order])
    marks = (np.arange(n) + rng.random()) * (ends[-1] / n)
    return np.sort(order[np.searchsorted(ends, marks, side="right").clip(max=n - 1)])

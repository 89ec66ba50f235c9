"""What lies around each patch on the slide that its patient's patches rebuild."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from ductal.evaluation.arrays import Bools, Floats

PITCH_PX = 50  # patches lie side by side at multiples of their size
# A whole slide's patches have 5 to 8 of 8 neighbours in the median, those drawn from a slide mostly 0 or 1.
DENSE = 4


def surroundings(table: pd.DataFrame) -> pd.DataFrame:
    """Neighbours, and the distance to where the class changes, of each patch.

    Distances are Chebyshev's, in patches: 1 for the eight neighbours. A distance is only taken where the
    patient's patches make up a slide (in the median at least 4 of 8 neighbours are there); on
    a sample of patches it would be far too long. A patch that was never cut or is in quarantine is no neighbour.

    Args:
        table: all patches of the patients concerned: columns patient ("" unknown), x, y (-1 unknown), label.

    Returns:
        In the order and with the index of `table`: change_distance (float: 1, 2, ...; inf where the slide
        has one class only; nan where the place or the slide is unknown), neighbours (how many of the
        patches around it are there; 0 also where the place is unknown), positive_neighbours (IDC among them).
    """
    distance = np.full(len(table), np.nan)
    neighbours, positive = np.zeros(len(table), np.int64), np.zeros(len(table), np.int64)
    xy = table[["x", "y"]].to_numpy(np.float64)
    label = table["label"].to_numpy() == 1
    patient = table["patient"].to_numpy(dtype=str)
    known = np.flatnonzero((xy >= 0).all(axis=1) & (patient != ""))
    order = known[np.argsort(patient[known], kind="stable")]
    starts = np.flatnonzero(patient[order][1:] != patient[order][:-1]) + 1
    for rows in np.split(order, starts) if order.size else []:
        neighbours[rows], positive[rows] = _neighbours(xy[rows], label[rows])
        if np.median(neighbours[rows]) >= DENSE:
            distance[rows] = _change_distance(xy[rows], label[rows])
    return pd.DataFrame(
        {"change_distance": distance, "neighbours": neighbours, "positive_neighbours": positive},
        index=table.index,
    )


def _neighbours(xy: Floats, label: Bools) -> tuple[np.ndarray, np.ndarray]:
    """How many patches touch each one, and how many of these are IDC."""
    pairs = cKDTree(xy).query_pairs(PITCH_PX, p=np.inf, output_type="ndarray")
    one, other = np.concatenate([pairs, pairs[:, ::-1]]).T
    return np.bincount(one, minlength=len(xy)), np.bincount(one[label[other]], minlength=len(xy))


def _change_distance(xy: Floats, label: Bools) -> Floats:
    distance = np.full(len(xy), np.inf)
    if label.any() and not label.all():
        for own in (label, ~label):
            distance[own] = cKDTree(xy[~own]).query(xy[own], p=np.inf)[0]
    # Patches off the grid touch, or overlap, at less than one pitch.
    return np.maximum(1.0, np.ceil(distance / PITCH_PX))

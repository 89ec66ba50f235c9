"""What a network is trained towards: labels, smoothed or not, the loss, and metrics where labels are shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from ductal.data.cohort import Cohort
from ductal.evaluation.grid import surroundings
from ductal.training.recipe import Recipe

AROUND = 8  # places around a patch on the grid


def training_labels(cohort: Cohort, rows: np.ndarray, smoothing: float) -> np.ndarray:
    """Labels of training patches, moved towards the other class where their neighbours on the slide are of it.

    Labels are a pathologist's outlines cut into squares, so that they are least certain at the border. Where s of the
    8 places around a patch hold a patch of the other class, its label moves by `smoothing` * s / 8. A patch that is
    not there does not disagree.

    Args:
        cohort: the patches; neighbours are of the same patient, so that no split is crossed.
        rows: int64 (n,), of training patches.
        smoothing: how far a label moves whose 8 neighbours are all of the other class, below 0.5.

    Returns:
        float32 (n,).
    """
    labels = cohort.labels[rows].astype(np.float32)
    if not smoothing:
        return labels
    around = surroundings(cohort.table).iloc[rows]
    positive = around["positive_neighbours"].to_numpy()
    other = np.where(labels == 1, around["neighbours"].to_numpy() - positive, positive)
    moved = np.float32(smoothing) * np.minimum(other, AROUND).astype(np.float32) / AROUND
    return np.abs(labels - moved)


def make_loss(recipe: Recipe) -> Any:
    """Binary cross-entropy; with `focal_gamma` the focal loss (Lin et al. 2017, arXiv 1708.02002)."""
    if recipe.focal_gamma:
        return keras.losses.BinaryFocalCrossentropy(gamma=recipe.focal_gamma, label_smoothing=recipe.label_smoothing)
    return keras.losses.BinaryCrossentropy(label_smoothing=recipe.label_smoothing)


def on_nearest_class(metrics: list[Any]) -> list[Any]:
    """The same Keras metrics, told the class a smoothed label is nearest to: any label above 0 would count as 1."""
    for metric in metrics:
        metric.update_state = _of_class(metric.update_state)
    return metrics


def _of_class(update: Callable[..., Any]) -> Callable[..., Any]:
    def of_class(y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return update(keras.ops.cast(y_true > 0.5, "float32"), y_pred, sample_weight)

    return of_class

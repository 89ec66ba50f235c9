"""Simulated patients whose patches resemble each other, with the true value of every metric."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

# Standard deviation of a patient's score level and of their cancer's distance; mean distance; operating point.
LEVEL_SD, DISTANCE_SD, DISTANCE, THRESHOLD = 0.6, 0.5, 1.8, 0.7
PREVALENCE = 1.2 / 4.2


def draw(patients: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth (bool), scores and patient number of each patch: 10 to 59 patches a patient, prevalence beta(1.2, 3)."""
    group = np.repeat(np.arange(patients), rng.integers(10, 60, patients))
    truth = rng.random(len(group)) < rng.beta(1.2, 3, patients)[group]
    level, distance = rng.normal(0, LEVEL_SD, patients), rng.normal(DISTANCE, DISTANCE_SD, patients)
    scores = level[group] + truth * distance[group] + rng.normal(size=len(group))
    return truth, scores, group


def true_values() -> dict[str, float]:
    """What infinitely many patients would give."""
    other, cancer = np.sqrt(1 + LEVEL_SD**2), np.sqrt(1 + LEVEL_SD**2 + DISTANCE_SD**2)
    recall = float(norm.sf((THRESHOLD - DISTANCE) / cancer))
    specificity = float(norm.cdf(THRESHOLD / other))
    hits, alarms = PREVALENCE * recall, (1 - PREVALENCE) * (1 - specificity)
    return {
        "recall": recall,
        "specificity": specificity,
        "balanced_accuracy": (recall + specificity) / 2,
        "precision": hits / (hits + alarms),
        "f1": 2 * hits / (hits + alarms + PREVALENCE),
        "roc_auc": float(norm.cdf(DISTANCE / np.hypot(other, cancer))),
    }

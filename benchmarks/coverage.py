"""How often the 95 % intervals over patients hold the truth, on simulated cohorts whose truth is known by formula.

    python benchmarks/coverage.py [--cohorts 2000] [--draws 1000] [--seed 2014] [--patients 10 15 20 30 49]

The cohorts are those of `tests/evaluation/clusters.py`: patches of a patient resemble each other. An interval that is
not made, for want of patients with a class, does not count. Prints a Markdown table, in per cent.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.integrate import trapezoid
from scipy.stats import norm

from ductal.evaluation.bootstrap import Resampling, patients_of, resampled_metrics

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "evaluation"))
import clusters

METRICS = ("recall", "specificity", "balanced_accuracy", "precision", "f1", "roc_auc", "average_precision")
HEADER = "| patients | recall | specificity | balanced accuracy | precision | F1 | ROC AUC | average precision |"


def true_average_precision() -> float:
    """Of infinitely many patches: the mean, over scores of IDC, of the precision there."""
    other, cancer = np.hypot(1, clusters.LEVEL_SD), np.sqrt(1 + clusters.LEVEL_SD**2 + clusters.DISTANCE_SD**2)
    at = np.linspace(-12, 14, 200_001)
    hits = clusters.PREVALENCE * norm.sf(at, clusters.DISTANCE, cancer)
    alarms = (1 - clusters.PREVALENCE) * norm.sf(at, 0, other)
    return float(trapezoid(norm.pdf(at, clusters.DISTANCE, cancer) * hits / (hits + alarms), at))


def coverage(patients: int, cohorts: int, draws: Resampling, rng: np.random.Generator) -> dict[str, float]:
    """The share of intervals that hold the truth, in per cent."""
    true = clusters.true_values() | {"average_precision": true_average_precision()}
    held: dict[str, list[bool]] = {name: [] for name in METRICS}
    for _ in range(cohorts):
        truth, scores, group = clusters.draw(patients, rng)
        called = {"at": scores >= clusters.THRESHOLD}
        found = resampled_metrics(truth, scores, called, group, draws.weights)["at"]
        rests_on = patients_of(truth, group, patients)
        for name in METRICS:
            interval = draws.interval(found[name], patches=len(truth), rests_on=rests_on[name])
            if interval is not None:
                held[name].append(bool(interval[0] <= true[name] <= interval[1]))
    return {name: 100 * float(np.mean(one)) for name, one in held.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", type=int, default=2000)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=2014)
    parser.add_argument("--patients", type=int, nargs="+", default=[10, 15, 20, 30, 49])
    options = parser.parse_args(arguments)
    print(HEADER + "\n|" + "---:|" * (1 + len(METRICS)))
    for patients in options.patients:
        rng = np.random.default_rng([options.seed, patients])
        found = coverage(patients, options.cohorts, Resampling(patients, options.draws), rng)
        print("| " + " | ".join([str(patients), *(f"{found[name]:.1f}" for name in METRICS)]) + " |", flush=True)


if __name__ == "__main__":
    main()

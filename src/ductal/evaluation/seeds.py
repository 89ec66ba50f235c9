"""One recipe trained with several seeds: the range of what chance in training alone does to its figures.

A patient interval says what other patients would change, and takes the trained network as given. What another seed
would have given is seen only by training again, so runs that differ in nothing but their seed are shown as lowest,
mean and highest. With a handful of runs that is all they can say: it is a range, not an interval.
"""

from __future__ import annotations

import pandas as pd

RANGED = ("roc_auc", "balanced_accuracy", "f1", "average_precision")


def seed_ranges(rows: pd.DataFrame) -> pd.DataFrame:
    """The spread of each recipe that was trained more than once.

    Args:
        rows: as from `ductal.evaluation.compare.leaderboard`: `settings` is equal for runs that differ in their
            `seed` only. A seed that occurs twice is counted once, with its better-placed run.

    Returns:
        One row a recipe with two seeds or more, in the order of `rows`: name, seeds (such as "1, 2, 3"), runs, and
        for each metric of RANGED ``<metric>_min``, ``_mean`` and ``_max``. Empty where there is none.
    """
    found = []
    for _, group in rows[~rows["control"].astype(bool)].groupby("settings", sort=False):
        runs = group.dropna(subset="seed").drop_duplicates("seed")
        if len(runs) < 2:
            continue
        row = {
            "name": runs["recipe"].iloc[0],
            "seeds": ", ".join(str(seed) for seed in sorted(runs["seed"].astype(int))),
            "runs": len(runs),
        }
        for metric in RANGED:
            values = runs[metric]
            row |= {f"{metric}_min": values.min(), f"{metric}_mean": values.mean(), f"{metric}_max": values.max()}
        found.append(row)
    columns = ["name", "seeds", "runs", *(f"{metric}_{end}" for metric in RANGED for end in ("min", "mean", "max"))]
    return pd.DataFrame(found, columns=columns)

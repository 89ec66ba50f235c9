"""How many patients and patches are in the parts of the studies in docs/results.md.

    python benchmarks/parts.py COHORT SPLIT.json [--inner-fold K/N, with seed 42] [--limit-per-class N]

COHORT is a prepared cohort. Prints one JSON object: of each part patients, patches, the share of IDC, and how many
patches its two largest patients have together, and how many the limit for a class of each patient leaves.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ductal.data.cohort import Cohort
from ductal.data.inner import inner_splits
from ductal.data.split import PARTS, load_split


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("split", type=Path)
    parser.add_argument("--inner-fold")
    parser.add_argument("--limit-per-class", type=int)
    given = parser.parse_args()
    cohort = Cohort.open(given.cohort)
    split = load_split(given.split, cohort)
    if given.inner_fold:
        fold, folds = map(int, given.inner_fold.split("/"))
        split = inner_splits(cohort, split, folds, 42, divided=("train", "val"))[fold]
    part_of = split.part_of_rows(cohort)
    told = {}
    for number, part in enumerate(PARTS):
        rows = cohort.table[part_of == number]
        sizes = rows.groupby("patient", observed=True).size().sort_values(ascending=False)
        of_class = rows.groupby(["patient", "label"], observed=True).size()
        told[part] = {
            "patients": len(sizes),
            "patches": len(rows),
            "idc": float(rows["label"].mean()),
            "of_two_largest": int(sizes.head(2).sum()),
            "limited": int(of_class.clip(upper=given.limit_per_class).sum()),
        }
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()

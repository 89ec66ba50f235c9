"""Where a run fails, written into its folder: tables, figures, and lists of patches to look at."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd

from ductal.data.cohort import Cohort
from ductal.data.stain import stain_densities
from ductal.errors import RunError
from ductal.evaluation import failures, figures_failures
from ductal.files import atomic_file

FOLDER = "failures"
COUNTS = ("n", "patients", "errors", "fn", "fp", "neighbours")  # columns of whole numbers
_WORDS = ("patch_id", "patient", "stain", "group", "distance")  # columns of text, in whatever table
_NEEDED: dict[str, set[str]] = defaultdict(set, patients={"patient", "n", "errors"})  # columns, by table
# File below FOLDER, its heading in the report, and what to look for in it.
TABLES: tuple[tuple[str, str, str], ...] = (
    ("patients", "By patient", "The patients with the most wrong patches first; error share is their part of all "
     "errors."),
    ("distance", "By distance from the border of the tumour", "Distance from the nearest patch of the other class, "
     "on patients whose patches make up a slide. Next to the border a patch holds both tissues and its label is a "
     "matter of where the outline was drawn; errors far from it are the model's own."),
    ("stain", "By stain", "Patches in five groups of equal size, from the palest to the darkest. Stain differs "
     "between patients and tissues, so a difference is a lead, not a cause."),
    ("mistakes", "The most confident mistakes", "Wrong calls that the model was surest of."),
    ("suspects", "Labels to check: the model and the neighbours against the label", "Called against their label with "
     "high confidence, and most of the neighbouring patches have the class that was called (agreeing: their share). "
     "To look at, not to delete: a lone focus of tumour looks the same from here."),
    ("suspects_alone", "Labels to check: the model alone against the label", "Called against their label with high "
     "confidence, where too few neighbours are known to say anything. These may as well be mistakes of the model."),
)  # fmt: skip


def write_failures(folder: Path, predictions: pd.DataFrame, cohort: Cohort, threshold: float) -> None:
    """Write `failures/<table>.csv` and two figures for one part's predictions.

    Args:
        folder: the run folder; its figures go to `figures/`.
        predictions: columns patch_id and prob.
        cohort: the cohort they come from.
        threshold: a patch is called IDC from this probability on.

    Raises:
        RunError: as `ductal.evaluation.failures.place`. StorageError: the disk refused the write.
    """
    table = failures.place(predictions, cohort.table)
    rows = pd.Index(cohort.table["patch_id"]).get_indexer(table["patch_id"])
    densities = stain_densities(cohort.view(rows))
    suspects = failures.label_suspects(table, threshold)
    supported = suspects["agreeing"].notna()
    found = {
        "patients": failures.errors_by_patient(table, threshold),
        "distance": failures.errors_by_distance(table, threshold),
        "stain": failures.errors_by_stain(table, threshold, densities),
        "mistakes": failures.confident_mistakes(table, threshold),
        # Apart, since those that nothing but the model speaks for are many and would bury the others.
        "suspects": suspects[supported],
        "suspects_alone": suspects[~supported].drop(columns="agreeing"),
    }
    for name, _, _ in TABLES:
        with atomic_file(folder / FOLDER / f"{name}.csv") as temporary:
            found[name].to_csv(temporary, index=False)
    drawn = folder / "figures"
    if len(found["distance"]):  # none where no slide can be rebuilt
        figures_failures.errors_by_distance(found["distance"], drawn / "errors_by_distance.png")
    figures_failures.errors_by_stain(found["stain"], drawn / "errors_by_stain.png")


def read_failures(folder: Path) -> dict[str, pd.DataFrame]:
    """What `write_failures` wrote, by table; those that are missing (runs of an older version) are left out.

    Raises:
        RunError: a table is damaged.
    """
    files = {name: folder / FOLDER / f"{name}.csv" for name, _, _ in TABLES}
    return {name: _read(path) for name, path in files.items() if path.is_file()}


def _read(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(_WORDS, str))
        if missing := sorted(_NEEDED[path.stem] - set(table)):
            raise ValueError(f"it lacks the column {missing[0]}")
        for name in table.columns.difference(list(_WORDS)):
            if not (pd.api.types.is_numeric_dtype(table[name]) or table[name].isna().all()):
                raise ValueError(f"the column {str(name)[:50]!r} does not hold numbers alone")
            if name in COUNTS and np.isinf(table[name].to_numpy(np.float64)).any():
                raise ValueError(f"the column {name} counts without end")
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({type(error).__name__}: {error}). Evaluate the run again.") from error
    return table

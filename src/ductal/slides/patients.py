"""The patients of a run whose slides can be put together: where the run knows them from, and their probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ductal.data.cohort import Cohort
from ductal.data.split import PARTS, Split
from ductal.errors import DataError, HeldOutError, RunError
from ductal.inference.predictor import Predictor, read_settings
from ductal.loading.records import read_table

UNLISTED = ""
Progress = Callable[[int, int], None]

ROLE_WORDS = {
    "train": "trained on: figures mean nothing",
    "val": "validation patient",
    "test": "test patient",
    UNLISTED: "in no part of the run's split",
}


class RunProbabilities:
    """Calibrated probabilities of patches by one run: those it has saved, and others computed when asked for.

    Args:
        run_folder: a finished run.
        cohort: whose patches are asked for.
        split: the run's.

    Attributes:
        settings: threshold, temperature, bias and d4 of the run.
        roles: of each patient of the cohort, by id: "train", "val", "test", or "" for those in no part.
        cross_fitted: whether validation patients trained some of the run's networks (see `Split.cross_fitted`).
        saved: patients whose patches the run has predicted already, all of them.

    Raises:
        RunError: not a finished run. DataError: the patients of the cohort are unknown.
    """

    def __init__(self, run_folder: str | Path, cohort: Cohort, split: Split) -> None:
        if not cohort.info.has_patients or split.by != "patient":
            raise DataError(
                f"The patients of the cohort {cohort.info.name!r} are unknown, so no slide can be put together. "
                "Use a cohort whose files have genuine names: <patient>_idx5_x<X>_y<Y>_class<C>.png."
            )
        self.folder, self.cohort, self.cross_fitted = Path(run_folder), cohort, split.cross_fitted
        self.settings = read_settings(self.folder)
        parts = split.part_of_rows(cohort)
        patient = cohort.table["patient"]
        first = ~patient.duplicated().to_numpy()
        names = (*PARTS, UNLISTED)  # -1 is the last
        self.roles = {name: names[part] for name, part in zip(patient[first], parts[first], strict=True) if name}
        self._saved = _saved_probabilities(self.folder, cohort)
        whole = pd.Series(np.isfinite(self._saved)).groupby(patient.to_numpy()).all()
        self.saved = tuple(name for name in whole.index[whole] if name)
        self._predictor: Predictor | None = None

    def rows(self, patient: str) -> np.ndarray:
        """Rows of the cohort's table, int64 (n,). Raises DataError where it has no such patient."""
        found = np.flatnonzero((self.cohort.table["patient"] == patient).to_numpy())
        if not len(found) or not patient:
            known = ", ".join(list(self.roles)[:8])
            raise DataError(
                f"The cohort {self.cohort.info.name!r} has no patient {patient!r}. Patients are named as the folders "
                f"of the archive, such as {known}."
            )
        return found

    def of(self, patients: Sequence[str], progress: Progress | None = None) -> dict[str, np.ndarray]:
        """Calibrated probabilities, float32 (n,), of all patches of each patient, in the order of `rows`.

        Raises:
            DataError: an unknown patient.
            HeldOutError: a test patient that the final evaluation has not opened.
            RunError: a validation patient of a cross-fitted ensemble whose probabilities are not all saved.
        """
        rows = {patient: self.rows(patient) for patient in patients}
        missing = [patient for patient in patients if patient not in self.saved]
        closed = [patient for patient in missing if self.roles[patient] == "test"]
        if closed:
            raise HeldOutError(
                f"{', '.join(closed)}: test patients, which are opened by the final evaluation only. "
                f"Run `ductal evaluate {self.folder}` first; it counts the opening."
            )
        mixed = [patient for patient in missing if self.cross_fitted and self.roles[patient] == "val"]
        if mixed:
            raise RunError(
                f"{', '.join(mixed)} trained some networks of this cross-fitted ensemble, and not all patches have a "
                f"saved probability by the others. Make it anew with this cohort: ductal ensemble."
            )
        found = {patient: self._saved[rows[patient]] for patient in patients if patient not in missing}
        if missing:
            wanted = np.concatenate([rows[patient] for patient in missing])
            if self._predictor is None:
                self._predictor = Predictor.from_run(self.folder, exact=True)  # as the final evaluation
            probs = self._predictor.predict(self.cohort.pixels, wanted, progress=progress)
            ends = np.cumsum([len(rows[patient]) for patient in missing])[:-1]
            found |= dict(zip(missing, np.split(probs, ends), strict=True))
        return found


def _saved_probabilities(folder: Path, cohort: Cohort) -> np.ndarray:
    """float32 (N,) for the cohort's patches, nan where the run's predictions do not have one."""
    found = np.full(len(cohort), np.nan, np.float32)
    ids = pd.Index(cohort.table["patch_id"])
    for file in sorted((folder / "predictions").glob("*.parquet")):
        try:
            table = read_table(file, ["patch_id", "label", "prob"])
        except (OSError, ValueError) as error:
            raise RunError(f"{file} cannot be read ({error}). Evaluate the run again.") from error
        at = ids.get_indexer(table["patch_id"])
        same = at >= 0
        same[same] = cohort.labels[at[same]] == table["label"].to_numpy()[same]
        found[at[same]] = table["prob"].to_numpy(np.float32)[same]
    return found

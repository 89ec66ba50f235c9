"""A finished run as its folder tells it, read without TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from ductal.errors import RunError
from ductal.loading.links import refuse_links
from ductal.loading.records import read_json, read_table
from ductal.loading.schema import check_run

Part = Literal["val", "test"]
PART_WORDS = {"val": "validation", "test": "test"}


@dataclass(frozen=True)
class RunRecord:
    """A finished run as its folder tells it.

    Attributes:
        folder: the run folder.
        run: run.json.
        metrics: metrics.json; a block for "val" and, where test patients were opened, "test".
        history: history.csv; None for a control model and an ensemble.
    """

    folder: Path
    run: dict[str, Any]
    metrics: dict[str, Any]
    history: pd.DataFrame | None

    @property
    def name(self) -> str:
        """The recipe's or control's name."""
        return str(self.run["name"])

    @property
    def title(self) -> str:
        """One line that says what it is."""
        return str(self.run.get("recipe", {}).get("title") or self.name)

    @property
    def control(self) -> bool:
        """Whether it is a control model."""
        return bool(self.run.get("control", False))

    @property
    def synthetic(self) -> bool:
        """Whether the patches were drawn by a program."""
        return bool(self.run["cohort"].get("synthetic"))

    @property
    def calibration(self) -> dict[str, Any]:
        """calibration.json; {} for a control model and for pooled folds, whose folds have one each."""
        path = self.folder / "calibration.json"
        if self.pooled or not path.is_file():
            return {}
        return _read_json(path, "so the run is not whole: train it again")

    @property
    def pooled(self) -> bool:
        """Whether it stands for several runs, of a fold each."""
        return False

    @property
    def parts(self) -> list[Part]:
        """The parts of the split it was evaluated on, validation first."""
        return [part for part in ("val", "test") if part in self.metrics]

    def predictions(self, part: Part) -> pd.DataFrame:
        """What the model said of every patch of one part.

        Returns:
            Columns patch_id, patient, label, prob; `threshold`, from which on a patch is called IDC; and `fold`,
            which is 0 unless folds were pooled.

        Raises:
            RunError: they cannot be read.
        """
        path = self.folder / "predictions" / f"{part}.parquet"
        try:
            table = read_table(path, ["patch_id", "patient", "label", "prob"])
            if not table["label"].isin((0, 1)).all() or not table["prob"].between(0.0, 1.0).all():
                raise ValueError("a label is not 0 or 1, or a probability not between them")
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"{path} cannot be read ({error}). Evaluate the run again.") from error
        return table.assign(threshold=float(self.metrics[part]["threshold"]), fold=0)


def load_run(folder: str | Path, *, evaluated: bool = True) -> RunRecord:
    """Read a finished run; with `evaluated` False also one that has no metrics.json yet, whose metrics are {}.

    Raises:
        RunError: the folder is missing, is no run, was not evaluated, lacks a file or holds a link.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RunError(f"There is no run folder {folder}. Name a folder below runs/.")
    refuse_links(folder)
    run = _read_json(folder / "run.json", "so this is no finished run: train it again")
    measured = evaluated or (folder / "metrics.json").is_file()
    otherwise = "so the run was not evaluated: run `ductal evaluate` on it"
    metrics = _read_json(folder / "metrics.json", otherwise) if measured else {}
    try:
        check_run(run, metrics if measured else None)
    except RunError as error:
        raise RunError(f"{folder} holds no complete run ({error}). Evaluate it again, or train it again.") from error
    untrained = run.get("control") or run.get("ensemble")
    record = RunRecord(folder, run, metrics, None if untrained else _read_history(folder))
    for part in record.parts:
        if not (folder / "predictions" / f"{part}.parquet").is_file():
            raise RunError(f"{folder} lacks the predictions for the {part} part. Evaluate the run again.")
    return record


def _read_json(path: Path, otherwise: str) -> dict[str, Any]:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({type(error).__name__}), {otherwise}.") from error


def _read_history(folder: Path) -> pd.DataFrame:
    path = folder / "history.csv"
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({type(error).__name__}): train the run again.") from error

"""A run as its folder tells it, read without TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from ductal.errors import RunError
from ductal.loading.links import refuse_links
from ductal.loading.records import read_json, read_table
from ductal.loading.schema import check_calibration, check_run, check_trained

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
        return {} if self.pooled or not path.is_file() else read_calibration(self.folder)

    @property
    def pooled(self) -> bool:
        """Whether it stands for several runs, of a fold each."""
        return False

    @property
    def parts(self) -> list[Part]:
        """The parts of the split it was evaluated on, validation first."""
        return [part for part in ("val", "test") if self.metrics.get(part)]

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
            _check_names(table)
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"{path} cannot be read ({error}). Evaluate the run again.") from error
        return table.assign(threshold=float(self.metrics[part]["threshold"]), fold=0)


def load_run(folder: str | Path, *, evaluated: bool = True) -> RunRecord:
    """Read a finished run; with `evaluated` False also one that has no metrics.json yet, whose metrics are {}.

    Raises:
        RunError: the folder is missing, is no run, was not evaluated or not to the end, lacks a file or holds a link.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RunError(f"There is no run folder {folder}. Name a folder below runs/.")
    refuse_links(folder)
    run = _read_json(folder / "run.json", "so this is no finished run: train it again")
    measured = evaluated or (folder / "metrics.json").is_file()
    otherwise = "so the run was not evaluated, or not to the end: run `ductal evaluate` on it"
    metrics = _read_json(folder / "metrics.json", otherwise) if measured else {}
    try:
        check_run(run, metrics if measured else None)
    except RunError as error:
        raise RunError(f"{folder} holds no complete run ({error}). Evaluate it again, or train it again.") from error
    untrained = run.get("control") or run.get("ensemble")
    record = RunRecord(folder, run, metrics, None if untrained else read_history(folder))
    for part in record.parts:
        if not (folder / "predictions" / f"{part}.parquet").is_file():
            raise RunError(f"{folder} lacks the predictions for the {part} part. Evaluate the run again.")
    return record


@dataclass(frozen=True)
class TrainedRun:
    """What the final evaluation needs of a run.

    Attributes:
        run: run.json.
        calibration: calibration.json.
        history: history.csv; None for an ensemble.
    """

    run: dict[str, Any]
    calibration: dict[str, Any]
    history: pd.DataFrame | None


def read_trained(folder: Path) -> TrainedRun:
    """What the final evaluation needs of a run, all of it checked: no patient is looked at for a run that is damaged.

    Raises:
        RunError: not a trained run, a damaged one, or one that holds a link.
    """
    refuse_links(folder)
    run = _read_json(folder / "run.json", "so this is not a run folder: name a folder under runs/")
    try:
        check_trained(run)
    except RunError as error:
        raise RunError(f"{folder / 'run.json'} is not whole ({error}). Train the run again.") from error
    return TrainedRun(run, read_calibration(folder), None if run.get("ensemble") else read_history(folder))


def read_calibration(folder: Path) -> dict[str, Any]:
    """calibration.json of a run. Raises RunError where it is missing or damaged."""
    path = folder / "calibration.json"
    found = _read_json(path, "so the run is not whole: train it again")
    try:
        check_calibration(found)
    except RunError as error:
        raise RunError(f"{path} is not whole ({error}). Train the run again.") from error
    return found


def read_history(folder: Path) -> pd.DataFrame:
    """history.csv of a run: `epoch`, and a figure or a mark of each epoch in every other column but `stage`.

    Raises:
        RunError: it is missing, empty or damaged.
    """
    path = folder / "history.csv"
    try:
        table = pd.read_csv(path)
        kinds = table.drop(columns="stage", errors="ignore").dtypes
        if not len(table) or "epoch" not in table or not pd.api.types.is_integer_dtype(table["epoch"]):
            raise ValueError("no numbered epoch")
        odd = [name for name, kind in kinds.items() if not pd.api.types.is_numeric_dtype(kind)]
        if odd:
            raise ValueError(f"the column {str(odd[0])[:50]!r} does not hold numbers alone")
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({type(error).__name__}: {error}). Train the run again.") from error
    return table


def _check_names(table: pd.DataFrame) -> None:
    """Raises ValueError where a patch has no name, or another one's."""
    for name in ("patch_id", "patient"):
        if not pd.api.types.is_string_dtype(table[name]) or table[name].isna().any():
            raise ValueError(f"the column {name} does not hold text alone")
    if not len(table) or table["patch_id"].duplicated().any():
        raise ValueError("it holds no patch, or one twice")


def _read_json(path: Path, otherwise: str) -> dict[str, Any]:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({type(error).__name__}), {otherwise}.") from error

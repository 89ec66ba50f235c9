"""The trackers of one training: told of its settings, every epoch and its end, and never in its way.

Whatever a tracker raises (a server that is away, a full disk) is one warning, and training goes on. Settings, figures
and digests go out; names of patients, patches, folders and users do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from ductal.tracking.options import Tracking

# What `describe_data` says of the cohort and may leave the machine.
_COHORT = ("fingerprint", "synthetic", "n_patches", "n_patients", "n_positive", "spacing_um")
_LONGEST = 500  # of a value, as MLflow allows


class Tracker(Protocol):
    """One of them. All methods may raise."""

    name: str

    def begin(self, title: str, params: Mapping[str, str], *, resumed: bool) -> None:
        """The training begins, or goes on."""

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Figures after `step` epochs."""

    def close(self, outcome: str) -> None:
        """The end: "FINISHED", "FAILED" or "KILLED"."""

    def record(self) -> Any:
        """What `run.json` says of it, so that it can be found again."""


class Trackers:
    """All trackers of one training. Use as a context manager.

    Args:
        trackers: who is told.
        warn: shows one line, once for each of them.
    """

    def __init__(self, trackers: list[Tracker], warn: Callable[[str], None]) -> None:
        self._trackers, self._warn = trackers, warn
        self._warned: set[str] = set()

    def __enter__(self) -> Trackers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        killed = kind is not None and not issubclass(kind, Exception)
        outcome = "KILLED" if killed else "FAILED" if kind is not None else "FINISHED"
        self._each(lambda tracker: tracker.close(outcome))

    def begin(self, title: str, params: Mapping[str, str], *, resumed: bool) -> None:
        """See `Tracker.begin`."""
        self._each(lambda tracker: tracker.begin(title, params, resumed=resumed))

    def epoch(self, row: Mapping[str, Any]) -> None:
        """A finished row of the history. Whether it is the best is known when its stage is over."""
        figures = {key: value for key, value in row.items() if key not in ("epoch", "stage", "best")}
        self.log(figures, int(row["epoch"]))

    def log(self, figures: Mapping[str, Any], step: int) -> None:
        """Those of `figures` that are finite numbers, after `step` epochs."""
        numbers = {key: float(value) for key, value in figures.items() if _is_number(value)}
        self._each(lambda tracker: tracker.log(numbers, step))

    def record(self) -> dict[str, Any]:
        """What `run.json` keeps: {} without trackers."""
        return {tracker.name: tracker.record() for tracker in self._trackers}

    def _each(self, tell: Callable[[Tracker], None]) -> None:
        for tracker in self._trackers:
            try:
                tell(tracker)
            except Exception as error:  # any: no tracker is worth a training
                if tracker.name not in self._warned:
                    self._warned.add(tracker.name)
                    reason = f"{type(error).__name__}: {str(error)[:200]}"
                    self._warn(f"{tracker.name} is not told of this training for now ({reason}). Training goes on.")


def open_trackers(
    tracking: Tracking, name: str, state: Path, key: str, warn: Callable[[str], None]
) -> Trackers:
    """The trackers that `tracking` names.

    Args:
        tracking: what the user asked for.
        name: of the run folder.
        state: a folder that lives until the training is whole, for what a resumed training must know.
        key: of this very training; what another has left in `state` does not count.
        warn: see `Trackers`.
    """
    found: list[Tracker] = []
    if "tensorboard" in tracking.kinds:
        from ductal.tracking.tensorboard import TensorBoard

        found.append(TensorBoard(tracking.folder / name))
    if "mlflow" in tracking.kinds:
        from ductal.tracking.mlflow import MLflow, RunFile

        found.append(MLflow(tracking.uri, tracking.experiment, RunFile(state / "mlflow.run", key)))
    return Trackers(found, warn)


def track_evaluation(tracking: Tracking, run_folder: Path, warn: Callable[[str], None]) -> None:
    """Add the final figures of an evaluated run to what its training has told."""
    from ductal.loading.records import read_json

    try:
        run, metrics = read_json(run_folder / "run.json"), read_json(run_folder / "metrics.json")
    except (OSError, ValueError):  # its own reader has said so
        return
    known = run.get("tracking") or {}
    found: list[Tracker] = []
    if "tensorboard" in tracking.kinds:
        from ductal.tracking.tensorboard import TensorBoard

        found.append(TensorBoard(tracking.folder / run_folder.name))
    if "mlflow" in tracking.kinds and not known.get("mlflow"):
        warn(f"mlflow is not told of the evaluation: it has no run of the training of {run_folder.name}.")
    elif "mlflow" in tracking.kinds:
        from ductal.tracking.mlflow import MLflow

        found.append(MLflow(tracking.uri, tracking.experiment, run_id=str(known["mlflow"])))
    with Trackers(found, warn) as trackers:
        for part in ("val", "test"):
            found_there = metrics.get(part) or {}
            figures = (found_there.get("at_threshold") or {}) | {"threshold": found_there.get("threshold")}
            trackers.log({f"final_{part}_{key}": value for key, value in figures.items()}, 0)


def params_of(record: Mapping[str, Any]) -> dict[str, str]:
    """The settings in a run's record, flat, as text; nothing that names a patient, a file or a user.

    Text that the user wrote goes out as it is: names and title of recipe, stages and split, and an encoder's output.
    """
    recipe = dict(record["recipe"])
    if recipe.get("encoder"):
        called = {key: value for key, value in recipe["encoder"].items() if key != "file"}
        recipe["encoder"] = called | {"sha256": record["weights"].rpartition("SHA-256 ")[2]}
    cohort = {name: record["cohort"].get(name) for name in _COHORT}
    others = {name: record.get(name) for name in ("seed", "profile", "precision", "device", "versions")}
    split = {"id": record["split"]["id"], "name": record["split"]["name"]}
    return _flat(recipe | {"cohort": cohort, "split": split} | others)


def _flat(settings: Mapping[str, Any], before: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            value = {str(number): one for number, one in enumerate(value)}
        if isinstance(value, Mapping):
            found |= _flat(value, f"{before}{key}.")
        elif value is not None:
            found[f"{before}{key}"] = str(value)[:_LONGEST]
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float) and math.isfinite(value)

"""One trial: a recipe trained in a process of its own, and the figure of its kept epoch on validation patients."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ductal.errors import RunError
from ductal.inference.encoder import ENCODER_FOLDER
from ductal.training.isolated import train_isolated
from ductal.training.recipe import Monitor, Recipe
from ductal.tune.patients import Audited, Patients

Report = Callable[[int, float], None]  # (step from 1, best value until then); may raise to end the trial


@dataclass(frozen=True)
class Bench:
    """What the trials of a study have in common.

    Attributes:
        patients: what they may look at.
        metric: a column of history.csv, see `better`.
        seed: of weights, order and augmentation, the same for all, so that recipes alone differ.
        features: folder of the activations of frozen layers, shared by all trials.
        weights_file: ImageNet weights of one's own.
    """

    patients: Patients
    metric: Monitor
    seed: int
    features: Path
    weights_file: Path | None


class LostTrialError(Exception):
    """What ran a trial elsewhere is no more, which is not the trial's fault: it is to be repeated. Says why."""


RunTrial = Callable[[Bench, Recipe, Path, Report], float]


def better(metric: Monitor) -> Callable[..., float]:
    """`max`, or `min` where a low value is good."""
    return min if metric == "val_loss" else max


def run_trial(bench: Bench, recipe: Recipe, folder: Path, report: Report) -> float:
    """Train `recipe` for every part of `bench.patients.choosing`; returns the mean of the figures.

    `folder` keeps the record, the history and the validation predictions of each training; the weights are deleted.
    With one part `report` is told of every epoch, with several (inner folds) of every fold.

    Raises:
        DuctalError: the training failed, or its process was killed. Whatever `report` raises.
    """
    parts, values = bench.patients.choosing, list[float]()
    alone = len(parts) == 1
    for number, (part, place) in enumerate(zip(parts, places_of(bench, folder), strict=True)):
        values.append(train_part(bench, recipe, part, place, report if alone else None))
        delete_network(place)
        if not alone:
            report(number + 1, sum(values) / len(values))
    return sum(values) / len(values)


def delete_network(folder: Path) -> None:
    """Delete the largest part of a run, which a study has no use for."""
    (folder / "model.keras").unlink()
    shutil.rmtree(folder / ENCODER_FOLDER, ignore_errors=True)


def places_of(bench: Bench, folder: Path) -> list[Path]:
    """The run folder of each training of the trial in `folder`: itself, or one a fold."""
    count = len(bench.patients.choosing)
    return [folder] if count == 1 else [folder / f"fold{number}" for number in range(count)]


def train_part(bench: Bench, recipe: Recipe, part: Audited, folder: Path, report: Report | None = None) -> float:
    """Train `recipe` on one split into the run folder `folder`; returns the figure of the kept epoch."""
    best: list[float] = []

    def on_epoch(row: dict[str, Any]) -> None:
        value = float(row[bench.metric])
        best[:] = [better(bench.metric)(best[0], value)] if best else [value]
        if report:
            report(int(row["epoch"]), best[0])

    train_isolated(
        recipe, bench.patients.cohort.folder, part.split, folder,
        audit=part.audit, seed=bench.seed, profile="full", weights_file=bench.weights_file, final=False,
        features_folder=bench.features, fresh=True, fingerprint=bench.patients.cohort.info.fingerprint,
        on_epoch=on_epoch,
    )  # fmt: skip
    return kept_value(folder, bench.metric)


def kept_value(folder: Path, metric: Monitor) -> float:
    """The figure of the epoch whose weights a run kept.

    Raises:
        RunError: the history cannot be read.
    """
    try:
        history = pd.read_csv(folder / "history.csv")
        return float(history.loc[history["best"], metric].iloc[-1])
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise RunError(f"{folder / 'history.csv'} cannot be read ({error}). Run the trial again.") from error

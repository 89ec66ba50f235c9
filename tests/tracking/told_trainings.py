"""Small trainings that trackers are told of."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from small_training import small_recipe, stage

from ductal.tracking.options import Tracking
from ductal.training.progress import TrainingProgress

RECIPE = small_recipe(stage("head", epochs=3))
EXPERIMENT = "patches"


def told(tmp_path: Path, *kinds: str, uri: str = "http://127.0.0.1:9") -> Tracking:
    return Tracking(kinds, tmp_path / "tensorboard", uri, EXPERIMENT)


def same_run(one: Path, two: Path) -> bool:
    """Whether two runs have the same history, but for the clock, and the same predictions."""
    clock = ["seconds", "images_per_second"]
    histories = [pd.read_csv(run / "history.csv").drop(columns=clock) for run in (one, two)]
    probs = [pd.read_parquet(run / "predictions" / "val.parquet")["prob"] for run in (one, two)]
    return histories[0].equals(histories[1]) and probs[0].equals(probs[1])


class Interrupted(KeyboardInterrupt):
    pass


def stopping(after: int) -> TrainingProgress:
    """Progress that interrupts the training after that epoch."""

    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == after:
            raise Interrupted

    return TrainingProgress("small", Console(file=io.StringIO(), width=300), stop)


def output(progress: TrainingProgress) -> str:
    assert isinstance(progress.console.file, io.StringIO)
    return progress.console.file.getvalue()

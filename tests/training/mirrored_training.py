"""Run by `test_devices`: trainings on two logical CPU devices, in a process of its own; prints findings as JSON."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pytest  # noqa: E402
from rich.console import Console  # noqa: E402
from small_training import easy, small_recipe, stage, train_small  # noqa: E402

from ductal.data.cohort import Cohort  # noqa: E402
from ductal.data.splitting import make_split  # noqa: E402
from ductal.errors import RecipeError  # noqa: E402
from ductal.inference.engines import load_keras  # noqa: E402
from ductal.training import devices, resume, trainer  # noqa: E402
from ductal.training.precision import Choice  # noqa: E402
from ductal.training.progress import TrainingProgress  # noqa: E402


class Interrupted(KeyboardInterrupt):
    pass


def interrupted(after: int) -> TrainingProgress:
    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == after:
            raise Interrupted

    return TrainingProgress("small", Console(file=io.StringIO(), width=300), stop)


def facts(run: Path) -> dict[str, Any]:
    record = json.loads((run / "run.json").read_text())
    history = pd.read_csv(run / "history.csv")
    columns = ("loss", "accuracy", "val_loss", "val_auc")
    xla = record["precision_choice"]["xla"]
    return {"device": record["device"], "xla": xla, "history": {name: history[name].tolist() for name in columns}}


def difference(one: Path, two: Path) -> float:
    """The largest between the weights of two runs."""
    pairs = zip(*(load_keras(run / "model.keras").get_weights() for run in (one, two)), strict=True)
    return max(float(abs(a - b).max()) for a, b in pairs)


def refused(recipe: Any, gpus: int) -> str:
    try:
        devices.mirrored(gpus, recipe)
    except RecipeError as error:
        return str(error)
    return ""


def main(cohort_folder: Path, out: Path) -> None:
    cohort = easy(Cohort.open(cohort_folder))
    split = make_split(cohort, "random", seed=1)
    n = len(split.rows(cohort, "train"))
    assert n % 32 not in (0, 31)  # the last batch is a smaller one
    watch = {"early_stopping": {"monitor": "val_loss"}}
    recipe = small_recipe(
        stage("head", **watch), stage("all", "all", 2, 3e-3, **watch), cached_views=1,
        class_weights=True, batch_size=32, ema=0.9,
    )  # fmt: skip
    found: dict[str, Any] = {"n": n, "none": devices.mirrored(None, recipe) is None}
    found["no GPU"] = refused(recipe, 2)
    devices.visible_devices = lambda: ["CPU:0", "CPU:1"]
    found["too many"], found["uneven"] = refused(recipe, 3), refused(small_recipe(batch_size=33), 2)
    found["one"] = devices.mirrored(1, recipe) is None
    with pytest.MonkeyPatch.context() as patch:
        single = train_small(recipe, cohort, split, out / "single")
        patch.setattr(trainer, "choose_precision", lambda *_, **__: Choice("float32", True, {}, "probe, cached"))
        double = train_small(recipe, cohort, split, out / "double", gpus=2)
        found |= {"single": facts(single), "double": facts(double), "difference": difference(single, double)}
        patch.setattr(resume, "SECONDS_BETWEEN", 0.0)  # checkpoints within epochs
        with pytest.raises(Interrupted):
            train_small(recipe, cohort, split, out / "resumed", gpus=2, progress=interrupted(3))
        resumed = train_small(recipe, cohort, split, out / "resumed", gpus=2)
        found |= {"resumed": facts(resumed), "of resumed": difference(double, resumed)}
        found["continued"] = json.loads((resumed / "run.json").read_text())["continued_after"]
    patches = cohort.pixels[:8]
    probs = [np.asarray(load_keras(run / "model.keras").predict_on_batch(patches)) for run in (single, double)]
    found["shapes"] = [list(each.shape) for each in probs]
    found["files"] = sorted(path.relative_to(double).as_posix() for path in double.rglob("*") if path.is_file())
    found["same files"] = found["files"] == sorted(
        path.relative_to(single).as_posix() for path in single.rglob("*") if path.is_file()
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

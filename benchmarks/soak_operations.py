"""The commands that `soak.py` kills, what they read, and what of their results must be equal."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from run_digest import digest_of

from ductal.data.store import prepare
from ductal.data.synthetic import make_synthetic
from ductal.slides.synthetic_slide import write_synthetic_slide

RECIPE = """
name = "{name}"
title = "{name}, for the soak"
backbone = "VGG16"
weights = "{weights}"
input_px = 32
batch_size = 16
precision = "{precision}"
cached_views = {views}
[head]
dropout = 0.3
[augment]
stain = 0.1
[[stages]]
name = "first"
unfreeze = {first}
epochs = {epochs}
learning_rate = 1e-4
"""
SECOND_STAGE = """
[[stages]]
name = "second"
unfreeze = {second}
epochs = {epochs}
learning_rate = 1e-4
"""
SPACE = """
["stages.0.learning_rate"]
type = "float"
low = 1e-5
high = 1e-3
log = true
["head.dropout"]
type = "float"
low = 0.0
high = 0.5
"""
TRIALS = 2


@dataclass(frozen=True)
class Operation:
    """A command, what of the folder it writes to is there when it has ended, and what of that must be equal.

    What is there must be complete at any moment; it may be one file among others.
    """

    arguments: Callable[[Path, Path], list[str]]  # of the folder with the inputs and the one to write to
    result: str
    digest: Callable[[Path], dict[str, str]]


def _training(name: str) -> Operation:
    def arguments(inputs: Path, out: Path) -> list[str]:
        return ["train", str(inputs / f"{name}.toml"), "--cohort", str(inputs / "cohort"), "--out", str(out)]

    return Operation(arguments, f"runs/{name}", digest_of)


def _tuning(inputs: Path, out: Path) -> list[str]:
    return [
        "tune", str(inputs / "cohort"), "--recipe", str(inputs / "tuned.toml"), "--space", str(inputs / "space.toml"),
        "--trials", str(TRIALS), "--pruner", "none", "--out", str(out),
    ]  # fmt: skip


def _study(best: Path) -> dict[str, str]:
    """The trials that count, in order, without numbers and clocks, and the best recipe without its comments.

    A trial that was killed keeps its number, and another one repeats it.
    """
    trials = pd.read_csv(best.parent / "trials.csv", dtype=str)
    kept = trials.drop(columns=["trial", "seconds", "worker"]).to_csv(index=False)
    recipe = json.dumps(tomllib.loads(best.read_text(encoding="utf-8")), sort_keys=True)
    contents = {"trials": kept, "best": recipe}
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in contents.items()}


def _files(folder: Path, *leave_out: str) -> dict[str, str]:
    """SHA-256 of every file, `.json` without the fields that a clock or a place makes."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, content = path.relative_to(folder).as_posix(), path.read_bytes()
        if path.suffix == ".json":
            kept = {key: value for key, value in json.loads(content).items() if key not in leave_out}
            content = json.dumps(kept, sort_keys=True).encode()
        found[name] = hashlib.sha256(content).hexdigest()
    return found


# Another command joins here.
OPERATIONS: dict[str, Operation] = {
    "prepare": Operation(
        lambda inputs, out: [
            "prepare", str(inputs / "large.zip"), "--out", str(out / "cohort"), "--workers", "2",
        ],
        "cohort", lambda folder: _files(folder, "created"),
    ),
    "train whole": _training("whole"),
    "train bfloat16": _training("bfloat16"),
    "train cached": _training("cached"),
    "tune": Operation(_tuning, "best.toml", _study),
    "slide": Operation(
        lambda inputs, out: ["slide", str(inputs / "run"), str(inputs / "slide.tif"), "--out", str(out)],
        "slide.tif", _files,
    ),
    "export": Operation(
        lambda inputs, out: ["export", str(inputs / "run"), "--to", "onnx", "--out", str(out / "exported")],
        "exported", lambda folder: _files(folder, "created", "speed"),
    ),
}  # fmt: skip


def make_inputs(inputs: Path, environment: dict[str, str]) -> None:
    """The archives, cohort, recipes, space, run and slide that the operations read."""
    make_synthetic(inputs / "large.zip", patients=24, patches_per_patient=250, seed=1)
    make_synthetic(inputs / "small.zip", patients=8, patches_per_patient=12, seed=1)
    prepare(inputs / "small.zip", inputs / "cohort")
    everything = {"weights": "random", "views": 0, "first": '"all"', "second": '"all"', "epochs": 2}
    recipes = {
        "whole": everything | {"precision": "float32"},
        "bfloat16": everything | {"precision": "mixed_bfloat16"},
        "tuned": everything | {"precision": "float32", "second": "", "epochs": 1},
        "cached": {
            "weights": "imagenet", "precision": "float32", "views": 2, "first": '"none"', "second": '["block5"]',
            "epochs": 3,
        },
    }  # fmt: skip
    for name, settings in recipes.items():
        text = RECIPE + (SECOND_STAGE if settings["second"] else "")
        (inputs / f"{name}.toml").write_text(text.format(name=name, **settings), encoding="utf-8")
    (inputs / "space.toml").write_text(SPACE, encoding="utf-8")
    line = [sys.executable, "-m", "ductal", *OPERATIONS["train whole"].arguments(inputs, inputs / "made")]
    subprocess.run([*line, "--max-epochs", "1"], check=True, env=environment, stdout=subprocess.DEVNULL)
    (inputs / "made" / "runs" / "whole").rename(inputs / "run")
    write_synthetic_slide(inputs / "slide.tif", width=12_000, height=9_000, spacing_um=0.5, seed=1)

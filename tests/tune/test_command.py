"""`ductal tune` as a user meets it: real trainings in processes of their own, killed and resumed, and messages."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from ductal.cli import app
from ductal.cli_tune import MetricChoice, PrunerChoice
from ductal.data.cohort import Cohort
from ductal.training.recipe import Monitor
from ductal.training.recipe_file import load_recipe
from ductal.tune.storage import Pruning

TUNE = (sys.executable, "-m", "ductal", "tune")
RECIPE = """
name = "small"
title = "for tests"
backbone = "VGG16"
weights = "random"
input_px = 32
precision = "float32"
[[stages]]
name = "all"
unfreeze = "all"
epochs = 2
learning_rate = 0.0001
"""
SPACE = """
["stages.0.learning_rate"]
type = "float"
low = 1e-5
high = 1e-3
log = true
["batch_size"]
type = "categorical"
choices = [32, 64]
"""


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["tune", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe and a space that train in seconds."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "small.toml").write_text(RECIPE)
    (folder / "space.toml").write_text(SPACE)
    return folder


def test_killed_and_resumed(tiny_cohort: Cohort, small: Path, tmp_path: Path) -> None:
    """SIGKILL to all processes in the second training, then the same command: two trials, and a usable recipe."""
    command = [
        *TUNE, tiny_cohort.folder, "--recipe", small / "small.toml", "--space", small / "space.toml",
        "--trials", 2, "--max-epochs", 1, "--out", tmp_path / "out",
    ]  # fmt: skip
    arguments = list(map(str, command))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    process = subprocess.Popen(
        arguments, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("1/2  trial 0: val_auc"):
            break
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out" / "trials").glob(".0001*.part")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)  # nobody is left who could clean up
    process.communicate()
    left_by_the_kill = list((tmp_path / "out" / "trials").glob(".0001*.part"))
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert f"Best recipe: {tmp_path / 'out' / 'best.toml'}" in done.stdout
    assert "epoch 1/1" not in done.stdout  # a line a trial is enough
    summary = json.loads((tmp_path / "out" / "study.json").read_text())
    assert summary["trials"] == {"complete": 2}
    assert summary["shipped"]["trial"] == 0
    table = pd.read_csv(tmp_path / "out" / "trials.csv")
    assert table["value"].between(0, 1).all()
    best = load_recipe(tmp_path / "out" / "best.toml")
    assert best.stages[0].learning_rate == summary["best"]["parameters"]["stages.0.learning_rate"]
    left = sorted(path.name for path in (tmp_path / "out" / "trials").rglob("*.keras"))
    assert left == []
    assert (tmp_path / "out" / "trials" / "0000" / "predictions" / "val.parquet").is_file()
    assert left_by_the_kill
    assert not list((tmp_path / "out" / "trials").glob(".*"))


def test_the_process_of_a_trial_is_killed(tiny_cohort: Cohort, small: Path, tmp_path: Path) -> None:
    """It costs that trial, which is recorded with its reason; the study goes on."""
    killer = tmp_path / "killer"
    killer.mkdir()
    # Imported by every Python process that has the folder on its path: the child of the first trial ends itself.
    (killer / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "if 'spawn_main' in ' '.join(sys.orig_argv) and os.environ.get('KILL_ONCE'):\n"
        "    try:\n"
        "        os.mkdir(os.environ['KILL_ONCE'])\n"
        "    except FileExistsError:\n"
        "        pass\n"
        "    else:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    paths = f"{killer}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = os.environ | {"PYTHONPATH": paths, "KILL_ONCE": str(tmp_path / "once"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [
            *TUNE, str(tiny_cohort.folder), "--recipe", str(small / "small.toml"), "--space",
            str(small / "space.toml"), "--trials", "2", "--max-epochs", "1", "--out", str(tmp_path / "out"),
        ],
        env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "1/2  trial 0: failed: The training of small was killed by signal 9 (SIGKILL)" in done.stdout
    assert json.loads((tmp_path / "out" / "study.json").read_text())["trials"] == {"complete": 1, "failed": 1}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("absent.zip", 3, "absent.zip does not exist"),
        ("COHORT --recipe vgg17", 4, "There is no recipe vgg17"),
        ("COHORT --recipe efficientnetb0-scratch", 4, "There is no shipped search space efficientnetb0-scratch"),
        ("COHORT --space vgg16-top4", 4, "stages are counted from 0 to 0. Received: 1"),
        ("COHORT --space absent.toml", 4, "cannot be read"),
        ("COHORT --trials 0", 2, "--trials"),
        ("COHORT --inner-folds 1", 2, "--inner-folds"),
        ("COHORT --inner-folds 50", 3, "too few for 50 inner folds"),
        ("COHORT --metric auc", 2, "--metric"),
        ("COHORT --ratios 1,1", 2, "three numbers"),
        ("COHORT --split published", 3, "None of the 162 published patients"),
        ("COHORT --storage nonsense", 8, "The database of the study cannot be used"),
        ("COHORT --out FILE", 8, "a file is where a folder is needed"),
    ],
)
def test_exit_codes(
    arguments: str, code: int, message: str, tiny_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for name, place in {"COHORT": str(tiny_cohort.folder), "FILE": "file"}.items():
        arguments = arguments.replace(name, place)
    found, said = invoke(*arguments.split())
    assert (found, "Traceback" in said) == (code, False)
    assert message in said
    assert not (tmp_path / "ductal-tune" / "trials").exists()
    shutil.rmtree(tmp_path / "ductal-tune", ignore_errors=True)


def test_choices_are_those_of_the_library() -> None:
    assert {choice.value for choice in MetricChoice} == set(Monitor.__args__)
    assert [choice.value for choice in PrunerChoice] == list(Pruning.__args__)


def test_without_optuna(tiny_cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # noqa: ARG005
    code, said = invoke(tiny_cohort.folder)
    assert code == 9
    assert "pip install 'ductal[tune]'" in said

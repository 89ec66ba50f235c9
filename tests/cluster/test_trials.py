"""A study on two nodes: trial by trial the one of a single machine, whichever node is killed meanwhile."""

from __future__ import annotations

import importlib.metadata
import json
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna", reason="the extra tune is not installed")
import trial_work
from optuna.trial import TrialState
from rich.console import Console
from small_studies import computed, database, tuning
from trial_work import AT_ONCE
from typer.testing import CliRunner

from ductal.cli import app
from ductal.cluster.trials import tune_on
from ductal.data.cohort import Cohort
from ductal.errors import ClusterError
from ductal.tune.search import tune
from ductal.tune.trials import PLACE, PROBLEM, is_settled, was_interrupted

TRIALS = 14
# Frozen layers, whose activations trials share; small, and with a precision, which is not timed then.
RECIPE = """
name = "small"
title = "for tests"
backbone = "VGG16"
weights = "imagenet"
input_px = 32
precision = "float32"
cached_views = 1
[[stages]]
name = "head"
unfreeze = "none"
epochs = 2
learning_rate = 1e-3
"""
SPACE = """
["stages.0.learning_rate"]
type = "float"
low = 1e-4
high = 1e-2
log = true
"""


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ductal.tune.results.draw_plots", lambda *_: {})


def shown(out: Path) -> list[tuple[Any, ...]]:
    """Everything of the trials that must be the same, in the order of their places."""
    found = sorted(filter(is_settled, database(out)), key=lambda trial: trial.user_attrs[PLACE])
    return [
        (trial.user_attrs[PLACE], trial.state, trial.params, trial.values, trial.intermediate_values)
        for trial in found
    ]


@pytest.fixture(scope="module")
def alone(tiny_cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    """The study on one machine, one trial after the other."""
    out = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ductal.tune.results.draw_plots", lambda *_: {})
        tune(tuning(tiny_cohort.folder, out, TRIALS, pruner="median", at_once=AT_ONCE), run=computed)
    assert {state for _, state, *_ in shown(out)} == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    return shown(out)


def test_a_killed_node_costs_only_its_trial(
    two_nodes: Any, tiny_cohort: Cohort, tmp_path: Path, alone: list[tuple[Any, ...]]
) -> None:
    victim = next(iter(two_nodes.worker_nodes))
    killed: list[int] = []

    over = threading.Event()

    def kill() -> None:
        while not killed and not over.wait(0.01):
            for path in (tmp_path / "nodes").glob("*"):
                with suppress(FileNotFoundError):  # it has just ended
                    if path.read_text() == victim.node_id and int(path.name) >= 4:
                        two_nodes.remove_node(victim, allow_graceful=False)
                        killed.append(int(path.name))
                        return

    killer = threading.Thread(target=kill)
    killer.start()
    settings = tuning(tiny_cohort.folder, tmp_path, TRIALS, pruner="median")  # at once: what there is room for
    try:
        found = tune_on(two_nodes.address, settings, run=trial_work.uneven)
    finally:
        over.set()
        killer.join()
    assert killed
    trials = database(tmp_path)
    assert [trial.number for trial in trials if was_interrupted(trial)] == killed
    assert len(trials) == TRIALS + 1
    assert shown(tmp_path) == alone
    assert len(found.trials) == TRIALS
    complete = {f"{trial.number:04d}" for trial in trials if trial.state == TrialState.COMPLETE}
    assert complete <= {path.name for path in (tmp_path / "trials").iterdir()}


def test_a_trial_that_ends_its_worker_has_failed(two_nodes: Any, tiny_cohort: Cohort, tmp_path: Path) -> None:
    console = Console(quiet=True)
    tune_on(two_nodes.address, tuning(tiny_cohort.folder, tmp_path, 2, at_once=1), console, run=trial_work.deadly)
    failed = next(trial for trial in database(tmp_path) if PROBLEM in trial.user_attrs)
    assert "It was begun 4 times, and each time its process ended" in failed.user_attrs[PROBLEM]
    assert len(database(tmp_path)) == 5


def test_nodes_need_the_same_optuna(
    two_nodes: Any, tiny_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers import it, so a node without it would fail every trial that it gets."""
    real = importlib.metadata.version
    monkeypatch.setattr("importlib.metadata.version", lambda name: "99.1" if name == "optuna" else real(name))
    with pytest.raises(ClusterError, match=rf"other versions: optuna {real('optuna')}, here 99.1"):
        tune_on(two_nodes.address, tuning(tiny_cohort.folder, tmp_path, 1), run=computed)


def test_ctrl_c_and_on(two_nodes: Any, tiny_cohort: Cohort, tmp_path: Path, alone: list[tuple[Any, ...]]) -> None:
    def heed() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    arguments = [two_nodes.address, str(tiny_cohort.folder), str(tmp_path), str(TRIALS)]
    process = subprocess.Popen(
        [sys.executable, trial_work.__file__, *arguments], stdout=subprocess.PIPE, text=True, preexec_fn=heed
    )
    assert process.stdout is not None
    for line in process.stdout:
        if f"4/{TRIALS}" in line:
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=200)
    states = [trial.state for trial in database(tmp_path)]
    assert TrialState.RUNNING not in states
    settings = tuning(tiny_cohort.folder, tmp_path, TRIALS, pruner="median", at_once=AT_ONCE)
    tune_on(two_nodes.address, settings, run=trial_work.uneven)
    assert shown(tmp_path) == alone


def test_real_trainings_from_the_command_line(two_nodes: Any, tiny_cohort: Cohort, tmp_path: Path) -> None:
    """Three trainings on two nodes, two at once; the first, by one process, differs in late decimals at most."""
    recipe, space, found = tmp_path / "small.toml", tmp_path / "space.toml", {}
    recipe.write_text(RECIPE, encoding="utf-8")
    space.write_text(SPACE, encoding="utf-8")
    wanted = f"--recipe {recipe} --space {space} --at-once 2 --pruner none"
    for where, trials, ray in (("cluster", 3, f"--ray {two_nodes.address} --ray-cpus 1"), ("alone", 1, "")):
        out = tmp_path / where
        more = f"--trials {trials} --out {out} {ray}"
        done = CliRunner().invoke(app, ["tune", str(tiny_cohort.folder), *wanted.split(), *more.split()])
        assert done.exit_code == 0, done.output
        found[where] = shown(out)
        assert {path.name for path in (out / "trials").iterdir()} == {f"{number:04d}" for number in range(trials)}
        for folder in (out / "trials").iterdir():
            assert len((folder / "history.csv").read_text(encoding="utf-8").splitlines()) == 3
        assert json.loads((out / "study.json").read_text(encoding="utf-8"))["trials"] == {"complete": trials}
        assert (out / "best.toml").is_file()
    [one], (other, *_) = found["alone"], found["cluster"]
    assert one[:3] == other[:3]
    assert one[3] == pytest.approx(other[3], abs=0.02)

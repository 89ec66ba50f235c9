"""A training in a process of its own: what it is told, by stand-ins in this process, and how its end is told."""

from __future__ import annotations

import multiprocessing
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from small_training import small_recipe, stage
from tensorflow.python.framework import config as tf_config

from ductal.data.audit import audit_split
from ductal.data.cohort import Cohort
from ductal.data.splitting import make_split
from ductal.errors import DataError, DuctalError, RecipeError
from ductal.evaluation import evaluate
from ductal.tracking import trackers
from ductal.tracking.options import Tracking
from ductal.training import isolated, trainer

TRACKING = Tracking(("tensorboard",), Path("curves"))


class Here:
    """Stands for multiprocessing's context: the child's work is done before `start` is over."""

    Pipe = staticmethod(multiprocessing.Pipe)
    exitcode = 0

    def Process(self, target: Any, args: tuple[Any, Any]) -> Here:  # noqa: ARG002, N802
        self.sender, self.task = args
        return self

    def start(self) -> None:
        try:
            isolated._work(self.task, self.sender)
            self.sender.send(None)
        except Exception as error:
            self.sender.send(isolated._portable(error, self.task))

    def join(self, seconds: float | None = None) -> None:
        pass

    def is_alive(self) -> bool:
        return False

    def kill(self) -> None:
        pass


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Any, ...]]]:
    """What the stand-ins for training, evaluation and tracking were called with, and whether in one order only."""
    calls: list[tuple[Any, ...]] = []

    def stand_in(name: str) -> Any:
        return lambda *given, **settings: calls.append(
            (name, given, settings, tf_config.is_op_determinism_enabled())
        )

    monkeypatch.setattr(isolated.multiprocessing, "get_context", lambda _: Here())
    monkeypatch.setattr(trainer, "train", stand_in("train"))
    monkeypatch.setattr(evaluate, "evaluate", stand_in("evaluate"))
    monkeypatch.setattr(trackers, "track_evaluation", stand_in("track"))
    yield calls
    tf_config.disable_op_determinism()  # TensorFlow has no public way back


def begin(cohort: Cohort, out: Path, **settings: Any) -> None:
    split = make_split(cohort, "random", seed=1)
    isolated.train_isolated(
        small_recipe(), cohort.folder, split, out,
        audit=audit_split(cohort, split), seed=1, profile="full", weights_file=None, **settings,
    )  # fmt: skip


def test_all_settings_reach_the_training(
    tiny_cohort: Cohort, tmp_path: Path, told: list[tuple[Any, ...]]
) -> None:
    asked = {"gpus": 2, "deterministic": True, "tracking": TRACKING, "fresh": True}
    begin(tiny_cohort, tmp_path / "run", final=False, **asked)
    [(name, _, settings, _)] = told
    assert name == "train"
    assert {key: settings[key] for key in asked} == asked


def test_a_cohort_that_was_replaced_is_refused(
    tiny_cohort: Cohort, tmp_path: Path, told: list[tuple[Any, ...]]
) -> None:
    with pytest.raises(DataError, match="has been replaced by another cohort since this work began"):
        begin(tiny_cohort, tmp_path / "run", fingerprint="of the one before")
    assert told == []
    begin(tiny_cohort, tmp_path / "run", final=False, fingerprint=tiny_cohort.info.fingerprint)
    assert len(told) == 1


def test_a_tracker_is_told_of_the_final_evaluation(
    tiny_cohort: Cohort, tmp_path: Path, told: list[tuple[Any, ...]]
) -> None:
    begin(tiny_cohort, tmp_path / "run")
    assert [name for name, *_ in told] == ["train", "evaluate"]
    told.clear()
    begin(tiny_cohort, tmp_path / "run", tracking=TRACKING)
    assert [name for name, *_ in told] == ["train", "evaluate", "track"]
    assert told[-1][1][:2] == (TRACKING, tmp_path / "run")


def test_the_evaluation_of_a_trained_run_is_deterministic_too(
    tiny_cohort: Cohort, tmp_path: Path, told: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tiny_cohort, tmp_path / "run", trained=True)
    begin(tiny_cohort, tmp_path / "run", trained=True, deterministic=True)
    assert [(name, ordered) for name, _, _, ordered in told] == [("evaluate", False), ("evaluate", True)]

    def refuse(*_: Any, **__: Any) -> None:
        raise tf.errors.UnimplementedError(None, None, "A kernel for op X is not available")

    monkeypatch.setattr(evaluate, "evaluate", refuse)
    with pytest.raises(RecipeError, match="cannot be deterministic on this device: A kernel for op X"):
        begin(tiny_cohort, tmp_path / "run", trained=True, deterministic=True)


def train_in_child(cohort: Cohort, folder: Path, **more: Any) -> Path:
    split = make_split(cohort, "random", seed=1)
    recipe = small_recipe(stage("all", "all", 1))
    settings = {"seed": 1, "profile": "full", "weights_file": None, "final": False} | more
    out, audit = folder / "runs" / "mine", audit_split(cohort, split)
    return isolated.train_isolated(recipe, cohort.folder, split, out, audit=audit, **settings)


def test_a_crash_of_the_child_shows_its_traceback(tiny_cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(DuctalError) as caught:
        train_in_child(tiny_cohort, tmp_path, seed="no number")
    assert caught.value.exit_code == 1
    assert str(caught.value).count("Traceback (most recent call last)") == 1
    assert "set_random_seed" in str(caught.value)
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_typed_error_of_the_child_stays_what_it_is(tiny_cohort: Cohort, tmp_path: Path) -> None:
    shutil.copytree(tiny_cohort.folder, tmp_path / "cohort")
    moved = Cohort.open(tmp_path / "cohort")
    (tmp_path / "cohort" / "patches.npy").unlink()
    with pytest.raises(DataError, match="damaged or incomplete"):
        train_in_child(moved, tmp_path)


def test_a_killed_child_is_told_as_such(tiny_cohort: Cohort, tmp_path: Path) -> None:
    def kill() -> None:
        while not (running := multiprocessing.active_children()):
            time.sleep(0.05)
        time.sleep(0.5)
        running[0].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(DuctalError, match=r"was killed by signal 9 \(SIGKILL\), most often for want of memory"):
        train_in_child(tiny_cohort, tmp_path)
    killer.join()

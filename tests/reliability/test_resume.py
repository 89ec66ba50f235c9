"""A training that was interrupted and continued is, bit for bit, the one that was not."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import killed_training
import pandas as pd
import pytest
from killed_training import RECIPES, at, train
from run_digest import digest_of
from small_training import quiet

from ductal.data.cohort import Cohort
from ductal.errors import BusyError, StorageError
from ductal.locks import locked
from ductal.training import checkpoint, resume, stages, trainer
from ductal.training.checkpoint import checkpoint_folder


@pytest.fixture(scope="module")
def whole(tiny_cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The uninterrupted run of a kind."""
    folder = tmp_path_factory.mktemp("whole")
    return cache(lambda kind: train(tiny_cohort, folder / kind, kind))


def is_whole(run: Path, expected: Path) -> bool:
    return digest_of(run) == digest_of(expected)


def epochs(run: Path) -> list[str]:
    return [line.split(",")[1] for line in (run / "history.csv").read_text().splitlines()[1:]]


def test_the_recipes_of_these_tests_do_what_they_are_for(whole: Callable[[str], Path]) -> None:
    kinds = ("plateau", "cosine", "cached", "extras")
    records = {kind: json.loads((whole(kind) / "run.json").read_text()) for kind in kinds}
    assert records["cached"]["feature_cache"].startswith("2 views")
    assert len(records["cosine"]["stages_given_up"]) == 1
    assert not any(record["continued_after"] for record in records.values())
    history = pd.read_csv(whole("plateau") / "history.csv")
    rates = history[history["stage"] == "all"]["learning_rate"]
    assert rates.iloc[-1] < rates.iloc[0]
    assert not history["best"].iloc[-1]  # so that weights come back


KILLS = [("plateau", "batch", 18), ("plateau", "write", 40), ("cached", "rename", 1), ("extras", "batch", 13)]


@pytest.mark.parametrize(("kind", "where", "number"), KILLS)
def test_killed_for_real(
    kind: str, where: str, number: int, tiny_cohort: Cohort, tmp_path: Path, whole: Callable[[str], Path]
) -> None:
    out = tmp_path / "runs" / "small"
    command = [sys.executable, killed_training.__file__, str(tiny_cohort.folder), str(out), kind, where, str(number)]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not out.exists()
    assert list(checkpoint_folder(out).glob("*.json"))
    progress = quiet()
    run = train(tiny_cohort, out, kind, progress=progress)
    assert is_whole(run, whole(kind))
    assert json.loads((run / "run.json").read_text())["continued_after"]
    assert "continues small a" in progress.console.file.getvalue()  # type: ignore[attr-defined]
    assert [path.name for path in out.parent.iterdir()] == ["small"]


class Cut(BaseException):
    """Stands for an interruption."""


def cut() -> None:
    raise Cut


def test_interrupted_at_every_epoch_one_after_the_other(
    tiny_cohort: Cohort, tmp_path: Path, whole: Callable[[str], Path]
) -> None:
    """Every call comes one epoch further: into the stage, over its end, past the stop, to the finished run."""
    kind, out, calls = "plateau", tmp_path / "small", 0
    while not out.exists():
        calls += 1
        assert calls < 20
        with pytest.MonkeyPatch.context() as patch:
            at(patch, "epoch", 2, cut)
            try:
                train(tiny_cohort, out, kind)
            except Cut:
                assert checkpoint_folder(out).is_dir()
    assert is_whole(out, whole(kind))
    rows = epochs(out)
    assert json.loads((out / "run.json").read_text())["continued_after"] == list(range(1, calls))
    assert calls == len(rows)
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


@pytest.mark.parametrize(("kind", "batches"), [("cosine", 13), ("cached", 19), ("extras", 7)])
def test_interrupted_within_epochs(
    kind: str,
    batches: int,
    tiny_cohort: Cohort,
    tmp_path: Path,
    whole: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Saved after every batch, cut after so many: between two epochs and within them."""
    monkeypatch.setattr(resume, "SECONDS_BETWEEN", 0.0)
    out, told = tmp_path / "small", ""
    for _ in range(40):
        progress = quiet()
        with pytest.MonkeyPatch.context() as patch:
            at(patch, "batch", batches, cut)
            with suppress(Cut):
                train(tiny_cohort, out, kind, progress=progress)
        told += progress.console.file.getvalue()  # type: ignore[attr-defined]
        if out.exists():
            break
    assert is_whole(out, whole(kind))
    assert "of its batches" in told


def test_between_the_last_epoch_of_a_stage_and_the_next_stage(
    tiny_cohort: Cohort, tmp_path: Path, whole: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "_close_stage", lambda *_: cut())
    with pytest.raises(Cut):
        train(tiny_cohort, tmp_path / "small", "plateau")
    monkeypatch.undo()
    progress = quiet()
    assert is_whole(train(tiny_cohort, tmp_path / "small", "plateau", progress=progress), whole("plateau"))
    assert "continues small after epoch 2" in progress.console.file.getvalue()  # type: ignore[attr-defined]


def interrupted(cohort: Cohort, out: Path, kind: str = "short", epoch: int = 3, **settings: Any) -> None:
    """Leave a training with checkpoints of `epoch` - 1 epochs."""
    with pytest.MonkeyPatch.context() as patch:
        at(patch, "epoch", epoch, cut)
        with pytest.raises(Cut):
            train(cohort, out, kind, **settings)


def test_a_damaged_checkpoint_is_told_and_the_older_used(
    tiny_cohort: Cohort, tmp_path: Path, whole: Callable[[str], Path]
) -> None:
    out = tmp_path / "small"
    interrupted(tiny_cohort, out)
    newest = max(checkpoint_folder(out).glob("*.json"))
    newest.write_bytes(newest.read_bytes()[:-100])
    progress = quiet()
    run = train(tiny_cohort, out, "short", progress=progress)
    told = progress.console.file.getvalue()  # type: ignore[attr-defined]
    assert f"The checkpoint {newest.name} is damaged" in told
    assert "continues small at epoch 2 of 3" in told
    assert is_whole(run, whole("short"))
    assert json.loads((run / "run.json").read_text())["continued_after"] == [1]


def test_other_settings_do_not_continue_it_and_neither_does_fresh(
    tiny_cohort: Cohort, tmp_path: Path, whole: Callable[[str], Path]
) -> None:
    out = tmp_path / "small"
    for settings in ({"seed": 4}, {"fresh": True}):
        interrupted(tiny_cohort, out, **settings)
        progress = quiet()
        run = train(tiny_cohort, out, "short", progress=progress, **{"fresh": True} if "fresh" in settings else {})
        assert "continues" not in progress.console.file.getvalue()  # type: ignore[attr-defined]
        assert is_whole(run, whole("short"))


def test_the_precision_of_the_checkpoint_is_kept(
    tiny_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto = RECIPES["short"].model_copy(update={"precision": "auto"})
    monkeypatch.setitem(RECIPES, "auto", auto)
    choices = iter(["mixed_bfloat16", "float32"])

    def choose(_: Any, **__: Any) -> Any:
        return stages.Choice(next(choices), False, {}, "probe")

    monkeypatch.setattr(trainer, "choose_precision", choose)
    interrupted(tiny_cohort, tmp_path / "small", "auto")
    run = train(tiny_cohort, tmp_path / "small", "auto")
    assert json.loads((run / "run.json").read_text())["precision"] == "mixed_bfloat16"


def test_a_full_disk_does_not_stop_a_training(
    tiny_cohort: Cohort, tmp_path: Path, whole: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = checkpoint.write_text

    def refuse(path: Path, text: str) -> None:
        if "-000002-" in path.name:
            raise StorageError(f"Could not write {path}: {os.strerror(errno.ENOSPC)}.")
        real(path, text)

    monkeypatch.setattr(checkpoint, "write_text", refuse)
    progress = quiet()
    interrupted(tiny_cohort, tmp_path / "small", progress=progress)
    told = progress.console.file.getvalue()  # type: ignore[attr-defined]
    assert told.count("A checkpoint is missing; training goes on, and the one before is kept.") == 1
    run = train(tiny_cohort, tmp_path / "small", "short")
    assert json.loads((run / "run.json").read_text())["continued_after"] == [1]
    assert is_whole(run, whole("short"))


@pytest.mark.parametrize("kind", ["short", "cached"])
def test_a_disk_that_is_full_at_the_end_keeps_the_last_checkpoint(
    kind: str, tiny_cohort: Cohort, tmp_path: Path, whole: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next call only writes the run: it needs no activations, which `ductal run` has deleted by then."""

    def needless(*_: Any) -> None:
        raise AssertionError("activations of frozen layers are asked for")

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    expected, features = whole(kind), tmp_path / ".features"
    monkeypatch.setattr(trainer, "write_run", refuse)
    with pytest.raises(StorageError, match="No space left"):
        train(tiny_cohort, tmp_path / "small", kind, features_folder=features)
    monkeypatch.undo()
    shutil.rmtree(features, ignore_errors=True)
    monkeypatch.setattr(trainer, "find_features", needless)
    run = train(tiny_cohort, tmp_path / "small", kind, features_folder=features)
    assert is_whole(run, expected)
    assert json.loads((run / "run.json").read_text())["continued_after"] == [len(epochs(run))]


def test_two_trainings_of_one_run_folder(
    tiny_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ductal.locks.PATIENCE_SECONDS", 0.0)
    with locked(tmp_path / "small"), pytest.raises(BusyError, match="is being written by another ductal command"):
        train(tiny_cohort, tmp_path / "small", "short")
    assert list(tmp_path.iterdir()) == []


def test_other_seeds_are_other_runs(tiny_cohort: Cohort, tmp_path: Path, whole: Callable[[str], Path]) -> None:
    other = digest_of(train(tiny_cohort, tmp_path / "other", "short", seed=4))
    first = digest_of(whole("short"))
    assert other.keys() == first.keys()
    assert all(other[name] != first[name] for name in other)

"""Locks: one writer at a time, and none that a killed process leaves behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ductal import locks
from ductal.errors import BusyError, StorageError
from ductal.files import atomic_folder
from ductal.locks import locked

pytestmark = pytest.mark.skipif(locks.fcntl is None, reason="this system has no flock")

HOLD = (
    "import sys, time; from pathlib import Path; from ductal.locks import locked\n"
    "with locked(Path(sys.argv[1])):\n"
    "    print('held', flush=True); time.sleep(60)"
)


@pytest.fixture
def holder(tmp_path: Path) -> Any:
    """Another process that holds the lock on `tmp_path / "run"`."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_another_process_is_refused_and_told_who(tmp_path: Path, holder: Any) -> None:
    with (
        pytest.raises(BusyError, match=rf"run is being written by another ductal command \(process {holder.pid}\)"),
        locked(tmp_path / "run", patience=0.3),
    ):
        pass
    assert BusyError("").exit_code == 11
    assert issubclass(BusyError, StorageError)  # whoever gives up on a disk that refuses gives up on this, too
    with locked(tmp_path / "run2", patience=0.0):  # another folder is free
        pass


def test_a_killed_holder_holds_nothing(tmp_path: Path, holder: Any) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / ".run.lock").exists()
    with locked(tmp_path / "run", patience=0.0):
        assert (tmp_path / ".run.lock").read_text() == f"{os.getpid()}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_patient_one_waits_for_the_end(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with locked(tmp_path / "run", patience=20.0):
            order.append("second")

    with locked(tmp_path / "run"):
        waiting = threading.Thread(target=second)
        waiting.start()
        time.sleep(0.3)
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]
    assert list(tmp_path.iterdir()) == []


def test_many_at_once_never_meet(tmp_path: Path) -> None:
    inside, most = 0, 0

    def enter() -> None:
        nonlocal inside, most
        for _ in range(5):
            with locked(tmp_path / "run", patience=60.0):
                inside += 1
                most = max(most, inside)
                time.sleep(0.002)
                inside -= 1

    threads = [threading.Thread(target=enter) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_making_has_one_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.0)
    with atomic_folder(tmp_path / "run") as first:
        (first / "a").touch()
        with pytest.raises(BusyError), atomic_folder(tmp_path / "run"):
            pass
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("make", [lambda path: path.symlink_to(path.with_name("mine")), os.mkfifo])
def test_a_link_or_pipe_is_no_lock(make: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    make(tmp_path / ".run.lock")
    with pytest.raises(StorageError, match=r"\.run\.lock is a symbolic link"), locked(tmp_path / "run"):
        pass
    with pytest.raises(StorageError, match="is a symbolic link"), atomic_folder(tmp_path / "run"):
        pass
    assert (tmp_path / "mine").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".run.lock", "mine"]


def test_where_the_disk_has_no_locks_nothing_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with locked(tmp_path / "run"), locked(tmp_path / "run"):
        pass
    monkeypatch.setattr(locks, "fcntl", None)
    with locked(tmp_path / "run"), locked(tmp_path / "run"):
        pass
    assert list(tmp_path.iterdir()) == []

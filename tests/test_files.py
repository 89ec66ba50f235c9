"""Whole or absent: what atomic_file and atomic_folder leave behind, also after a crash."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ductal import files
from ductal.errors import DataError, StorageError
from ductal.files import atomic_file, atomic_folder, replace_folder, scratch_folder, sweep, write_text
from ductal.locks import locked


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def temporary_of(path: Path, process: int, kind: str = "part") -> Path:
    """The temporary name that the process of that number would use."""
    mine = files._temporary(path, kind).name
    return path.with_name(mine.replace(f"-{os.getpid()}-", f"-{process}-"))


@pytest.fixture(scope="module")
def dead_process() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "a.txt"
    with atomic_file(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
        assert temporary.parent == target.parent  # a rename across file systems would copy
    assert target.read_text() == "new"
    assert names(target.parent) == ["a.txt"]


def test_file_keeps_the_old_one_until_the_end(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_file(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_folder_keeps_the_old_one_until_the_end(tmp_path: Path) -> None:
    target = tmp_path / "run"
    target.mkdir()
    (target / "old").touch()
    with atomic_folder(target) as temporary:
        (temporary / "new").touch()
        assert names(target) == ["old"]
    assert names(target) == ["new"]
    assert names(tmp_path) == ["run"]


def test_folder_vanishes_on_an_exception(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "run") as temporary:  # noqa: PT012
        (temporary / "half").touch()
        raise RuntimeError
    assert names(tmp_path) == []


@pytest.mark.parametrize("manager", [atomic_file, atomic_folder, scratch_folder])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, None])
def test_refusals_are_storage_errors(tmp_path: Path, manager, number: int | None) -> None:
    refused = OSError(number, "no room") if number else OSError("5 requested and 0 written")
    with pytest.raises(StorageError, match=r"Could not write .*thing") as caught, manager(tmp_path / "thing"):
        raise refused
    assert caught.value.__cause__ is refused
    assert names(tmp_path) == []


def test_full_disk(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(StorageError, match="too large"):
            write_text(tmp_path / "a.txt", "x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert names(tmp_path) == []


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = "a file is where a folder is needed"
    with pytest.raises(StorageError, match=said):
        write_text(tmp_path / "file" / "a.txt", "")
    with pytest.raises(StorageError, match=said), atomic_folder(tmp_path / "file" / "run"):
        pass


def test_other_errors_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "a"):
        (tmp_path / "absent").read_text()
    with pytest.raises(DataError, match="as it is"), atomic_folder(tmp_path / "b"):
        raise DataError("as it is")
    typed = StorageError("typed already")
    with pytest.raises(StorageError) as caught, atomic_folder(tmp_path / "b"):
        raise typed
    assert caught.value is typed


def test_what_a_killed_process_left_is_swept(tmp_path: Path, dead_process: int) -> None:
    target = tmp_path / "run[1]"
    stale_file, stale_folder = (temporary_of(target, dead_process) for _ in range(2))
    stale_file.touch()
    stale_folder.mkdir()
    (stale_folder / "model").touch()
    kept = [
        temporary_of(target, os.getppid()),  # at work
        temporary_of(tmp_path / "run2", dead_process),  # another target
        Path(str(temporary_of(target, dead_process)).replace(files._host(), "ffffffff")),  # another machine
        tmp_path / ".run[1].part",  # not ours
    ]
    for path in kept:
        path.touch()
    with atomic_file(target) as temporary:
        temporary.touch()
    assert names(tmp_path) == sorted([*(path.name for path in kept), target.name])


def test_a_killed_process_really_leaves_something_to_sweep(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from ductal.files import atomic_folder\n"
        "with atomic_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'half').touch(); os.kill(os.getpid(), 9)"
    )
    target = tmp_path / "run"
    assert subprocess.run([sys.executable, "-c", code, str(target)]).returncode == -9
    assert len(names(tmp_path)) == 2  # what was half written, and the claim on it
    sweep(target)
    assert names(tmp_path) == []


def test_whoever_has_the_lock_knows_that_others_are_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "run"
    for number in (os.getpid(), os.getppid()):  # in use again, as after the restart of a container
        temporary_of(target, number).mkdir()
    (temporary_of(target, os.getppid(), "old") / "whole").mkdir(parents=True)
    with scratch_folder(target) as mine:
        assert names(tmp_path) == sorted([".run.lock", mine.name, "run"])
        assert names(target) == ["whole"]
    monkeypatch.setattr("ductal.locks.fcntl", None)  # a system without locks, where nobody knows
    other = temporary_of(target, os.getppid())
    other.mkdir()
    with scratch_folder(target):
        pass
    assert names(tmp_path) == [other.name, "run"]


def test_a_folder_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    (one / "1").mkdir(parents=True)
    (other / "2").mkdir(parents=True)
    if not files._exchange(one, other):
        pytest.skip("this system or disk cannot exchange names")
    monkeypatch.setattr(Path, "rename", lambda *_: pytest.fail("for a moment there is nothing"))
    replace_folder(one, other)
    assert names(other) == ["2"]
    assert names(tmp_path) == ["other"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_link_is_replaced_and_not_followed(exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    (tmp_path / "real" / "mine").mkdir(parents=True)
    (tmp_path / "run").symlink_to("real")
    for number in "12":
        with atomic_folder(tmp_path / "run") as temporary:
            (temporary / number).touch()
        assert names(tmp_path / "run") == [number]
    assert names(tmp_path / "real") == ["mine"]
    assert names(tmp_path) == ["real", "run"]


def test_killed_between_the_two_renames(tmp_path: Path, dead_process: int) -> None:
    target = tmp_path / "run"
    retired = temporary_of(target, dead_process, "old")
    retired.mkdir()
    (retired / "old").touch()
    sweep(target)
    assert names(target) == ["old"]
    retired.mkdir()  # now the replacement is in place, and the retired folder is waste
    sweep(target)
    assert names(tmp_path) == ["run"]


def test_a_file_is_not_replaced_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("precious")
    with pytest.raises(StorageError, match="a file is where a folder is needed"), atomic_folder(tmp_path / "run"):
        pass
    assert (tmp_path / "run").read_text() == "precious"
    assert names(tmp_path) == ["run"]


def test_the_current_folder_has_a_name_and_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / "in").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "in")
    for path in (Path(), Path("..")):
        sweep(path)
        with pytest.raises(StorageError, match="this command runs in it"), atomic_folder(path):
            pass
        with pytest.raises(StorageError, match="Is a directory"), atomic_file(path) as temporary:
            temporary.touch()
        with locked(path):
            pass
    assert names(tmp_path) == ["here"]
    assert names(tmp_path / "here") == ["in"]
    assert names(Path()) == []
    Path.cwd().rmdir()
    with atomic_folder(tmp_path / "there"):
        pass
    assert names(tmp_path) == ["here", "there"]


def test_replacing_fails(tmp_path: Path) -> None:
    target = tmp_path / "run"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "absent", target)
    assert names(target) == ["old"]
    assert names(tmp_path) == ["run"]

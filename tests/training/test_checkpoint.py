"""Checkpoints as files: whole or absent, two kept, verified, never another training's, robust to a full disk."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ductal import files
from ductal.training.checkpoint import Checkpoint, Checkpoints, checkpoint_folder, checkpoint_key

KEY = checkpoint_key(recipe={"name": "a"}, seed=1)


def checkpoint(epoch: int, best: int = 0) -> Checkpoint:
    """Weights that follow from the epoch; `best` names the epoch whose weights are the best."""
    groups = {
        "weights": [np.full((30, 20), epoch, np.float32), np.array(epoch, np.int64)],
        "best": [np.full((30, 20), best, np.float32), np.array(best, np.int64)],
        "optimizer": [np.arange(50, dtype=np.float32) * epoch, np.array([1, 2], np.uint32)],
        "none": [],
    }
    facts = {"loss": 0.1 * epoch, "worst": float("-inf"), "rows": [{"auc": float("nan")}]}
    return Checkpoint(epoch, 0, facts, groups)


def saved(folder: Path, *wanted: Checkpoint, key: str = KEY) -> list[str]:
    """Save them one after the other; returns the warnings."""
    warnings: list[str] = []
    with Checkpoints(folder, key, warnings.append) as checkpoints:
        for one in wanted:
            checkpoints.save(one)
    return warnings


def newest(folder: Path, key: str = KEY) -> tuple[Checkpoint | None, list[str]]:
    warnings: list[str] = []
    with Checkpoints(folder, key, warnings.append) as checkpoints:
        return checkpoints.newest(), warnings


def same(a: Checkpoint | None, b: Checkpoint) -> bool:
    if a is None or a.epoch != b.epoch or set(a.groups) != set(b.groups):
        return False
    if json.dumps(a.facts) != json.dumps(b.facts):
        return False
    pairs = [(x, y) for name in b.groups for x, y in zip(a.groups[name], b.groups[name], strict=True)]
    return all(x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in pairs)


def test_what_is_saved_comes_back_bit_for_bit(tmp_path: Path) -> None:
    assert saved(tmp_path / "c", checkpoint(7, best=3)) == []
    found, warnings = newest(tmp_path / "c")
    assert same(found, checkpoint(7, best=3))
    assert warnings == []


def test_two_are_kept_and_shared_weights_are_stored_once(tmp_path: Path) -> None:
    saved(tmp_path, *(checkpoint(epoch, best=min(epoch, 3)) for epoch in range(1, 6)))
    names = sorted(path.name for path in tmp_path.glob("*.json"))
    assert names == [f"{KEY[:16]}-000004-00000000.json", f"{KEY[:16]}-000005-00000000.json"]
    # weights of 4 and 5, the best of 3 for both, two optimizers, and the empty group
    assert len(list(tmp_path.glob("*.bin"))) == 6
    assert all(path.suffix in (".json", ".bin") for path in tmp_path.iterdir())
    assert same(newest(tmp_path)[0], checkpoint(5, best=3))


def test_batches_of_an_epoch_come_before_its_end(tmp_path: Path) -> None:
    order = [Checkpoint(*place, {}, {}) for place in ((9, 0), (9, 20), (9, 150), (10, 0), (10, 3))]
    for number, one in enumerate(order):
        saved(tmp_path, one)
        assert newest(tmp_path)[0] == one, number


def test_facts_are_those_of_the_moment(tmp_path: Path) -> None:
    facts: dict[str, Any] = {"rows": [1]}
    with Checkpoints(tmp_path, KEY, print) as checkpoints:
        checkpoints.save(Checkpoint(1, 0, facts, {}))
        facts["rows"].append(2)
    found = newest(tmp_path)[0]
    assert found is not None
    assert found.facts == {"rows": [1]}


def test_another_key_is_never_used_and_goes_with_the_first_of_this_one(tmp_path: Path) -> None:
    other = checkpoint_key(recipe={"name": "a"}, seed=2)
    saved(tmp_path, checkpoint(3), key=other)
    assert newest(tmp_path) == (None, [])
    assert same(newest(tmp_path, other)[0], checkpoint(3))  # still there: nothing of this one was written
    saved(tmp_path, checkpoint(1))
    assert newest(tmp_path, other) == (None, [])
    renamed = tmp_path / f"{other[:16]}-000001-00000000.json"
    next(tmp_path.glob("*.json")).rename(renamed)
    found, warnings = newest(tmp_path, other)
    assert found is None
    assert "belongs to another training" in warnings[0]


def test_every_setting_changes_the_key() -> None:
    keys = [checkpoint_key(seed=1), checkpoint_key(seed=2), checkpoint_key(seed=1, weights=None), checkpoint_key()]
    assert len(set(keys)) == 4


@settings(max_examples=40, deadline=None)
@given(which=st.integers(0), place=st.integers(0), change=st.integers(1, 255), cut=st.booleans())
def test_any_damage_is_noticed_and_the_older_one_used(
    tmp_path_factory: pytest.TempPathFactory, which: int, place: int, change: int, cut: bool
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    saved(folder, checkpoint(4, best=4), checkpoint(5, best=5))
    manifest = folder / f"{KEY[:16]}-000005-00000000.json"
    named = {about["sha256"][:32] for about in json.loads(manifest.read_text())["files"].values()}
    older = (folder / f"{KEY[:16]}-000004-00000000.json").read_text()
    own = [manifest, *(folder / f"{name}.bin" for name in sorted(named) if name not in older)]
    path = own[which % len(own)]
    content = bytearray(path.read_bytes())
    if cut:
        del content[place % len(content) :]
    else:
        content[place % len(content)] ^= change
    path.write_bytes(content)
    found, warnings = newest(folder)
    if warnings:
        assert same(found, checkpoint(4, best=4))
        assert len(warnings) == 1
        assert "\n" not in warnings[0]
    else:  # a blank of the manifest
        assert same(found, checkpoint(5, best=5))


def test_a_missing_file_is_damage(tmp_path: Path) -> None:
    saved(tmp_path, checkpoint(1), checkpoint(2))
    for path in tmp_path.glob("*.bin"):
        path.unlink()
    found, warnings = newest(tmp_path)
    assert found is None
    named = [f"{KEY[:16]}-00000{epoch}-00000000.json" for epoch in (2, 1)]
    assert [warning.split()[2] for warning in warnings] == named


def test_after_damage_the_next_epoch_is_written_whole(tmp_path: Path) -> None:
    saved(tmp_path, checkpoint(1), checkpoint(2))
    for path in tmp_path.glob("*.bin"):
        path.write_bytes(b"")
    assert newest(tmp_path)[0] is None
    saved(tmp_path, checkpoint(1), checkpoint(2))  # the same content, so the same names
    assert same(newest(tmp_path)[0], checkpoint(2))


def test_nothing_is_left_where_nothing_was_saved(tmp_path: Path) -> None:
    folder = checkpoint_folder(tmp_path / "run")
    assert folder.name == ".run.checkpoint"
    with Checkpoints(folder, KEY, print) as checkpoints:
        (folder / "features").mkdir(parents=True)
        assert checkpoints.newest() is None
    assert list(tmp_path.iterdir()) == []
    with Checkpoints(folder, KEY, print) as checkpoints:
        checkpoints.save(checkpoint(1))
        checkpoints.wait()
        checkpoints.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("refused", range(5))  # files and their folder in turn, then the manifest
def test_a_disk_that_refuses_costs_one_checkpoint(
    number: int, refused: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, iter(range(10**6))

    def fsync(handle: int) -> None:
        if next(calls) == refused:
            raise OSError(number, os.strerror(number))
        real(handle)

    warnings: list[str] = []
    with Checkpoints(tmp_path, KEY, warnings.append) as checkpoints:
        checkpoints.save(checkpoint(1))
        checkpoints.wait()
        monkeypatch.setattr(files.os, "fsync", fsync)
        checkpoints.save(checkpoint(2))
        checkpoints.wait()
        assert len(warnings) == 1
        assert os.strerror(number) in warnings[0]
        assert "training goes on, and the one before is kept" in warnings[0]
        assert same(newest(tmp_path)[0], checkpoint(1))
        checkpoints.save(checkpoint(3))
    assert len(warnings) == 1
    assert same(newest(tmp_path)[0], checkpoint(3))
    assert [path for path in tmp_path.iterdir() if path.suffix not in (".json", ".bin")] == []


def test_a_disk_that_does_not_delete_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_: Any) -> None:
        if path.suffix == ".bin":
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        warnings = saved(tmp_path, *map(checkpoint, (1, 2, 3)))
    assert len(warnings) == 1
    assert "could not be deleted (Input/output error)" in warnings[0]
    assert same(newest(tmp_path)[0], checkpoint(3))
    assert saved(tmp_path, checkpoint(4)) == []
    assert len(list(tmp_path.glob("*.bin"))) == 6  # weights and optimizer of 3 and 4, the best, the empty group


def test_arrays_stay_while_a_manifest_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, checkpoint(1), checkpoint(2))
    read = Path.read_text

    def refuse(path: Path, **more: Any) -> str:
        if "-000002-" in path.name:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return read(path, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", refuse)
        saved(tmp_path, checkpoint(3))
    (tmp_path / f"{KEY[:16]}-000003-00000000.json").unlink()
    assert same(newest(tmp_path)[0], checkpoint(2))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB: a tmpfs, where one may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True)
    except OSError:
        pytest.skip("there is no mount command")
    if mounted.returncode:
        pytest.skip(f"no tmpfs may be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    big = Checkpoint(2, 0, {}, {"weights": [np.zeros(2**16, np.float32)]})
    warnings = saved(small_disk / "c", checkpoint(1), big, checkpoint(3))
    assert len(warnings) == 1
    assert "No space left on device" in warnings[0]
    assert same(newest(small_disk / "c")[0], checkpoint(3))


def test_a_mistake_in_the_writer_is_no_warning(tmp_path: Path) -> None:
    with pytest.raises(TypeError), Checkpoints(tmp_path, KEY, print) as checkpoints:
        checkpoints.save(Checkpoint(1, 0, {"not": print}, {}))


def test_removing_waits_for_what_is_being_written(tmp_path: Path) -> None:
    told: list[str] = []
    with Checkpoints(tmp_path / "c", "k" * 64, told.append) as checkpoints:
        for epoch in range(20):
            checkpoints.save(Checkpoint(epoch, 0, {}, {"weights": [np.full(200_000, epoch, np.float32)]}))
            checkpoints.remove()
            assert not (tmp_path / "c").exists()
    assert told == []

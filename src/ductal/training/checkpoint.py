"""Checkpoints of a training: whole or absent, verified before they are used, written while training goes on.

A checkpoint is a manifest, `<key>-<epoch>-<batch>.json`, which holds plain facts and names groups of arrays. A group
is a file of their bytes, called by its SHA-256: weights that stay the best for ten epochs are on the disk once. Types
and shapes are in the manifest, so that nothing is read that has not been verified, and nothing is ever unpickled.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ductal.errors import StorageError
from ductal.files import atomic_file, write_text

KEPT = 2
FORMAT = 1
Arrays = list[np.ndarray]


def checkpoint_folder(out: Path) -> Path:
    """Where the checkpoints of the run folder `out` are: hidden, beside it."""
    return out.with_name(f".{out.name}.checkpoint")


def checkpoint_key(**settings: Any) -> str:
    """Hex SHA-256 of everything that a training depends on, as JSON values."""
    return hashlib.sha256(json.dumps([FORMAT, settings], sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class Checkpoint:
    """A training after `epoch` epochs and `batch` batches: facts that JSON can hold, and groups of arrays by name."""

    epoch: int
    batch: int
    facts: dict[str, Any]
    groups: dict[str, Arrays]


class Checkpoints:
    """The checkpoints of one training in `folder`; those of another key are never read. Use as a context manager.

    The last `KEPT` are kept. What else there is goes when the first of this key is written.

    Args:
        folder: made when it is needed.
        key: see `checkpoint_key`.
        warn: told of a checkpoint that is damaged or that could not be written, in one line.
    """

    def __init__(self, folder: Path, key: str, warn: Callable[[str], None]) -> None:
        self.folder, self._key, self._warn = folder, key, warn
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[str] | None = None
        self._whole: set[str] = set()  # digests of the groups known to be whole on the disk

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for what is being written; leave nothing where there is no checkpoint."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()
            if not any(self.folder.glob("*.json")):
                self.remove()

    def newest(self) -> Checkpoint | None:
        """The newest one of this key that is whole, with its content verified; damaged ones are told."""
        for path in reversed(self._manifests()):
            try:
                return self._read(path)
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._warn(f"The checkpoint {path.name} is damaged ({error}), so it is not used.")
        return None

    def save(self, checkpoint: Checkpoint) -> None:
        """Write it in the background; the arrays must not change any more, the facts and groups may.

        A disk that refuses costs this checkpoint and no more: it is told by `warn`, at the next call or at the end.
        """
        self.wait()
        frozen = replace(checkpoint, facts=copy.deepcopy(checkpoint.facts), groups=dict(checkpoint.groups))
        self._pending = self._writer.submit(self._write, frozen)

    def wait(self) -> None:
        """Return when what was saved is on the disk, or was refused."""
        pending, self._pending = self._pending, None
        try:
            if pending is not None and (trouble := pending.result()):
                self._warn(trouble)
        except StorageError as error:
            self._warn(f"A checkpoint is missing; training goes on, and the one before is kept. {error}")

    def remove(self) -> None:
        """Delete all, of any key, with what else is in the folder, and what is being written."""
        self.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._whole.clear()

    def _manifests(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self._key[:16]}-*.json"))

    def _write(self, checkpoint: Checkpoint) -> str:
        """Returns what to say of older ones that could not be deleted, or ""."""
        files = {name: self._store(arrays) for name, arrays in checkpoint.groups.items()}
        place = {"epoch": checkpoint.epoch, "batch": checkpoint.batch}
        body = {"key": self._key, **place, "files": files, "facts": checkpoint.facts}
        manifest = {"sha256": _digest_text(body), **body}
        name = f"{self._key[:16]}-{checkpoint.epoch:06d}-{checkpoint.batch:08d}.json"
        write_text(self.folder / name, json.dumps(manifest, indent=1))
        try:
            self._prune()
        except OSError as error:
            return f"Older checkpoints in {self.folder} could not be deleted ({error.strerror or error})."
        return ""

    def _store(self, arrays: Arrays) -> dict[str, Any]:
        """Write a group where it is not there yet; returns what the manifest says of it."""
        parts = [np.ascontiguousarray(array) for array in arrays]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part.data)
        name = digest.hexdigest()
        if name not in self._whole:
            with atomic_file(self._path(name)) as temporary, temporary.open("wb") as handle:
                for part in parts:
                    handle.write(part.data)
            self._whole.add(name)
        layout = [[array.dtype.str, list(array.shape)] for array in arrays]
        return {"sha256": name, "bytes": sum(part.nbytes for part in parts), "arrays": layout}

    def _read(self, path: Path) -> Checkpoint:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest.pop("sha256") != _digest_text(manifest):
            raise ValueError("its manifest has changed")
        if manifest["key"] != self._key:
            raise ValueError("it belongs to another training")
        groups = {name: self._load(name, about) for name, about in manifest["files"].items()}
        return Checkpoint(manifest["epoch"], manifest["batch"], manifest["facts"], groups)

    def _load(self, name: str, about: dict[str, Any]) -> Arrays:
        content = self._path(about["sha256"]).read_bytes()
        if len(content) != about["bytes"] or hashlib.sha256(content).hexdigest() != about["sha256"]:
            raise ValueError(f"{name} is not what was written")
        self._whole.add(about["sha256"])
        arrays, start = [], 0
        for kind, shape in about["arrays"]:
            array = np.frombuffer(content, kind, math.prod(shape), start).reshape(shape)
            arrays.append(array)
            start += array.nbytes
        return arrays

    def _path(self, digest: str) -> Path:
        return self.folder / f"{digest[:32]}.bin"

    def _prune(self) -> None:
        """Keep the newest manifests of this key and what they name; all arrays while one of these cannot be read."""
        manifests, arrays = self._manifests()[-KEPT:], set(self.folder.glob("*.bin"))
        digests = [_named_by(path) for path in manifests]
        named = {self._path(digest) for each in digests for digest in each or ()}
        kept = arrays if None in digests else named
        for path in (*self.folder.glob("*.json"), *arrays):
            if path not in kept and path not in manifests:
                path.unlink(missing_ok=True)
        self._whole = {digest for digest in self._whole if self._path(digest) in named}


def _named_by(manifest: Path) -> set[str] | None:
    """Digests of the arrays that belong to it; None where it cannot be read, for now or ever."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        return {about["sha256"] for about in files.values()}
    return None


def _digest_text(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()

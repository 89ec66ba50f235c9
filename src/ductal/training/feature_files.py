"""The files of `feature_store`: mapped into memory, and not deleted while a training uses them.

Trainings that run at once share a folder of them. Whoever uses a file holds a shared lock on it, which the operating
system takes back from a killed process.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

from ductal.locks import flock, is_at


def new_map(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """A float16 memory map whose disk space is taken now: a full disk is an error here, not a crash later."""
    target = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, path.stat().st_size)
    return target


class FilesInUse:
    """Files that `delete_unused` leaves alone until `close`."""

    def __init__(self) -> None:
        self._open = ExitStack()

    def map(self, path: Path) -> np.ndarray | None:
        """The file as a read-only memory map, from now on in use; None where there is none."""
        try:
            handle = self._open.enter_context(path.open("rb"))
        except FileNotFoundError:
            return None
        flock(handle.fileno(), shared=True)
        there = is_at(handle.fileno(), path)  # or deleted between the two lines before
        return np.load(path, mmap_mode="r") if there else None

    def close(self) -> None:
        """Maps that are still there may lose their files now."""
        self._open.close()


def delete_unused(path: Path) -> None:
    """Delete a file unless somebody uses it, or it is another user's."""
    with suppress(FileNotFoundError, PermissionError), path.open("r+b") as handle:
        if flock(handle.fileno()):
            path.unlink()

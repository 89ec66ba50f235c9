"""Whole or absent: every artefact is written to a temporary name beside it, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ductal.errors import StorageError

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


def storage_error(error: OSError, path: Path) -> StorageError:
    """The typed error for a write that the operating system refused."""
    return StorageError(
        f"Could not write {path}: {error.strerror or error}. "
        "Nothing half-written was kept. Free space or choose another folder, then run it again."
    )


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` when the block succeeds, and vanishes when not.

    Raises:
        StorageError: the disk is full, read-only or refused the write.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno in _DISK_ERRORS and not isinstance(error, StorageError):
            raise storage_error(error, path) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` (replacing it) when the block succeeds.

    Raises:
        StorageError: the disk is full, read-only or refused the write.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if path.exists():
            retired = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
            path.rename(retired)
            temporary.rename(path)
            shutil.rmtree(retired, ignore_errors=True)
        else:
            temporary.rename(path)
    except OSError as error:
        if error.errno in _DISK_ERRORS and not isinstance(error, StorageError):
            raise storage_error(error, path) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically. Raises StorageError when the disk refuses."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

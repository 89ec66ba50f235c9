"""One writer at a time: a lock on a file or folder that another command of this machine writes.

The operating system holds the lock (`flock`) for as long as the process lives, so that a killed one cannot leave it
behind: what it leaves is an empty claim, `.<name>.lock`, that the next writer takes over and removes.
On a network disk the lock holds between machines only where its server keeps locks (NFS 4 does, some others do not);
where the system has no such locks at all (Windows, some mounts), nothing is locked.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ductal.errors import BusyError, StorageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# A training whose command was killed ends within five seconds by itself; the next command should not be refused.
PATIENCE_SECONDS = 12.0
_PAUSE_SECONDS = 0.2
_TAKEN = {errno.EAGAIN, errno.EACCES}


@contextmanager
def locked(path: Path, patience: float | None = None) -> Iterator[None]:
    """Be the only one who writes `path`, which need not exist, until the block ends.

    Args:
        path: a file or folder; its folder is made where it is missing.
        patience: how many seconds to wait for another writer; `PATIENCE_SECONDS` by default.

    Raises:
        BusyError: another process, or another thread of this one, still writes there.
        StorageError: a link, pipe or device is where the lock's file should be, or `path` is the root.
        OSError: the lock's file cannot be made.
    """
    claim = _claim(path)
    claim.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + (PATIENCE_SECONDS if patience is None else patience)
    while (handle := _take(claim)) is None:
        if time.monotonic() >= end:
            raise BusyError(
                f"{path} is being written by another ductal command{_holder(claim)}. "
                "Wait for its end, end it, or choose another folder."
            )
        time.sleep(_PAUSE_SECONDS)
    try:
        yield
    finally:
        _give_back(claim, handle)


def named(path: Path) -> Path:
    """`path` from the root on, with a name, which "." has not; a link stays one. Raises StorageError for the root."""
    place = path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name
    if not place.name:
        raise StorageError(f"{place} is the root of the disk, and nothing can be beside it. Choose a folder in it.")
    return place


def _claim(path: Path) -> Path:
    place = named(path)
    return place.with_name(f".{place.name}.lock")


def remove_stale_claim(path: Path) -> bool:
    """Remove the claim on `path` that a killed process left, if there is one; returns whether a living one has it."""
    claim = _claim(path)
    with suppress(OSError):
        if claim.exists():
            if (handle := _take(claim)) is None:
                return True
            _give_back(claim, handle)
    return False


def _give_back(claim: Path, handle: int) -> None:
    with suppress(OSError):
        claim.unlink()  # before the lock goes: whoever waits for it sees that, and makes a new one
    os.close(handle)


def _take(claim: Path) -> int | None:
    """The open file that holds the lock; None while somebody else has it."""
    handle = _open(claim)
    try:
        if flock(handle) and is_at(handle, claim):
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()}\n".encode())
            return handle
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _open(claim: Path) -> int:
    """The claim's file, made where it is missing; never what a link there leads to, since it is written."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
    try:
        handle = os.open(claim, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise _odd(claim) from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _odd(claim)
    return handle


def _odd(claim: Path) -> StorageError:
    return StorageError(
        f"{claim} is a symbolic link, pipe or device, and not the lock of a ductal command. "
        "Look where it leads, delete it, then run it again."
    )


def is_at(handle: int, path: Path) -> bool:
    """Whether the open file is still the one of that name: somebody may have removed it meanwhile."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), path.lstat())
    return False


def flock(handle: int, *, shared: bool = False) -> bool:
    """Whether the lock on an open file is ours, or there are no locks here; it lasts until the last copy is closed.

    Args:
        handle: of the file.
        shared: be one of many, which is waited for; else be the only one, if that can be at once.

    Raises:
        OSError: the system refused.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK):
            raise
    return True


def _holder(claim: Path) -> str:
    with suppress(OSError, ValueError):
        return f" (process {int(claim.read_text(encoding='utf-8'))})"
    return ""

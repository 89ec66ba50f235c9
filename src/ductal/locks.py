"""One writer at a time: a lock on a file or folder that another command of this machine writes.

The operating system holds the lock (`flock`) for as long as the process lives, so that a killed one cannot leave it
behind: what it leaves is an empty claim, `.<name>.lock`, that the next writer takes over and removes.
On a network disk the lock holds between machines only where its server keeps locks (NFS 4 does, some others do not);
where the system has no such locks at all (Windows, some mounts), nothing is locked.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ductal.errors import BusyError

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
        OSError: the lock's file cannot be made.
    """
    claim = path.with_name(f".{path.name}.lock")
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


def remove_stale_claim(path: Path) -> None:
    """Remove the claim on `path` that a killed process left, if there is one."""
    claim = path.with_name(f".{path.name}.lock")
    with suppress(OSError):
        if claim.exists() and (handle := _take(claim)) is not None:
            _give_back(claim, handle)


def _give_back(claim: Path, handle: int) -> None:
    with suppress(OSError):
        claim.unlink()  # before the lock goes: whoever waits for it sees that, and makes a new one
    os.close(handle)


def _take(claim: Path) -> int | None:
    """The open file that holds the lock; None while somebody else has it."""
    handle = os.open(claim, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        if _flock(handle) and _is_at(handle, claim):
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()}\n".encode())
            return handle
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _is_at(handle: int, claim: Path) -> bool:
    """Whether the open file is still the one of that name: the writer before may have removed it meanwhile."""
    with suppress(FileNotFoundError):
        return os.fstat(handle).st_ino == claim.stat().st_ino
    return False


def _flock(handle: int) -> bool:
    """Whether the lock is ours, or there are no locks here."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
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

"""Whole or absent: every artefact is written to a temporary name beside it, then renamed.

The temporary name says which process writes there, so that the next writer can sweep away what a
killed one (SIGKILL, power cut) left behind. A folder has one writer at a time (`ductal.locks`). What is renamed is on
the disk by then, and so is the renaming when the block ends, so that a power cut finds the old or the new.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import uuid
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

from ductal.errors import DuctalError, StorageError
from ductal.locks import locked, named, remove_stale_claim

_DISK_ERRORS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
}


def is_disk_error(error: OSError) -> bool:
    """Whether the operating system refused a write, rather than the program having made a mistake.

    Errors without a number count: HDF5, zipfile and numpy raise such ones on a full disk.
    """
    return not isinstance(error, DuctalError) and (error.errno is None or error.errno in _DISK_ERRORS)


def storage_error(error: OSError, path: Path) -> StorageError:
    """The typed error for a write that the operating system refused."""
    in_the_way = error.errno in (errno.EEXIST, errno.ENOTDIR)
    reason = "a file is where a folder is needed" if in_the_way else error.strerror or error
    return StorageError(
        f"Could not write {path}: {reason}. "
        "Nothing half-written was kept. Free space or choose another folder, then run it again."
    )


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` when the block succeeds, and vanishes when not.

    Raises:
        StorageError: the disk is full, read-only or refused the write.
    """
    path = Path(path)
    with refusals_of(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path)
        temporary = _temporary(path, "part")
        try:
            yield temporary
            _sync(temporary)
            temporary.replace(named(path))
            _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` (replacing it) when the block succeeds.

    Raises:
        StorageError: the disk is full, read-only or refused the write.
        BusyError: another process writes `path`.
    """
    path = Path(path)
    with scratch_folder(path) as temporary:
        yield temporary
        replace_folder(temporary, path)


@contextmanager
def scratch_folder(path: Path, *, alone: bool = True) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, which is removed at the end, whatever happens.

    Args:
        path: what it is named after, and what it may become.
        alone: whether no other process may have one for this path.

    Raises:
        StorageError: the disk is full, read-only or refused the write, or `path` holds the current folder.
        BusyError: another process writes `path`, and must not.
    """
    path = Path(path)
    if alone and _is_current(path):  # the shell would be in a folder that is no more
        raise StorageError(f"{path} cannot be replaced: this command runs in it. Choose another folder.")
    with refusals_of(path), locked(path) if alone else nullcontext():
        sweep(path, alone=alone)
        temporary = _temporary(path, "part")
        try:
            temporary.mkdir(parents=True)
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _is_current(path: Path) -> bool:
    """Whether this process runs in `path` or below."""
    with suppress(FileNotFoundError):  # where it runs is no more
        return Path.cwd().is_relative_to(path.resolve())
    return False


def replace_folder(new: Path, path: Path) -> None:
    """Rename the folder `new` to `path`; a folder at `path` is kept until then, and removed after.

    Raises:
        NotADirectoryError: a file is at `path`, and stays there.
    """
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    for folder, _, names in os.walk(new):
        for name in names:
            _sync(Path(folder, name))
        _sync(Path(folder))
    if not path.exists():
        new.rename(path)
        _sync(path.parent)
        return
    retired = new
    if not _exchange(new, path):
        retired = _temporary(path, "old")
        path.rename(retired)
        try:
            new.rename(path)
        except BaseException:
            retired.rename(path)
            raise
    _sync(path.parent)
    _remove(retired)


def _exchange(one: Path, other: Path) -> bool:
    """Give each the name of the other in one step; False where the system or the disk cannot."""
    import ctypes

    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # not Linux
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on the disk."""
    if path.is_dir() and os.name == "nt":  # which cannot open a folder
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network disks do not sync folders
            raise
    finally:
        os.close(handle)


def sweep(path: Path, *, alone: bool = False) -> None:
    """Remove the temporary files and folders of `path`, and the claim on it, whose process is no more.

    A folder that was set aside to be replaced, and whose replacement never came, is put back.

    Args:
        path: what they are named after.
        alone: whether the caller has the lock on `path`. Then, where the system keeps locks, nobody of this machine
            is at work there, even if the number of a killed process is in use again.
    """
    path = named(path)
    alone = remove_stale_claim(path) and alone
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(\w+)-(\d+)-\w+\.(part|old)")
    # Not a glob: a folder that cannot be listed has nothing to sweep, and names may hold glob characters.
    try:
        names = sorted(item.name for item in os.scandir(path.parent))
    except OSError:
        return
    for match in filter(None, map(pattern.fullmatch, names)):
        host, process, kind = match.groups()
        left = path.with_name(match.string)
        if host != _host() or (is_alive(int(process)) and not alone):
            continue
        if kind == "old" and not path.exists():
            left.rename(path)
        else:
            _remove(left)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically. Raises StorageError when the disk refuses."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Be the only command that changes what is in `path`, or replaces it, until the block ends.

    Raises:
        StorageError: the lock cannot be made. BusyError: another process writes there.
    """
    with ExitStack() as stack:
        with refusals_of(path):
            stack.enter_context(locked(path.resolve()))  # "." has no name, and a folder may have several
        yield


@contextmanager
def refusals_of(path: Path) -> Iterator[None]:
    """The operating system's refusals in the block as StorageError, told of `path`."""
    try:
        yield
    except OSError as error:
        if is_disk_error(error):
            raise storage_error(error, path) from error
        raise


def _temporary(path: Path, kind: str) -> Path:
    path = named(path)
    return path.with_name(f".{path.name}.{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.{kind}")


def _host() -> str:
    # On a shared disk, a process number says nothing about a process of another machine or container.
    return f"{zlib.crc32(platform.node().encode()):08x}"


def is_alive(process: int) -> bool:
    """Whether there is a process of this number on this machine; True where that cannot be known."""
    if os.name == "nt":  # there, os.kill ends the process instead of asking for it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True

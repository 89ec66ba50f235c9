"""Read a zip archive in place, and refuse one that could do harm.

The central directory is read and checked once, in the parent process. Workers get the few numbers
that locate an entry and inflate it themselves, so no worker parses 277,524 names again.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ductal.errors import DataError, UnsafeArchiveError

MAX_ENTRY_BYTES = 16 * 2**20
MAX_TOTAL_BYTES = 20 * 2**30
MAX_RATIO = 200

# What a worker needs to read one entry: byte offset of its local header, sizes in bytes, method, CRC-32.
LOCATION = np.dtype(
    [("offset", "<i8"), ("packed", "<i8"), ("size", "<i8"), ("method", "<i2"), ("crc", "<u4")]
)

_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_LOCAL_SIGNATURE = b"PK\x03\x04"
_NAME_GUESS = 192  # bytes for name and extra field; with more than that, a second read is needed
_ENCRYPTED = 0x1 | 0x40


class ZipIndex(NamedTuple):
    """The files of an archive: `names` as stored, and `locations`, a LOCATION array of equal length."""

    names: list[str]
    locations: np.ndarray


def read_index(path: Path) -> ZipIndex:
    """Read the central directory and check every entry before any is unpacked.

    Raises:
        UnsafeArchiveError: a name leaves the folder, an entry is a link, or sizes are those of a bomb
            (over 200:1, over 16 MiB for an entry, over 20 GiB in all).
        DataError: not a zip, cut short, encrypted, a name twice, or a method other than deflate.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}. Check the file and its permissions."
        ) from error
    except (zipfile.BadZipFile, struct.error, ValueError, RuntimeError, OverflowError, EOFError) as error:
        raise DataError(
            f"{path} is not a zip or was cut short ({error}). "
            "Fetch it again, and compare its size with that of the original."
        ) from error
    files = [info for info in infos if not info.is_dir()]
    for info in infos:
        _check_name(path, info)
    for info in files:
        _check_content(path, info)
    total = sum(info.file_size for info in files)
    if total > MAX_TOTAL_BYTES:
        limit = f"{MAX_TOTAL_BYTES / 2**30:.0f} GiB"
        raise _unsafe(path, f"it unpacks to {total / 2**30:.1f} GiB, over the limit of {limit}")
    names = [info.filename for info in files]
    _check_unique(path, names)
    locations = np.empty(len(files), LOCATION)
    for position, info in enumerate(files):
        locations[position] = (
            info.header_offset,
            info.compress_size,
            info.file_size,
            info.compress_type,
            info.CRC,
        )
    return ZipIndex(names, locations)


def _unsafe(path: Path, why: str) -> UnsafeArchiveError:
    return UnsafeArchiveError(
        f"{path} was refused: {why}. Nothing was unpacked. Fetch the archive again from its official address."
    )


def _check_name(path: Path, info: zipfile.ZipInfo) -> None:
    # `orig_filename` is the name as stored; `filename` may be cut at a NUL or replaced by an extra field.
    if any(_leaves_folder(name) for name in (info.orig_filename, info.filename)):
        raise _unsafe(path, f"the entry {info.orig_filename!r} points outside the archive's own folder")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise _unsafe(path, f"the entry {info.orig_filename!r} is a symbolic link")


def _leaves_folder(name: str) -> bool:
    if name.startswith("/") or name[1:2] == ":" or "\\" in name or "\0" in name:
        return True
    return ".." in name and ".." in name.split("/")


def _check_content(path: Path, info: zipfile.ZipInfo) -> None:
    size = max(info.file_size, info.compress_size)
    if size > MAX_ENTRY_BYTES:
        limit = f"{MAX_ENTRY_BYTES / 2**20:.0f} MiB"
        raise _unsafe(
            path, f"the entry {info.filename!r} takes {size / 2**20:.0f} MiB, over the limit of {limit}"
        )
    if info.file_size > MAX_RATIO * info.compress_size:
        raise _unsafe(path, f"the entry {info.filename!r} unpacks to over {MAX_RATIO} times its packed size")
    if info.flag_bits & _ENCRYPTED:
        raise DataError(
            f"{path} is encrypted (the entry {info.filename!r} needs a password). "
            "Unpack it yourself and name the folder."
        )
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(
            f"{path} uses compression method {info.compress_type} for {info.filename!r}; only stored and "
            "deflated entries can be read in place. Unpack it yourself and name the folder."
        )


def _check_unique(path: Path, names: list[str]) -> None:
    if len(set(names)) == len(names):
        return
    twice = Counter(names).most_common(1)[0][0]
    raise DataError(
        f"{path} holds the entry {twice!r} twice, so it is not clear which one counts. "
        "Fetch it again, or unpack it and name the folder."
    )


class ZipReader:
    """Reads entries by location; picklable, for use in worker processes.

    Calling it with a LOCATION array yields (content, "") for each entry, or (None, what is wrong)
    for one whose header, deflate stream, length or CRC is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, locations: np.ndarray) -> Iterator[tuple[bytes | None, str]]:
        with self.path.open("rb", buffering=0) as handle:
            for location in locations.tolist():
                offset, packed, size, method, crc = location
                try:
                    handle.seek(offset)
                    block = handle.read(_LOCAL_HEADER.size + _NAME_GUESS + packed)
                    start = _data_start(block)
                    missing = start + packed - len(block)
                    if missing > 0:
                        block += handle.read(missing)
                    yield _unpack(memoryview(block)[start : start + packed], packed, size, method, crc), ""
                except (OSError, ValueError, struct.error, zlib.error) as error:
                    yield None, f"zip entry: {error}"


def _data_start(block: bytes) -> int:
    """Bytes from the local header's first byte to the entry's data; ValueError when it is no header."""
    header = _LOCAL_HEADER.unpack_from(block)
    if header[0] != _LOCAL_SIGNATURE:
        raise ValueError("no local header where the central directory says")
    return int(_LOCAL_HEADER.size + header[9] + header[10])


def _unpack(data: memoryview, packed: int, size: int, method: int, crc: int) -> bytes:
    """The entry's content; ValueError or zlib.error when it is not what the central directory says."""
    if len(data) != packed:
        raise ValueError("cut short")
    if method == zipfile.ZIP_STORED:
        content = bytes(data)
    else:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        # One byte over the declared size is enough to see a lie, and bounds the memory.
        content = inflater.decompress(data, size + 1)
    if len(content) != size:
        raise ValueError("unpacks to another size than declared")
    if zlib.crc32(content) != crc:
        raise ValueError("CRC-32 differs")
    return content

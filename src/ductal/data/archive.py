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

from ductal.data.naming import folded, is_printable
from ductal.errors import DataError, UnsafeArchiveError

MAX_ENTRY_BYTES = 16 * 2**20
MAX_TOTAL_BYTES = 20 * 2**30
MAX_RATIO = 200
MAX_DIRECTORY_BYTES = 128 * 2**20  # Kaggle's archive of 555,048 entries has 81 MB
MAX_NAME_BYTES = 255  # of a file or folder, as on most file systems

# What a worker needs to read one entry: byte offset of its local header, sizes in bytes, method, CRC-32.
LOCATION = np.dtype(
    [("offset", "<i8"), ("packed", "<i8"), ("size", "<i8"), ("method", "<i2"), ("crc", "<u4")]
)

_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_LOCAL_SIGNATURE = b"PK\x03\x04"
_NAME_GUESS = 192  # bytes for name and extra field; with more than that, a second read is needed
_ENCRYPTED = 0x1 | 0x40
_TAIL = 2**16 + 22 + 20 + 56  # the longest comment, and the three records at a zip's end


class ZipIndex(NamedTuple):
    """The files of an archive: `names` as stored, and `locations`, a LOCATION array of equal length."""

    names: list[str]
    locations: np.ndarray


def read_index(path: Path) -> ZipIndex:
    """Read the central directory and check every entry before any is unpacked.

    Raises:
        UnsafeArchiveError: a name leaves the folder or cannot be shown, an entry is a link or a device, entries
            overlap, or sizes are those of a bomb (over 200:1, over 16 MiB for an entry, over 20 GiB in all).
        DataError: not a zip, cut short, encrypted, a name twice (case and Unicode form aside), or a method other
            than deflate.
    """
    infos, end = list_entries(path)
    for info in infos:
        _check_name(path, info)
    files = [info for info in infos if not info.is_dir()]
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
        if not 0 <= info.header_offset < end:
            raise DataError(
                f"{path} is not a complete zip: the entry {info.filename!r} lies outside of it. Fetch it again."
            )
        locations[position] = (
            info.header_offset,
            info.compress_size,
            info.file_size,
            info.compress_type,
            info.CRC,
        )
    _check_overlap(path, locations, end)
    return ZipIndex(names, locations)


def list_entries(path: Path) -> tuple[list[zipfile.ZipInfo], int]:
    """The central directory as it stands, not yet checked, and the byte where it begins.

    Raises:
        DataError: not a zip, or cut short. UnsafeArchiveError: the directory alone is over 128 MiB.
    """
    try:
        _check_directory(path)
        with zipfile.ZipFile(path) as archive:
            return archive.infolist(), archive.start_dir
    except DataError:
        raise
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}. Check the file and its permissions."
        ) from error
    # A name in a damaged directory may even refer to a text encoding that does not fit.
    except (zipfile.BadZipFile, struct.error, ValueError, RuntimeError, OverflowError, EOFError) as error:
        raise DataError(
            f"{path} is not a zip or was cut short ({error}). "
            "Fetch it again, and compare its size with that of the original."
        ) from error


def _check_directory(path: Path) -> None:
    """Refuse a directory that would fill the memory once parsed, about 6 times its size."""
    with path.open("rb") as handle:
        handle.seek(max(0, path.stat().st_size - _TAIL))
        tail = handle.read(_TAIL)
    for signature, record in ((b"PK\5\6", struct.Struct("<12xL")), (b"PK\6\6", struct.Struct("<40xQ"))):
        at = tail.find(signature)
        while at >= 0:
            if at + record.size <= len(tail):
                (size,) = record.unpack_from(tail, at)
                # All ones say that the size is in the other record.
                if MAX_DIRECTORY_BYTES < size != 0xFFFFFFFF:
                    raise _unsafe(path, f"its list of entries takes {size >> 20} MiB")
            at = tail.find(signature, at + 1)


def _check_overlap(path: Path, locations: np.ndarray, end: int) -> None:
    """Refuse entries that share bytes: such a bomb unpacks the same bytes again and again (Fifield 2019)."""
    placed = np.sort(locations, order="offset")
    ends = placed["offset"] + _LOCAL_HEADER.size + placed["packed"]
    if (ends > np.append(placed["offset"][1:], end)).any():
        raise _unsafe(path, "its entries overlap")


def _unsafe(path: Path, why: str) -> UnsafeArchiveError:
    return UnsafeArchiveError(
        f"{path} was refused: {why}. Nothing was unpacked. Fetch the archive again from its official address."
    )


def _check_name(path: Path, info: zipfile.ZipInfo) -> None:
    # `orig_filename` is the name as stored; `filename` may be cut at a NUL or replaced by an extra field.
    if any(_leaves_folder(name) for name in (info.orig_filename, info.filename)):
        raise _unsafe(path, f"the entry {info.orig_filename!r} points outside the archive's own folder")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise _unsafe(path, f"the entry {info.orig_filename!r} is a symbolic link")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _unsafe(path, f"the entry {info.orig_filename!r} is a device or a pipe")
    # Four bytes a character at most: most names are short enough without being encoded.
    is_long = 4 * len(info.filename) > MAX_NAME_BYTES and any(
        len(part) > MAX_NAME_BYTES for part in info.filename.encode().split(b"/")
    )
    if is_long or not info.filename or not is_printable(info.filename):
        raise _unsafe(path, f"the entry {info.filename[:100]!r} has a name that is too long or cannot be shown")


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
    if len({folded(name) for name in names}) == len(names):
        return
    first = Counter(map(folded, names)).most_common(1)[0][0]
    twice = next(name for name in names if folded(name) == first)
    raise DataError(
        f"{path} holds the entry {twice!r} twice (or twice but for case), so it is not clear which one counts. "
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

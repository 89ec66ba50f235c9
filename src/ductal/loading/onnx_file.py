"""An ONNX file before a library reads it: what other files it names, and that it is no larger than it may be.

ONNX is a protocol buffer of numbers and names of operations, which executes nothing of its own. What it can do is
name files that hold its numbers ("external data"), anywhere on the disk, and be huge. So its messages are gone
through here, in place and without the numbers, and every name of a file is checked before OpenVINO or ONNX Runtime
sees it.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from ductal.errors import RunError

MAX_BYTES = 8 * 2**30  # with its external data; H-optimus-1 in float32 has 4.5 GB
MAX_MESSAGES = 2_000_000
MAX_DEPTH = 24
MAX_DATA_FILES = 10_000
# Message: field number -> message that the field holds (onnx.proto3). Others hold no numbers.
_HELD: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},  # external_data: key and value
    "entry": {},
}
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5


def onnx_files(path: Path) -> list[Path]:
    """The ONNX file `path` and the files beside it that hold its numbers, in the order of their names.

    Returns:
        `path` first; all exist, are plain files, and lie in one folder, also where links are followed.

    Raises:
        RunError: no ONNX, damaged, too large, or numbers in a file elsewhere; the message is the reason alone.
    """
    if not path.is_file():
        raise RunError("it is missing, or no file")
    if path.stat().st_size > MAX_BYTES:
        raise RunError(f"it is larger than {MAX_BYTES >> 30} GiB")
    home = path.resolve().parent
    found = [path]
    for name in sorted(_external_names(path)):
        if not name or name in (".", "..") or any(letter in name for letter in "/\\:\0"):
            raise RunError(
                f"it keeps numbers in {name[:100]!r}, and only plain names of files in its own folder are allowed"
            )
        beside = path.with_name(name)
        if not beside.is_file():
            raise RunError(f"the file {name!r} that holds its numbers is not beside it")
        if beside.resolve().parent != home:
            raise RunError(f"the file {name!r} that holds its numbers is a link to another folder")
        found.append(beside)
    if sum(file.stat().st_size for file in found) > MAX_BYTES:
        raise RunError(f"with its external data it is larger than {MAX_BYTES >> 30} GiB")
    return found


def _external_names(path: Path) -> set[str]:
    with path.open("rb") as handle:
        if not path.stat().st_size:
            raise RunError("it is empty")
        with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
            walk = _Walk(content)
            walk.go(0, len(content), "model", 0)
    if not walk.has_graph:
        raise RunError("it is no ONNX model")
    if len(walk.names) > MAX_DATA_FILES:
        raise RunError(f"its numbers lie in more than {MAX_DATA_FILES} files; save them as one")
    return walk.names


class _Walk:
    def __init__(self, content: mmap.mmap) -> None:
        self._content, self._messages = content, 0
        self.names: set[str] = set()
        self.has_graph = False

    def go(self, start: int, end: int, kind: str, depth: int) -> None:
        self._messages += 1
        if depth > MAX_DEPTH or self._messages > MAX_MESSAGES:
            raise RunError("it is nested too deeply, or has too many parts")
        key, value = b"", None
        for field, at, until in self._fields(start, end):
            inner = _HELD[kind].get(field)
            if inner:
                self.has_graph = self.has_graph or inner == "graph"
                self.go(at, until, inner, depth + 1)
            elif kind == "entry" and field == 1:
                key = self._content[at : min(until, at + 100)]
            elif kind == "entry" and field == 2:
                value = self._content[at : min(until, at + 5000)]
        if kind == "entry" and key == b"location":
            self.names.add((value or b"").decode("utf-8", "backslashreplace"))

    def _fields(self, at: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(number, start, end) of each field that holds bytes."""
        while at < end:
            tag, at = self._number(at, end)
            kind, field = tag & 7, tag >> 3
            length = 0
            if kind == _VARINT:
                _, at = self._number(at, end)
            elif kind == _BYTES:
                length, at = self._number(at, end)
            elif kind in (_EIGHT, _FOUR):
                at += 8 if kind == _EIGHT else 4
            else:
                raise RunError("it is no ONNX model")
            if field == 0 or tag >= 2**32 or at + length > end:
                raise RunError("it is no ONNX model, or cut short")
            if kind == _BYTES:
                yield field, at, at + length
                at += length

    def _number(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for count in range(10):
            if at >= end:
                raise RunError("it is no ONNX model, or cut short")
            byte = self._content[at]
            at += 1
            value |= (byte & 0x7F) << (7 * count)
            if byte < 0x80:
                return value, at
        raise RunError("it is no ONNX model")

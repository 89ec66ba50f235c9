"""Weights in HDF5, checked to be numbers that lie in the file itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py

from ductal.errors import RunError

MAX_ITEMS = 20_000  # groups and arrays; EfficientNetB7 has 3,300
MAX_DEPTH = 12


def count_numbers(path: Path) -> int:
    """How many numbers a `.weights.h5` file holds, after a check that it holds nothing else.

    Raises:
        RunError: a link to another file or place, an array of anything but numbers, one whose bytes lie elsewhere
            (external storage, virtual), or one that is packed or shorter than it says. The message is the reason.
        OSError: not an HDF5 file, or a damaged one.
    """
    with h5py.File(path, "r") as file:
        return _count(file, set(), 0)


def _count(group: h5py.Group, seen: set[int], depth: int) -> int:
    if depth > MAX_DEPTH:
        raise RunError("its weights are nested too deeply")
    total = 0
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise RunError("its weights link to another file or place")
        item = group[name]
        address = h5py.h5o.get_info(item.id).addr
        if address in seen or len(seen) > MAX_ITEMS:
            raise RunError("its weights refer to each other, or are too many")
        seen.add(address)
        if isinstance(item, h5py.Group):
            total += _count(item, seen, depth + 1)
        else:
            total += _numbers(item)
    return total


def _numbers(item: Any) -> int:
    """Size of an array of numbers whose bytes are all there."""
    if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "fiu":
        raise RunError("its weights hold something other than numbers")
    if item.external or item.is_virtual or item.chunks is not None or item.compression is not None:
        raise RunError("the numbers of its weights are packed, or lie outside of the file")
    # A file may state a size without having the bytes; h5py would make an array of that size.
    if item.size and item.id.get_storage_size() != item.size * item.dtype.itemsize:
        raise RunError("its weights are shorter than they say")
    return int(item.size or 0)

"""Ways to damage a file, for `fuzz.py`: its bytes, or its content where its form is understood."""

from __future__ import annotations

import binascii
import copy
import io
import json
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

NUMBERS = (0, 1, -1, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63), 10**400)
VALUES: tuple[Any, ...] = (
    *NUMBERS, None, True, "", "x" * 10_000, "../../etc/passwd", "\0", "\u202e", "nan", 1e308, -0.0, [], {}, [[[[]]]],
    {"class_name": "Lambda"}, {"module": "os", "class_name": "system", "config": "true"},
)  # fmt: skip
TOKENS = (b"\0", b"\n", b'"', b"'", b"[", b"{", b",", b"=", b"..", b"/", b"nan", b"1e999", b"9" * 5000, b"\xff\xfe")


def damage(path: Path, rng: random.Random) -> None:
    """Change a file in place: its content where its form is understood, or its bytes."""
    raw = path.read_bytes()
    inner = {".json": _json, ".zip": _zip, ".keras": _zip, ".png": _png}.get(path.suffix)
    by_form = rng.random() < 0.7 and (inner is not _zip or zipfile.is_zipfile(path))
    path.write_bytes((inner if inner and by_form else _bytes)(raw, rng))


def _bytes(raw: bytes, rng: random.Random) -> bytes:
    data = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(7)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            packing = rng.choice(("<H", ">H", "<L", ">L", "<Q", ">Q"))
            size = struct.calcsize(packing)
            data[at : at + size] = struct.pack(packing, rng.choice(NUMBERS[:-1]) % 2 ** (8 * size))
        elif kind == 2:
            del data[at : at + rng.choice((1, 4, 64, 4096))]
        elif kind == 3:
            data[at:at] = data[at : at + rng.choice((1, 16, 512))] * rng.choice((1, 2, 50))
        elif kind == 4:
            del data[at:]
        elif kind == 5:
            data[at:at] = rng.choice(TOKENS)
        else:
            data[at : at + 8] = rng.randbytes(8)
    return bytes(data)


def _json(raw: bytes, rng: random.Random) -> bytes:
    tree = json.loads(raw)
    for _ in range(rng.choice((1, 1, 2, 3))):
        place: Any = tree
        while True:
            keys = list(place) if isinstance(place, dict) else range(len(place))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.85:
                place = place[key]
                continue
            if isinstance(place, dict) and rng.random() < 0.2:
                del place[key]
            else:
                place[key] = copy.deepcopy(rng.choice(VALUES))
            break
    return json.dumps(tree).encode()


def _zip(raw: bytes, rng: random.Random) -> bytes:
    """A whole archive again, one member of which is damaged, renamed, doubled or packed otherwise."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    at = rng.randrange(len(members))
    name, content = members[at]
    kind = rng.randrange(6)
    if kind < 3:
        content = _json(content, rng) if name.endswith(".json") else _bytes(content, rng)
        members[at] = (name, content)
    elif kind == 3:
        renamed = rng.choice(("../x.png", "/x", "x" * 60_000, "a\u202eb.png", name.upper(), "C:\\x", "a/" * 1000))
        members[at] = (renamed, content)
    elif kind == 4:
        members.append((name, content))
    else:
        members[at] = (name, bytes(rng.choice((10**5, 3 * 10**7))))
    target = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    with zipfile.ZipFile(target, "w", method) as archive:
        for one, data in members:
            info = zipfile.ZipInfo(one)
            info.compress_type = method
            info.external_attr = rng.choice((0, 0, 0, 0o100644 << 16, 0o120777 << 16, 0o60000 << 16))
            archive.writestr(info, data)
    return target.getvalue() if rng.random() < 0.7 else _bytes(target.getvalue(), rng)


def _png(raw: bytes, rng: random.Random) -> bytes:
    """Damage within a chunk, with a checksum that fits."""
    chunks, at = [], 8
    while at + 12 <= len(raw):
        (length,) = struct.unpack_from(">L", raw, at)
        chunks.append((raw[at + 4 : at + 8], raw[at + 8 : at + 8 + length]))
        at += 12 + length
    chosen = rng.randrange(len(chunks))
    kind, content = chunks[chosen]
    chunks[chosen] = (rng.choice((kind, kind, kind, b"IDAT", b"zTXt", b"iCCP", b"acTL")), _bytes(content, rng))
    if rng.random() < 0.2:
        chunks.insert(rng.randrange(len(chunks)), chunks[chosen])
    packed = (
        struct.pack(">L", len(data)) + name + data + struct.pack(">L", binascii.crc32(name + data))
        for name, data in chunks
    )
    return raw[:8] + b"".join(packed)

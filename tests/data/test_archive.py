"""A zip is read in place, and refused before anything is unpacked when it could do harm."""

from __future__ import annotations

import pickle
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from ductal.data import archive
from ductal.data.archive import ZipReader, read_index
from ductal.errors import DataError, UnsafeArchiveError


def write_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as target:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.filename = name  # ZipInfo would clean it
            info.compress_type = method
            target.writestr(info, content)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_pickled_reader_returns_the_very_bytes(tmp_path: Path, method: int) -> None:
    files = {"a/1.png": b"one" * 50, "b/" + "long" * 60 + ".png": bytes(range(256)), "empty.png": b""}
    path = write_zip(tmp_path / "a.zip", files, method)
    index = read_index(path)
    assert index.names == list(files)
    reader = pickle.loads(pickle.dumps(ZipReader(path)))
    assert list(reader(index.locations)) == [(content, "") for content in files.values()]
    assert list(reader(index.locations[1:2])) == [(bytes(range(256)), "")]


def test_long_local_extra_fields_need_a_second_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as target:
        info = zipfile.ZipInfo("a.png")
        info.extra = struct.pack("<HH", 0x9999, 2000) + bytes(2000)
        target.writestr(info, b"content")
        target.writestr("b.png", b"next")
    index = read_index(path)
    assert [content for content, _ in ZipReader(path)(index.locations)] == [b"content", b"next"]


def test_bytes_before_the_archive_are_skipped(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.png": b"content"})
    path.write_bytes(b"#!/bin/sh\n" * 10 + path.read_bytes())
    assert [content for content, _ in ZipReader(path)(read_index(path).locations)] == [b"content"]


@pytest.mark.parametrize(
    "name", ["../x.png", "a/../../x.png", "/etc/x.png", "C:/x.png", "a\\..\\x.png", "a/..", "..", "x\0.png"]
)
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    path = write_zip(tmp_path / "a.zip", {"ok.png": b"1", name.replace("\0", "#"): b"2"})
    path.write_bytes(path.read_bytes().replace(b"x#.png", b"x\0.png"))
    with pytest.raises(UnsafeArchiveError, match="outside the archive"):
        read_index(path)


def test_two_dots_inside_a_name_are_harmless(tmp_path: Path) -> None:
    assert read_index(write_zip(tmp_path / "a.zip", {"a..b/x..png": b"1"})).names == ["a..b/x..png"]


def test_links_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as target:
        info = zipfile.ZipInfo("link.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        target.writestr(info, "/etc/passwd")
    with pytest.raises(UnsafeArchiveError, match="symbolic link"):
        read_index(path)


def test_bombs_are_refused_by_ratio_entry_and_total(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ratio = write_zip(tmp_path / "ratio.zip", {"a.png": bytes(2**20)})
    with pytest.raises(UnsafeArchiveError, match="200 times"):
        read_index(ratio)
    large = write_zip(tmp_path / "large.zip", {"a.png": bytes(2**24 + 1)}, zipfile.ZIP_STORED)
    with pytest.raises(UnsafeArchiveError, match="16 MiB"):
        read_index(large)
    monkeypatch.setattr(archive, "MAX_TOTAL_BYTES", 150)
    both = write_zip(tmp_path / "both.zip", {"a.png": bytes(range(100)), "b.png": bytes(range(100))})
    with pytest.raises(UnsafeArchiveError, match="it unpacks to"):
        read_index(both)


def test_an_entry_that_lies_about_its_size_is_not_inflated_further(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.png": bytes(2**20)})
    raw = path.read_bytes()
    path.write_bytes(raw.replace(struct.pack("<L", 2**20), struct.pack("<L", 1000)))
    ((content, problem),) = ZipReader(path)(read_index(path).locations)
    assert content is None
    assert "size" in problem


def test_a_wrong_crc_and_a_broken_stream_are_reported_per_entry(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.png": b"A" * 40 + b"B", "b.png": b"fine"}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"A" * 40, b"A" * 39 + b"X"))
    first, second = ZipReader(path)(read_index(path).locations)
    assert first[0] is None
    assert "CRC" in first[1]
    assert second == (b"fine", "")


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.png": b"secret"})
    raw = bytearray(path.read_bytes())
    central = raw.index(b"PK\x01\x02")
    raw[6] |= 1
    raw[central + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match="encrypted"):
        read_index(path)


def test_other_compression_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="method 12"):
        read_index(write_zip(tmp_path / "a.zip", {"a.png": bytes(range(200))}, zipfile.ZIP_BZIP2))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("a.png", b"1")
        target.writestr("a.png", b"2")
    with pytest.raises(DataError, match=r"'a\.png' twice"):
        read_index(path)


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_a_cut_archive_is_named_as_such(tmp_path: Path, keep: int) -> None:
    path = write_zip(tmp_path / "a.zip", {f"{i}.png": bytes(range(100)) for i in range(20)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"cut short.*Fetch it again"):
        read_index(path)

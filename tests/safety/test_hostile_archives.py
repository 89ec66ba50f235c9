"""Archives that name, place or size their entries so as to do harm are refused before anything is unpacked."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from ductal.data import archive
from ductal.data.archive import read_index
from ductal.data.manifest import read_manifest
from ductal.data.sources import open_source
from ductal.errors import DataError, UnsafeArchiveError

GENUINE = "10253/0/10253_idx5_x51_y51_class0.png"


def zipped(path: Path, *names: str, mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w") as target:
        for name in names:
            info = zipfile.ZipInfo(name)
            info.filename = name
            info.external_attr = mode << 16
            target.writestr(info, b"content")
    return path


@pytest.mark.parametrize(
    "kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK], ids=lambda kind: oct(kind)
)
def test_links_and_devices_are_refused(kind: int, tmp_path: Path) -> None:
    with pytest.raises(UnsafeArchiveError, match=r"link|device"):
        read_index(zipped(tmp_path / "a.zip", GENUINE, mode=kind | 0o644))


def test_plain_files_and_folders_are_not(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", GENUINE, mode=stat.S_IFREG | 0o644)
    with zipfile.ZipFile(path, "a") as target:
        target.mkdir("10253/1")
    assert read_index(path).names == [GENUINE]


@pytest.mark.parametrize(
    "name",
    ["", "a\nb.png", "a\x1b[2Jb", "a\u202egnp.b", "a\u200bb.png", "a\u2028b.png", "x" * 256 + ".png", "\u00e4" * 130],
    ids=["none", "newline", "terminal", "right-to-left", "invisible", "separator", "long", "long in bytes"],
)  # fmt: skip
def test_names_that_deceive_or_fit_no_disk_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsafeArchiveError, match="name that is too long or cannot be shown"):
        read_index(zipped(tmp_path / "a.zip", GENUINE, name))


def test_names_of_all_languages_are_not(tmp_path: Path) -> None:
    names = ["\u00e4\u00f6/\u60a3\u8005.png", "a b (1).png", "x" * 250]
    assert read_index(zipped(tmp_path / "a.zip", *names)).names == names


@pytest.mark.parametrize(
    ("one", "other"), [("a/X.png", "a/x.png"), ("\u00c4.png", "\u00e4.png"), ("\u00e4.png", "a\u0308.png")]
)
def test_names_that_some_disks_take_for_one_are_refused(one: str, other: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="twice but for case"):
        read_index(zipped(tmp_path / "a.zip", one, other))


def test_entries_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """The overlapping bomb: many entries of the directory over one block of data."""
    content = bytes(range(256)) * 400  # far from the ratio of a bomb
    block = zlib.compress(content, 9)[2:-4]
    fields = (0, 8, 0, 0, zlib.crc32(content), len(block), len(content), 1, 0)
    raw = b"PK\3\4" + struct.pack("<5H3L2H", 20, *fields) + b"a" + block
    start = len(raw)
    for number in range(100):
        name = b"%03d.png" % number
        raw += b"PK\1\2" + struct.pack("<6H3L5H2L", 20, 20, *fields[:-2], len(name), 0, 0, 0, 0, 0, 0) + name
    raw += b"PK\5\6" + struct.pack("<4H2LH", 0, 0, 100, 100, len(raw) - start, start, 0)
    (tmp_path / "a.zip").write_bytes(raw)
    with zipfile.ZipFile(tmp_path / "a.zip") as parsed:  # it is a zip that Python reads
        assert len(parsed.namelist()) == 100
    with pytest.raises(UnsafeArchiveError, match="overlap"):
        read_index(tmp_path / "a.zip")


@pytest.mark.parametrize("offset", [2**31, 2**32 - 2])
def test_an_entry_outside_of_the_file_is_refused(offset: int, tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", GENUINE)
    raw = bytearray(path.read_bytes())
    struct.pack_into("<L", raw, raw.index(b"PK\1\2") + 42, offset)
    path.write_bytes(raw)
    with pytest.raises(DataError, match="lies outside"):
        read_index(path)


@pytest.mark.parametrize("sizes", [(2**63, 7, 0), (7, 2**63, 0), (7, 7, 2**63), (2**64 - 1,) * 3])
def test_sizes_of_zip64_that_lie_are_refused(sizes: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as target:
        info = zipfile.ZipInfo(GENUINE)
        info.extra = struct.pack("<HH3Q", 0xFFFF, 24, *sizes)  # becomes the zip64 field below
        target.writestr(info, b"content")
    raw = bytearray(path.read_bytes())
    at = raw.index(b"PK\1\2")
    struct.pack_into("<LL", raw, at + 20, 0xFFFFFFFF, 0xFFFFFFFF)
    struct.pack_into("<L", raw, at + 42, 0xFFFFFFFF)
    struct.pack_into("<H", raw, at + 46 + len(GENUINE), 1)
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"refused|outside|is not a zip"):
        read_index(path)


def test_a_directory_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "a.zip", *(f"{number}.png" for number in range(50)))
    monkeypatch.setattr(archive, "MAX_DIRECTORY_BYTES", 1000)
    monkeypatch.setattr(zipfile, "ZipFile", None)  # it must not come to that
    with pytest.raises(UnsafeArchiveError, match="list of entries"):
        read_index(path)


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\5\6" + bytes(18), b"\0" * 100, b"PK\5\6" + b"\xff" * 18])
def test_what_is_no_archive_is_a_data_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    for read in (open_source, read_manifest):
        try:
            read(path)
        except DataError:
            continue
        assert content.startswith(b"PK\5\6")  # an empty zip is one


@pytest.mark.parametrize("patient", ["../up", "a/b", "..", ".hidden", "a\\b", "a\nb", "x" * 101, "a:b", "\u202ea"])
def test_patients_who_cannot_be_part_of_a_file_name_are_refused(patient: str, tmp_path: Path) -> None:
    """Files are named after patients, so a patient called ../x would be written outside of the folder."""
    for label in ("cancer", "not_cancer"):
        (tmp_path / "data" / label).mkdir(parents=True)
        (tmp_path / "data" / label / f"{label}.png").write_bytes(b"")
    rows = ["file,patient", f'cancer.png,"{patient}"', "not_cancer.png,2"]
    (tmp_path / "p.csv").write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(DataError, match="patient"):
        open_source(tmp_path / "data", tmp_path / "p.csv")

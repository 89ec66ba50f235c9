"""What an archive must hold: counts and digest, and the record of a download."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest
from download_server import CONTENT, EXPECTED, NAMES, OTHER, Server, get, make_zip

from ductal.data.fetch import fetch
from ductal.data.manifest import OFFICIAL, Manifest, read_manifest
from ductal.errors import DataError, FetchError


def test_digest_is_sha1_over_sorted_names_and_crcs(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(CONTENT)
    with zipfile.ZipFile(path) as archive:
        lines = sorted(f"{info.filename.rsplit('/', 1)[-1]} {info.CRC:08x}\n" for info in archive.infolist())
    assert read_manifest(path).digest == hashlib.sha1("".join(lines).encode()).hexdigest()


def test_nested_copies_and_foreign_files_do_not_count(tmp_path: Path) -> None:
    plain, nested = tmp_path / "plain.zip", tmp_path / "nested.zip"
    plain.write_bytes(CONTENT)
    copies = [f"IDC_regular_ps50_idx5/{name}" for name in NAMES]
    foreign = ["readme.txt", "__MACOSX/._" + NAMES[0].rsplit("/", 1)[-1], "10254/0/10254_x51_y51.png"]
    nested.write_bytes(make_zip([*reversed(NAMES), *copies, *foreign]))
    assert read_manifest(nested) == read_manifest(plain)


def test_other_content_under_the_same_names_changes_the_digest_only(tmp_path: Path) -> None:
    one, two = tmp_path / "one.zip", tmp_path / "two.zip"
    one.write_bytes(CONTENT)
    two.write_bytes(OTHER)
    assert EXPECTED.differences(read_manifest(one)) == EXPECTED.differences(read_manifest(two)) == []
    assert len(read_manifest(one).differences(read_manifest(two))) == 1


def test_a_hole_in_the_middle_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(CONTENT[:20_000] + CONTENT[30_000:])
    with pytest.raises(DataError, match="middle"):
        read_manifest(path)


def test_a_wrong_digest_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=f"instead of {'0' * 40}"):
        get(server, tmp_path, expected=Manifest(3, 18, 9, digest="0" * 40))
    assert not (tmp_path / "idc.zip").exists()


def test_the_recorded_digest_must_be_found_again(server: Server, tmp_path: Path) -> None:
    get(server, tmp_path)
    (tmp_path / "idc.zip").write_bytes(OTHER)
    with pytest.raises(FetchError, match="recorded earlier"):
        get(server, tmp_path)
    (tmp_path / "idc.zip").unlink()
    server.content = OTHER
    with pytest.raises(FetchError, match="recorded earlier"):
        get(server, tmp_path)
    (tmp_path / "idc.zip.manifest.json").unlink()
    assert get(server, tmp_path).path.read_bytes() == OTHER


def test_a_broken_record_says_what_to_do(server: Server, tmp_path: Path) -> None:
    get(server, tmp_path)
    (tmp_path / "idc.zip.manifest.json").write_text("[]")
    with pytest.raises(FetchError, match="Delete it"):
        get(server, tmp_path)


def test_counts_are_not_asked_of_custom_archives_but_of_the_official_one(server: Server, tmp_path: Path) -> None:
    assert get(server, tmp_path / "a", expected=None).manifest.patches == 18
    with pytest.raises(FetchError, match="18 patches instead of 277,524"):
        fetch(tmp_path / "b", server.url, backoff=0.0)


def test_official_manifest_states_the_published_counts() -> None:
    assert (OFFICIAL.patients, OFFICIAL.patches, OFFICIAL.positives, OFFICIAL.digest) == (
        279,
        277_524,
        78_786,
        None,
    )


def test_real_sample_counts(real_zip: Path) -> None:
    found = read_manifest(real_zip)
    with zipfile.ZipFile(real_zip) as archive:
        parts = [name.split("/") for name in archive.namelist() if name.endswith(".png")]
    assert found.patches == len(parts)
    assert found.patients == len({part[1] for part in parts})
    assert found.positives == sum(part[2] == "1" for part in parts)

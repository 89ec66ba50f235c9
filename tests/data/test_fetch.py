"""The download, against a real HTTP server on this machine: the way it should go, cuts and resumption."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from download_server import (
    CONTENT,
    DONE,
    NAMES,
    OTHER,
    PART,
    Handler,
    Server,
    cut,
    get,
    make_zip,
    names,
    normal,
    serving,
    status,
    without_ranges,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from ductal.data.manifest import Manifest, load_manifest
from ductal.errors import FetchError

# --- the way it should go ---------------------------------------------------------------------------------


def test_downloads_verifies_and_leaves_only_archive_and_record(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    result = get(server, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert result.path == tmp_path / "idc.zip"
    assert result.path.read_bytes() == CONTENT
    assert (result.downloaded, result.resumed, result.verified_only) == (len(CONTENT), False, False)
    assert (result.manifest.patients, result.manifest.patches, result.manifest.positives) == (3, 18, 9)
    assert names(tmp_path) == DONE
    assert server.ranges == [None]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_target_ending_in_zip_is_the_file_itself_and_folders_are_made(server: Server, tmp_path: Path) -> None:
    assert get(server, tmp_path / "a" / "mine.zip").path == tmp_path / "a" / "mine.zip"
    assert get(server, tmp_path / "b" / "c").path == tmp_path / "b" / "c" / "idc.zip"


def test_already_there_is_verified_without_any_request(server: Server, tmp_path: Path) -> None:
    first = get(server, tmp_path)
    server.requests.clear()
    again = get(server, tmp_path)
    assert server.requests == []
    assert (again.verified_only, again.downloaded, again.manifest) == (True, 0, first.manifest)


def test_already_there_but_wrong_is_kept_and_refused_unless_forced(server: Server, tmp_path: Path) -> None:
    (tmp_path / "idc.zip").write_bytes(CONTENT[:-500])
    with pytest.raises(FetchError, match=r"idc\.zip.*--force"):
        get(server, tmp_path)
    assert server.requests == []
    assert (tmp_path / "idc.zip").read_bytes() == CONTENT[:-500]
    assert get(server, tmp_path, force=True).path.read_bytes() == CONTENT
    assert names(tmp_path) == DONE


def test_force_ignores_the_partial_file_and_a_failure_keeps_the_old_archive(server: Server, tmp_path: Path) -> None:
    get(server, tmp_path)
    server.requests.clear()
    server.content, server.etag = OTHER, '"two"'
    server.script = [cut(1000), status(404)]
    with pytest.raises(FetchError, match="404"):
        get(server, tmp_path, force=True)
    assert (tmp_path / "idc.zip").read_bytes() == CONTENT
    result = get(server, tmp_path, force=True)
    assert server.ranges == [None, "bytes=1000-", None]
    assert result.path.read_bytes() == OTHER
    assert load_manifest(tmp_path / "idc.zip.manifest.json") == result.manifest


# --- cuts and resumption ----------------------------------------------------------------------------------


def test_resumes_after_several_cuts_with_range_and_if_range(server: Server, tmp_path: Path) -> None:
    server.script = [cut(10_000), cut(1), cut(20_000)]
    result = get(server, tmp_path, retries=0)  # every cut brought something, so none counts
    assert result.path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=10000-", "bytes=10001-", "bytes=30001-"]
    assert [request.get("If-Range") for request in server.requests] == [None, '"one"', '"one"', '"one"']
    assert (result.resumed, result.downloaded) == (True, len(CONTENT))
    assert names(tmp_path) == DONE


def test_resumes_in_a_later_call_with_last_modified(server: Server, tmp_path: Path) -> None:
    server.etag, server.modified = None, "Wed, 21 Oct 2015 07:28:00 GMT"
    server.script = [cut(10_000)]
    server.always = status(503)
    with pytest.raises(FetchError, match=r"503.*10,000 bytes are kept"):
        get(server, tmp_path, retries=1)
    assert len(server.requests) == 3
    assert names(tmp_path) == PART
    assert (tmp_path / "idc.zip.part").read_bytes() == CONTENT[:10_000]

    server.requests.clear()
    server.always = normal
    result = get(server, tmp_path)
    assert server.ranges == ["bytes=10000-"]
    assert server.requests[0]["If-Range"] == server.modified
    assert (result.resumed, result.downloaded) == (True, len(CONTENT) - 10_000)
    assert result.path.read_bytes() == CONTENT


def test_a_weak_etag_is_not_sent_as_if_range(server: Server, tmp_path: Path) -> None:
    server.etag = 'W/"one"'
    server.script = [cut(10_000)]
    assert get(server, tmp_path).path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=10000-"]
    assert "If-Range" not in server.requests[1]


def test_an_etag_that_no_header_can_carry_is_not_sent(server: Server, tmp_path: Path) -> None:
    server.etag = '"\u00e4"'
    server.script = [cut(10_000)]
    assert get(server, tmp_path).path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=10000-"]


def test_keyboard_interrupt_keeps_the_part_for_the_next_call(server: Server, tmp_path: Path) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(server, tmp_path, progress=stop)
    size = (tmp_path / "idc.zip.part").stat().st_size
    assert names(tmp_path) == PART
    assert size > 0
    result = get(server, tmp_path)
    assert result.path.read_bytes() == CONTENT
    assert result.downloaded == len(CONTENT) - size


def test_a_complete_part_needs_no_further_byte(server: Server, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="18 patches instead of 19"):
        get(server, tmp_path, expected=Manifest(3, 19, 9))
    assert names(tmp_path) == PART
    result = get(server, tmp_path)
    assert server.ranges == [None, f"bytes={len(CONTENT)}-"]
    assert (result.downloaded, result.resumed) == (0, True)
    assert result.path.read_bytes() == CONTENT


def test_a_server_that_ignores_range_restarts_and_never_appends(server: Server, tmp_path: Path) -> None:
    server.script = [without_ranges(30_000), without_ranges(20_000)]
    server.always = without_ranges()
    result = get(server, tmp_path)
    assert server.ranges == [None, "bytes=30000-", "bytes=20000-"]
    assert result.path.read_bytes() == CONTENT
    assert not result.resumed


def test_a_range_in_pieces_is_asked_for_until_complete(server: Server, tmp_path: Path) -> None:
    def piece(handler: Handler) -> None:
        body = CONTENT[10_000:20_000]
        handler.answer(206, body, Content_Range=f"bytes 10000-19999/{len(CONTENT)}")

    server.script = [cut(10_000), piece]
    assert get(server, tmp_path, retries=0).path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=10000-", "bytes=20000-"]


def test_a_restart_frees_the_old_bytes_before_it_asks_for_room(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage, left = shutil.disk_usage(tmp_path), []

    def look(_: Path) -> object:
        left.append([name for name in names(tmp_path) if name != ".idc.zip.lock"])
        return usage

    monkeypatch.setattr(shutil, "disk_usage", look)
    server.script = [without_ranges(30_000), without_ranges()]
    assert get(server, tmp_path).path.read_bytes() == CONTENT
    assert left == [[], []]


def test_cut_at_the_same_place_for_ever_gives_up(server: Server, tmp_path: Path) -> None:
    server.always = without_ranges(5000)
    with pytest.raises(FetchError, match="cut"):
        get(server, tmp_path, retries=3)
    assert len(server.requests) == 1 + 4  # the first one brought bytes and does not count
    assert (tmp_path / "idc.zip.part").read_bytes() == CONTENT[:5000]


@pytest.mark.parametrize("honours_if_range", [True, False])
def test_changed_content_restarts(server: Server, tmp_path: Path, honours_if_range: bool) -> None:
    def change(handler: Handler) -> None:
        server.content, server.etag = OTHER, '"two"'
        if not honours_if_range:
            del handler.headers["If-Range"]
        normal(handler)

    server.script = [cut(10_000), change]
    assert get(server, tmp_path).path.read_bytes() == OTHER
    assert server.ranges == [None, "bytes=10000-"] + ([] if honours_if_range else [None])


def test_changed_length_restarts_where_the_server_names_no_etag(server: Server, tmp_path: Path) -> None:
    server.etag = None
    longer = make_zip([*NAMES, "readme.txt"], seed=1)

    def change(handler: Handler) -> None:
        server.content = longer
        normal(handler)

    server.script = [cut(10_000), change]
    assert get(server, tmp_path).path.read_bytes() == longer
    assert server.ranges == [None, "bytes=10000-", None]


def test_416_for_a_file_that_became_shorter_restarts(server: Server, tmp_path: Path) -> None:
    shorter = make_zip(NAMES[:6])
    server.etag = None

    def change(handler: Handler) -> None:
        server.content = shorter
        normal(handler)

    server.script = [cut(60_000), change]
    result = get(server, tmp_path, expected=Manifest(1, 6, 3))
    assert result.path.read_bytes() == shorter
    assert server.ranges == [None, "bytes=60000-", None]


def test_a_part_of_another_address_or_without_its_record_is_not_continued(server: Server, tmp_path: Path) -> None:
    (tmp_path / "idc.zip.part").write_bytes(b"x" * 100)
    assert get(server, tmp_path).path.read_bytes() == CONTENT
    (tmp_path / "idc.zip").unlink()
    (tmp_path / "idc.zip.part").write_bytes(b"x" * 100)
    state = {
        "url": "http://elsewhere/idc.zip",
        "etag": '"one"',
        "last_modified": None,
        "length": len(CONTENT),
    }
    (tmp_path / "idc.zip.part.json").write_text(json.dumps(state))
    assert get(server, tmp_path).path.read_bytes() == CONTENT
    assert server.ranges == [None, None]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, len(CONTENT)), max_size=6))
def test_cut_anywhere_ends_in_identical_bytes(cuts: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder, serving() as server:
        server.script = [cut(length) for length in cuts]
        result = get(server, Path(folder), retries=len(cuts))
        assert result.path.read_bytes() == CONTENT
        assert names(Path(folder)) == DONE

"""The download, against a real HTTP server on this machine that misbehaves on request."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import random
import shutil
import socket
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ductal.data.fetch import OFFICIAL_URL, FetchResult, fetch
from ductal.data.manifest import OFFICIAL, Manifest, load_manifest, read_manifest
from ductal.errors import DataError, FetchError, StorageError

NAMES = [
    f"IDC_regular_ps50_idx5/{patient}/{label}/{patient}_idx5_x{x}_y51_class{label}.png"
    for patient in ("8863", "9036", "10254")
    for label in (0, 1)
    for x in (51, 101, 151)
]


def make_zip(names: list[str] = NAMES, seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            content = random.Random(f"{seed} {name.rsplit('/', 1)[-1]}").randbytes(4000)
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


CONTENT = make_zip()
OTHER = make_zip(seed=1)
EXPECTED = Manifest(patients=3, patches=18, positives=9)

Behaviour = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.requests.append(dict(self.headers.items()))
        behaviour = self.server.script.pop(0) if self.server.script else self.server.always
        behaviour(self)

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, status: int, body: bytes, **headers: object) -> None:
        """Headers with underscores for dashes; Content_Length may differ from the body."""
        self.send_response(status)
        for name, value in ({"Content_Length": len(body)} | headers).items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def asked_start(self) -> int | None:
        """The first byte asked for, or None when the whole file is to be sent."""
        server, wanted = self.server, self.headers.get("Range")
        condition = self.headers.get("If-Range")
        if wanted is None or (condition and condition not in (server.etag, server.modified)):
            return None
        return int(wanted.removeprefix("bytes=").removesuffix("-"))


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, str]] = []
        self.script: list[Behaviour] = []
        self.always: Behaviour = normal
        self.content = CONTENT
        self.etag: str | None = '"one"'
        self.modified: str | None = None
        self.released = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/webdata/idc.zip"

    @property
    def ranges(self) -> list[str | None]:
        return [request.get("Range") for request in self.requests]

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that hang up are part of the tests


@contextmanager
def serving() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()


def partial(handler: Handler, send: int | None = None, pad: int = 0, surplus: bytes = b"") -> None:
    """A right answer of which only `send` bytes come; `pad` bytes too many are announced."""
    server, start = handler.server, handler.asked_start()
    marks: dict[str, object] = {"ETag": server.etag, "Last_Modified": server.modified}
    total = len(server.content) + pad
    if start is None:
        body = server.content[:send]
        handler.answer(200, body, **marks, Content_Length=total)
    elif start >= total:
        handler.answer(416, b"", Content_Range=f"bytes */{total}")
    else:
        body = server.content[start:][:send] + surplus
        marks["Content_Range"] = f"bytes {start}-{total - 1}/{total}"
        handler.answer(206, body, **marks, Content_Length=total - start + len(surplus))


def normal(handler: Handler) -> None:
    partial(handler)


def cut(after: int) -> Behaviour:
    return lambda handler: partial(handler, send=after)


def without_ranges(send: int | None = None) -> Behaviour:
    def behave(handler: Handler) -> None:
        content = handler.server.content
        handler.answer(200, content[:send], Content_Length=len(content))

    return behave


def status(code: int) -> Behaviour:
    return lambda handler: handler.answer(code, b"sorry")


def silent(handler: Handler) -> None:
    handler.server.released.wait(10)


@pytest.fixture(autouse=True, scope="module")
def _no_proxy() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def get(server: Server, out: Path, **options: Any) -> FetchResult:
    return fetch(out, server.url, **{"expected": EXPECTED, "backoff": 0.0, "timeout": 5.0} | options)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


PART = ["idc.zip.part", "idc.zip.part.json"]
DONE = ["idc.zip", "idc.zip.manifest.json"]


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


def test_a_target_ending_in_zip_is_the_file_itself_and_folders_are_made(
    server: Server, tmp_path: Path
) -> None:
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


def test_force_ignores_the_partial_file_and_a_failure_keeps_the_old_archive(
    server: Server, tmp_path: Path
) -> None:
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
        left.append(names(tmp_path))
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


def test_a_part_of_another_address_or_without_its_record_is_not_continued(
    server: Server, tmp_path: Path
) -> None:
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


# --- servers that lie -------------------------------------------------------------------------------------


def test_wrong_content_range_is_refused_and_the_part_untouched(server: Server, tmp_path: Path) -> None:
    length = len(CONTENT)
    server.script = [
        cut(10_000),
        lambda handler: handler.answer(206, CONTENT, Content_Range=f"bytes 0-{length - 1}/{length}"),
    ]
    with pytest.raises(FetchError, match="bytes 0-"):
        get(server, tmp_path)
    assert len(server.requests) == 2
    assert (tmp_path / "idc.zip.part").read_bytes() == CONTENT[:10_000]
    assert names(tmp_path) == PART


def test_announcing_more_than_it_has_is_resumed_then_given_up(server: Server, tmp_path: Path) -> None:
    server.always = lambda handler: partial(handler, pad=100)
    with pytest.raises(FetchError, match="cut"):
        get(server, tmp_path, retries=2)
    assert server.ranges == [None] + [f"bytes={len(CONTENT)}-"] * 3
    assert (tmp_path / "idc.zip.part").read_bytes() == CONTENT
    assert names(tmp_path) == PART


def test_more_than_announced_is_never_kept(server: Server, tmp_path: Path) -> None:
    server.script = [cut(10_000), lambda handler: partial(handler, surplus=b"x" * 50)]
    with pytest.raises(FetchError, match="more than"):
        get(server, tmp_path)
    assert (tmp_path / "idc.zip.part").read_bytes() == CONTENT
    assert names(tmp_path) == PART


def test_announcing_less_than_it_sends_is_found_out_by_the_zip_check(server: Server, tmp_path: Path) -> None:
    short = len(CONTENT) - 50
    server.always = lambda handler: handler.answer(200, CONTENT, Content_Length=short)
    with pytest.raises(FetchError, match="is not a zip"):
        get(server, tmp_path, expected=None)
    assert (tmp_path / "idc.zip.part").read_bytes() == CONTENT[:short]
    assert names(tmp_path) == PART


def test_a_page_instead_of_an_archive(server: Server, tmp_path: Path) -> None:
    server.content = b"<html>Please log in</html>"
    with pytest.raises(FetchError, match="is not a zip"):
        get(server, tmp_path, expected=None)


# --- failures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [403, 404])
def test_4xx_is_not_retried(server: Server, tmp_path: Path, code: int) -> None:
    server.always = status(code)
    with pytest.raises(FetchError, match=f"{server.url}.*{code}.*Check the address"):
        get(server, tmp_path)
    assert len(server.requests) == 1
    assert names(tmp_path) == []


def test_5xx_is_retried(server: Server, tmp_path: Path) -> None:
    server.script = [status(500), status(503)]
    assert get(server, tmp_path, retries=2).path.read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_5xx_for_ever(server: Server, tmp_path: Path) -> None:
    server.always = status(502)
    with pytest.raises(FetchError, match=f"{server.url}.*502"):
        get(server, tmp_path, retries=2)
    assert len(server.requests) == 3


def test_backoff_doubles(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("ductal.data.transfer.time.sleep", pauses.append)
    server.script = [status(500)] * 3 + [cut(1000), status(500)]
    get(server, tmp_path, backoff=2.0)
    assert pauses == [2.0, 4.0, 8.0, 2.0, 2.0]


def test_no_answer_times_out_and_is_retried(server: Server, tmp_path: Path) -> None:
    server.script = [silent]
    assert get(server, tmp_path, timeout=0.2, retries=1).path.read_bytes() == CONTENT
    server.always = silent
    with pytest.raises(FetchError, match=r"nothing came for 0\.2 seconds"):
        get(server, tmp_path / "b", timeout=0.2, retries=1)
    assert len(server.requests) == 4


def test_connection_refused_says_how_else(tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound but not listening: refuses
        with pytest.raises(FetchError, match=r"by hand.*Kaggle") as caught:
            fetch(tmp_path, f"http://127.0.0.1:{held.getsockname()[1]}/idc.zip", backoff=60.0)
    assert OFFICIAL_URL in str(caught.value)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "url", ["ftp://h/a.zip", "file:///etc/passwd", "idc.zip", "http:///a.zip", "http://[::1/a"]
)
def test_only_http_addresses(tmp_path: Path, url: str) -> None:
    with pytest.raises(FetchError, match="http"):
        fetch(tmp_path, url)


def test_redirects_are_followed_with_a_bound(server: Server, tmp_path: Path) -> None:
    server.script = [lambda handler: handler.answer(302, b"", Location="/moved.zip")]
    assert get(server, tmp_path).path == tmp_path / "idc.zip"
    assert len(server.requests) == 2
    server.requests.clear()
    server.always = lambda handler: handler.answer(302, b"", Location="/again.zip")
    with pytest.raises(FetchError, match="redirect"):
        get(server, tmp_path / "b")
    assert len(server.requests) <= 6


def test_a_redirect_away_from_http_is_refused(server: Server, tmp_path: Path) -> None:
    server.always = lambda handler: handler.answer(302, b"", Location="ftp://127.0.0.1/idc.zip")
    with pytest.raises(FetchError, match="leads nowhere"):
        get(server, tmp_path)
    assert len(server.requests) == 1


def test_no_room_is_found_before_the_first_byte(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=len(CONTENT) - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match=f"{len(CONTENT) - 1:,} bytes free, and {len(CONTENT):,}"):
        get(server, tmp_path)
    assert names(tmp_path) == []


def test_only_the_missing_bytes_need_room(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script = [cut(10_000), status(404)]
    with pytest.raises(FetchError, match="404"):
        get(server, tmp_path)
    usage = shutil.disk_usage(tmp_path)._replace(free=len(CONTENT) - 10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert get(server, tmp_path).path.read_bytes() == CONTENT


def test_disk_full_while_writing_keeps_what_came(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullDisk(io.FileIO):
        def write(self, data: Any) -> int:
            room = 30_000 - self.tell()
            if room <= 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(memoryview(data)[:room])

    real_open = Path.open

    def full(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if path.suffix == ".part" and not path.name.startswith(".") and mode in ("wb", "r+b"):
            return FullDisk(path, mode.replace("b", ""))
        return real_open(path, mode, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(StorageError, match=r"No space left.*kept"):
            get(server, tmp_path)
    assert (tmp_path / "idc.zip.part").read_bytes() == CONTENT[:30_000]
    assert names(tmp_path) == PART
    assert get(server, tmp_path).path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=30000-"]


# --- the manifest -----------------------------------------------------------------------------------------


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


def test_counts_are_not_asked_of_custom_archives_but_of_the_official_one(
    server: Server, tmp_path: Path
) -> None:
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

"""The download from servers that lie or fail, and on disks that refuse."""

from __future__ import annotations

import errno
import io
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from download_server import CONTENT, PART, Server, cut, get, names, partial, silent, status

from ductal.data.fetch import OFFICIAL_URL, fetch
from ductal.errors import BusyError, FetchError, StorageError


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


@pytest.mark.parametrize("modified", ["Mo, 3. M\xe4r 2025", "Mon,\x013 Mar 2025"])
def test_a_date_that_no_header_may_hold_is_not_sent_back(server: Server, tmp_path: Path, modified: str) -> None:
    server.etag, server.modified = None, modified
    server.script = [cut(10_000)]
    assert get(server, tmp_path).path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=10000-"]
    assert "If-Range" not in server.requests[1]


def test_two_at_once_do_not_write_into_each_other(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ductal.locks.PATIENCE_SECONDS", 0.0)

    def while_it_comes(done: int, total: int | None) -> None:  # noqa: ARG001
        with pytest.raises(BusyError, match=r"idc\.zip is being written"):
            get(server, tmp_path)

    assert get(server, tmp_path, progress=while_it_comes).path.read_bytes() == CONTENT
    assert len(server.requests) == 1


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


@pytest.mark.parametrize("url", ["ftp://h/a.zip", "file:///etc/passwd", "idc.zip", "http:///a.zip", "http://[::1/a"])
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


def test_only_the_missing_bytes_need_room(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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

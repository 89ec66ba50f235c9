"""One file on its way over HTTP: continued where it was cut, tried again, never mixed with another file."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from ductal.errors import DuctalError, FetchError, StorageError
from ductal.files import write_text
from ductal.loading.records import read_json

OFFICIAL_URL = "http://gleason.case.edu/webdata/jpi-dl-tutorial/IDC_regular_ps50_idx5.zip"
BY_HAND = (
    f"The archive can also be fetched by hand from {OFFICIAL_URL} or from Kaggle (search for "
    "'Breast Histopathology Images'), and its path given instead of an address."
)
_MAX_REDIRECTS = 5
_LONGEST_PAUSE = 60.0
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")

Progress = Callable[[int, int | None], None]


class _Interrupted(Exception):  # noqa: N818 - not an error for the caller: the transfer may go on
    """This attempt failed in a way that another attempt may mend."""


@dataclass(frozen=True)
class Identity:
    """Which content a partial file belongs to; kept beside it as JSON. None means not known."""

    url: str
    etag: str | None = None
    last_modified: str | None = None
    length: int | None = None

    def agrees(self, other: Identity) -> bool:
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return all(a == b or a is None or b is None for a, b in pairs)

    @property
    def validator(self) -> str | None:
        """What If-Range may carry: a weak ETag does not promise equal bytes (RFC 9110, 13.1.5); a header is ASCII."""
        strong = self.etag if self.etag and not self.etag.startswith("W/") else None
        known = filter(None, (strong, self.last_modified))
        return next((value for value in known if value.isascii() and value.isprintable()), None)


@contextlib.contextmanager
def disk(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses into a StorageError."""
    try:
        yield
    except OSError as error:
        if isinstance(error, DuctalError):
            raise
        raise StorageError(
            f"Could not write {path}: {error.strerror or error}. What had come is kept; "
            "free space or make the folder writable, and run it again to continue."
        ) from error


class Transfer:
    """One file on its way: the partial file, what it is a part of, and the attempts to complete it."""

    def __init__(self, url: httpx.URL, target: Path, timeout: float, progress: Progress | None) -> None:
        self.url = str(url)
        self.part = target.with_name(f"{target.name}.part")
        self.state = target.with_name(f"{target.name}.part.json")
        self.timeout = timeout
        self.progress = progress
        self.received = 0
        self.resumed = False

    def run(self, retries: int, backoff: float) -> None:
        """Attempt until the partial file is complete, or `retries` further attempts brought nothing more."""
        furthest = self._resume_point()[0]
        failures = 0
        while True:
            try:
                return self._attempt()
            except _Interrupted as interruption:
                size = self.part.stat().st_size if self.part.exists() else 0
                # Measured against the furthest point ever: a server that always restarts from zero and
                # is always cut at the same place makes no progress.
                failures = 0 if size > furthest else failures + 1
                furthest = max(furthest, size)
                if failures > retries:
                    kept = (
                        f" {size:,} bytes are kept in {self.part}; run it again to continue." if size else ""
                    )
                    raise FetchError(
                        f"The download of {self.url} failed: {interruption}.{kept} {BY_HAND}"
                    ) from interruption
                time.sleep(min(backoff * 2 ** max(failures - 1, 0), _LONGEST_PAUSE))

    def discard(self) -> None:
        """Forget the partial file."""
        self.part.unlink(missing_ok=True)
        self.state.unlink(missing_ok=True)

    def _resume_point(self) -> tuple[int, Identity]:
        """Bytes there that belong to this address, and what they are a part of."""
        try:
            known = Identity(**read_json(self.state))
            size = self.part.stat().st_size
            usable = known.url == self.url and 0 < size <= (known.length or size)
        except (OSError, ValueError, TypeError):
            usable = False
        return (size, known) if usable else (0, Identity(self.url))

    def _attempt(self) -> None:
        """One request. Returns with the partial file complete, or raises _Interrupted."""
        offset, known = self._resume_point()
        # Identity: the lengths and ranges must count the bytes of the file, not of a compressed form of it.
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if known.validator:
                headers["If-Range"] = known.validator
        try:
            with (
                httpx.Client(
                    follow_redirects=True, max_redirects=_MAX_REDIRECTS, timeout=self.timeout
                ) as client,
                client.stream("GET", self.url, headers=headers) as response,
            ):
                self._take(response, offset, known)
        except httpx.ConnectError as error:
            if self.received:
                raise _Interrupted(f"the connection was lost ({error})") from error
            raise FetchError(
                f"Could not connect to {self.url} ({error}). Check the address and the network. {BY_HAND}"
            ) from error
        except httpx.TimeoutException as error:
            raise _Interrupted(f"nothing came for {self.timeout:g} seconds") from error
        except (httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
            raise FetchError(
                f"{self.url} leads nowhere ({error}); at most {_MAX_REDIRECTS} redirects to http or https "
                f"addresses are followed. Check the address. {BY_HAND}"
            ) from error
        except httpx.TransportError as error:
            raise _Interrupted(f"the connection was cut ({error})") from error

    def _take(self, response: httpx.Response, offset: int, known: Identity) -> None:
        """Judge the answer to a request for the bytes from `offset`, and write what it brings."""
        status = response.status_code
        if status == 200:  # also the answer to a Range when the server has no ranges, or other content
            total = self._take_all(response)
        elif status == 206 and offset:
            total = self._take_rest(response, offset, known)
        elif status == 416 and offset:
            total = _content_range(response)[2] or known.length
            if total != offset or known.length not in (None, total):
                self._restart(f"{known.length} bytes were announced, now {total}; {offset} had come")
            self.resumed = True
        elif status >= 500:
            raise _Interrupted(f"the server answered with status {status}, which may pass; try again later")
        else:
            raise FetchError(
                f"{self.url} answered with status {status} {response.reason_phrase}: the file is not to be "
                f"had there. Check the address. {BY_HAND}"
            )
        size = self.part.stat().st_size
        if total is not None and size < total:
            raise _Interrupted(f"the server stopped after {size:,} of {total:,} bytes")

    def _take_all(self, response: httpx.Response) -> int | None:
        """Write the whole file from its first byte; returns its announced length."""
        total = _content_length(response)
        with disk(self.part):
            self.discard()
        self._make_room(total or 0)
        write_text(self.state, json.dumps(dataclasses.asdict(self._identity(response, total))))
        self._write(response, 0, total, total)
        return total

    def _take_rest(self, response: httpx.Response, offset: int, known: Identity) -> int | None:
        """Write a range from `offset` on, if it is that and of the same file; returns the file's length."""
        start, end, total = _content_range(response)
        if start != offset or end is None:
            raise FetchError(
                f"{self.url} was asked for the bytes from {offset} on and answered with the range "
                f"{response.headers.get('Content-Range')!r}. Nothing was taken from it; pass force=True "
                f"(--force) to start again from the first byte. {BY_HAND}"
            )
        if not known.agrees(self._identity(response, total)):
            self._restart("the file at the server has changed")
        total = total or known.length
        self._make_room((total or end + 1) - offset)
        self.resumed = True
        self._write(response, offset, min(end + 1, total or end + 1), total)
        return total

    def _identity(self, response: httpx.Response, length: int | None) -> Identity:
        headers = response.headers
        return Identity(self.url, headers.get("ETag"), headers.get("Last-Modified"), length)

    def _restart(self, reason: str) -> None:
        """Give up the partial file; the next attempt starts at the first byte."""
        with disk(self.part):
            self.discard()
        raise _Interrupted(f"{reason}, so it must start again")

    def _make_room(self, needed: int) -> None:
        available = shutil.disk_usage(self.part.parent).free
        if needed > available:
            raise StorageError(
                f"{self.part.parent} has {available:,} bytes free, and {needed:,} are still needed for "
                f"{self.url}. Free space or choose another folder, then run it again."
            )

    def _write(self, response: httpx.Response, offset: int, limit: int | None, total: int | None) -> None:
        """Write the body at `offset`; FetchError when it would go beyond `limit` bytes of the file."""
        with disk(self.part):
            # Not append: written where it belongs, whatever else happens to the file. Not buffered: after a
            # full disk, closing has nothing left to write.
            handle = self.part.open("r+b" if offset else "wb", buffering=0)
        with handle:
            handle.seek(offset)
            for chunk in response.iter_raw():
                room = len(chunk) if limit is None else min(len(chunk), limit - offset)
                rest = memoryview(chunk)[:room]
                while rest:
                    with disk(self.part):
                        rest = rest[handle.write(rest) :]
                offset += room
                self.received += room
                if self.progress:
                    self.progress(offset, total)
                if room < len(chunk):
                    raise FetchError(
                        f"{self.url} sent more than the {limit:,} bytes it had announced; the surplus was "
                        f"dropped. Pass force=True (--force) to start again from the first byte. {BY_HAND}"
                    )


def _content_length(response: httpx.Response) -> int | None:
    value = response.headers.get("Content-Length", "")
    return int(value) if value.isdecimal() else None


def _content_range(response: httpx.Response) -> tuple[int | None, int | None, int | None]:
    """Start, end (inclusive) and total of the Content-Range header; None for what it does not say."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if match is None:
        return None, None, None
    start, end, total = (int(part) if part and part.isdecimal() else None for part in match.groups())
    return start, end, total

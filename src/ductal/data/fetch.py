"""Download the IDC archive: resumable over a bad line, verified, and whole or absent."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import httpx

from ductal.data.manifest import OFFICIAL, Manifest, save_manifest, verify
from ductal.data.transfer import BY_HAND, OFFICIAL_URL, Progress, Transfer, disk
from ductal.errors import FetchError, StorageError
from ductal.files import sole_writer

__all__ = ["BY_HAND", "OFFICIAL_URL", "FetchResult", "fetch"]


class FetchResult(NamedTuple):
    """What `fetch` did: the verified file, its manifest, the bytes received by this call, whether a partial
    file was continued, and whether the file was already there and only verified (no request made)."""

    path: Path
    manifest: Manifest
    downloaded: int
    resumed: bool
    verified_only: bool


def fetch(
    out: Path,
    url: str = OFFICIAL_URL,
    *,
    expected: Manifest | None = OFFICIAL,
    progress: Progress | None = None,
    retries: int = 5,
    timeout: float = 30.0,
    backoff: float = 1.0,
    force: bool = False,
) -> FetchResult:
    """Download a patch archive, continuing where an earlier attempt was cut, and verify it.

    The transfer goes to `<name>.part` (with `<name>.part.json`, which says what it is a part of) and is
    renamed when complete and verified, so the target is whole or absent. A file already there is verified
    and not fetched again. The manifest found is recorded in `<name>.manifest.json`; a later call must find
    the same digest.

    Args:
        out: the target file if it ends in .zip, else a folder, which gets the file name of the address.
        url: http or https address.
        expected: counts (and digest, if any) the archive must have; None only requires a complete zip file.
        progress: called with (bytes there, bytes in all or None).
        retries: attempts after a failure which brought no further bytes; a cut with progress is not counted.
        timeout: seconds without any answer or byte after which an attempt has failed.
        backoff: seconds before the first retry, doubled for each further failure, at most 60.
        force: fetch again from the first byte, and replace the file and recorded manifest that are there.

    Raises:
        FetchError: the address, the server or the connection failed, or what came is not the archive.
        StorageError: no room, or the disk refused the write; the partial file is kept. BusyError: another command
            fetches the same file.
    """
    address = _checked_url(url)
    target = out
    if out.is_dir() or out.suffix.lower() != ".zip":
        target = out / _file_name(address)
    record = target.with_name(f"{target.name}.manifest.json")
    if target.exists() and not force:
        return _already_there(target, expected, record)
    with sole_writer(target):
        if target.exists() and not force:  # another command has fetched it meanwhile
            return _already_there(target, expected, record)
        transfer = Transfer(address, target, timeout, progress)
        if force:
            with disk(target):
                transfer.discard()
        transfer.run(retries, backoff)
        manifest = _take(transfer, target, expected, record, force=force)
    return FetchResult(target, manifest, transfer.received, transfer.resumed, verified_only=False)


def _already_there(target: Path, expected: Manifest | None, record: Path) -> FetchResult:
    manifest = verify(
        target, expected, record, "Move it away, or pass force=True (--force) to fetch it again."
    )
    # An archive in a read-only folder is still a good archive.
    with contextlib.suppress(StorageError):
        save_manifest(manifest, record)
    return FetchResult(target, manifest, 0, resumed=False, verified_only=True)


def _take(transfer: Transfer, target: Path, expected: Manifest | None, record: Path, *, force: bool) -> Manifest:
    """Verify what has come, and give it its name."""
    advice = f"It was kept as {transfer.part}. Pass force=True (--force) to fetch it again. {BY_HAND}"
    with disk(transfer.part), transfer.part.open("rb") as handle:
        os.fsync(handle.fileno())
    manifest = verify(transfer.part, expected, None if force else record, advice)
    with disk(target):
        transfer.part.replace(target)
        transfer.state.unlink(missing_ok=True)
    save_manifest(manifest, record)
    return manifest


def _checked_url(url: str) -> httpx.URL:
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise FetchError(f"{url!r} is no http:// or https:// address ({error}).") from error
    if address.scheme not in ("http", "https") or not address.host:
        raise FetchError(f"{url!r} cannot be fetched: only http:// and https:// addresses with a host can.")
    return address


def _file_name(address: httpx.URL) -> str:
    name = PurePosixPath(address.path).name
    return name if name not in ("", "..") else "archive.zip"

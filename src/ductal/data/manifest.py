"""What an archive should hold, and what a zip file does hold, read from its directory alone."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ductal.data.archive import list_entries
from ductal.data.naming import parse_patch_name
from ductal.errors import DataError, FetchError
from ductal.files import write_text
from ductal.loading.records import read_json


@dataclass(frozen=True)
class Manifest:
    """The counts of an archive and the digest of its contents.

    Attributes:
        patients: different patient ids among the genuine patch names.
        patches: different genuine patch names; a nested second copy (Kaggle) counts once.
        positives: patches whose name says class 1 (IDC).
        digest: "hash of hashes", hex SHA-1 over the sorted lines "<file name> <crc32 hex>" of the genuine
            patches, one per line; None when no trustworthy value is known. The CRC-32 values come from the
            zip directory and nothing is decompressed: the digest tells one edition of the archive from
            another within seconds, but is no protection against deliberate forgery, and does not notice
            damage inside the compressed data (which reading the patches does).
    """

    patients: int
    patches: int
    positives: int
    digest: str | None = None

    def differences(self, found: Manifest) -> list[str]:
        """What differs in `found`, one phrase each; a digest that is None on either side is not compared."""
        lines = [
            f"{getattr(found, name):,} {name} instead of {getattr(self, name):,}"
            for name in ("patients", "patches", "positives")
            if getattr(found, name) != getattr(self, name)
        ]
        if self.digest and found.digest and self.digest != found.digest:
            lines.append(f"digest {found.digest} instead of {self.digest}")
        return lines


# Case Western Reserve, IDC_regular_ps50_idx5.zip. Nobody publishes a checksum, so there is no digest.
OFFICIAL = Manifest(patients=279, patches=277_524, positives=78_786)


def read_manifest(path: Path) -> Manifest:
    """Count patients, patches and positives of the zip file `path` and digest its directory.

    Raises:
        DataError: `path` is not a readable, complete zip file.
    """
    checksums: set[tuple[str, int]] = set()
    patients: dict[str, str] = {}
    positives: set[str] = set()
    for entry in _directory(path):
        name = entry.filename.rsplit("/", 1)[-1]
        patch = parse_patch_name(name)
        if patch is None:
            continue
        checksums.add((name, entry.CRC))
        patients[name] = patch.patient
        if patch.label == 1:
            positives.add(name)
    lines = "".join(f"{name} {crc:08x}\n" for name, crc in sorted(checksums))
    return Manifest(
        patients=len(set(patients.values())),
        patches=len(patients),
        positives=len(positives),
        digest=hashlib.sha1(lines.encode(), usedforsecurity=False).hexdigest(),
    )


def _directory(path: Path) -> list[zipfile.ZipInfo]:
    # A hole in the middle leaves the directory readable and moves the entries to before the file's start.
    entries, _ = list_entries(path)
    if any(entry.header_offset < 0 for entry in entries):
        raise DataError(f"{path} is not a complete zip file: bytes are missing from its middle.")
    return entries


def save_manifest(manifest: Manifest, path: Path) -> None:
    """Record `manifest` as JSON at `path`. Raises StorageError when the disk refuses."""
    write_text(path, json.dumps(dataclasses.asdict(manifest), indent=2) + "\n")


def load_manifest(path: Path) -> Manifest | None:
    """The manifest recorded at `path`, or None when there is none.

    Raises:
        DataError: the file is there but is not a recorded manifest.
    """
    if not path.exists():
        return None
    try:
        values = read_json(path)
        counts = {name: int(values[name]) for name in ("patients", "patches", "positives")}
        return Manifest(**counts, digest=values["digest"])
    except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise DataError(
            f"{path} is not a recorded manifest ({error!r}). Delete it, and it will be written anew."
        ) from error


def verify(path: Path, expected: Manifest | None, record: Path | None, advice: str) -> Manifest:
    """The manifest of the zip file `path`, once it fits `expected` and the one recorded earlier.

    Args:
        path: the zip file.
        expected: counts (and digest, if any) it must have; None only requires a complete zip file.
        record: where an earlier call may have recorded a manifest; None compares with nothing.
        advice: what the user can do, the last sentence of every message.

    Raises:
        FetchError: not a complete zip file, other counts, or another digest.
    """
    try:
        found = read_manifest(path)
        recorded = load_manifest(record) if record else None
    except DataError as error:
        raise FetchError(f"{error} {advice}") from error
    if expected is not None and (differences := expected.differences(found)):
        raise FetchError(f"{path} is not the archive expected: {'; '.join(differences)}. {advice}")
    if recorded is not None and (differences := recorded.differences(found)):
        raise FetchError(
            f"{path} differs from what {record} recorded earlier: {'; '.join(differences)}. "
            f"If the change is meant, delete that record. {advice}"
        )
    return found

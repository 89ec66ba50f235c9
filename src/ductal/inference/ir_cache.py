"""OpenVINO's form of a network, kept in the run folder and used only if it was made by this user.

A run from a stranger could bring an OpenVINO model that is not its `model.keras`, and OpenVINO's parser would meet
the hostile bytes. So the kept form carries a seal, an HMAC over `model.keras` and the form's own files, with a random
key that never leaves this user's cache folder. Elsewhere it is simply made again.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

from ductal.machine import cache_folder

IR_FOLDER = "openvino"
MODEL = "model.xml"
_SEAL = "seal"
_KEY = "seal.key"
_PARTS = (MODEL, "model.bin")


def is_ours(run_folder: Path) -> bool:
    """Whether the kept form is there, made by this user, and made of this `model.keras`."""
    try:
        found = (run_folder / IR_FOLDER / _SEAL).read_bytes()
        return hmac.compare_digest(found, _seal_of(run_folder / "model.keras", run_folder / IR_FOLDER).encode())
    except (OSError, RuntimeError):  # a part of it is missing, or there is no key, or no home to look for it in
        return False


def seal(source: Path, folder: Path) -> None:
    """Mark the form in `folder` as made by this user of the file `source`. Raises OSError."""
    (folder / _SEAL).write_text(_seal_of(source, folder, make_key=True), encoding="ascii")


def _seal_of(source: Path, folder: Path, *, make_key: bool = False) -> str:
    mark = hmac.new(_key(make=make_key), digestmod="sha256")
    for path in (source, *(folder / part for part in _PARTS)):
        with path.open("rb") as handle:
            mark.update(hashlib.file_digest(handle, "sha256").digest())
    return mark.hexdigest()


def _key(*, make: bool) -> bytes:
    """This user's key, made where there is none yet and it is asked for. Raises OSError."""
    path = cache_folder() / _KEY
    if make and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{_KEY}.{os.getpid()}-{secrets.token_hex(4)}")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as handle:
            handle.write(secrets.token_bytes(32))
        try:
            with suppress(FileExistsError):  # another process was quicker
                os.link(temporary, path)
        finally:
            temporary.unlink()
    key = path.read_bytes()
    if len(key) != 32:
        raise OSError(f"{path} is damaged; delete it, and it will be made anew.")
    return key

"""A `.keras` file as a Keras model, without Keras interpreting the file."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from ductal.errors import RunError

DESCRIPTION, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
LIMITS = {DESCRIPTION: 16 * 2**20, METADATA: 2**16, WEIGHTS: 4 * 2**30}  # bytes
_ENCRYPTED = 0x1 | 0x40


def load_model_file(path: Path) -> Any:
    """The network of a `.keras` file, rebuilt by `architecture.rebuild`, with the file's numbers as weights.

    No code in the file is executed, nothing outside of it is read, and no memory is taken that its size does not
    justify.

    Returns:
        An uncompiled functional Keras model.

    Raises:
        RunError: no such file, not of this form (a legacy `.h5` and a SavedModel are not), damaged, or with anything
            in it that the networks of this package do not have.
    """
    try:
        return _load(path)
    except RunError as error:
        raise RunError(
            f"{path} was refused: {error}. Train the recipe again, or get the run from its author."
        ) from error
    except Exception as error:  # zipfile, json, h5py and Keras raise many kinds for a damaged file
        raise RunError(
            f"{path} cannot be loaded ({type(error).__name__}: {str(error)[:300]}). Train the recipe again."
        ) from error


def _load(path: Path) -> Any:
    if not path.is_file():
        raise RunError("it is missing, or no file")
    with tempfile.TemporaryDirectory(prefix="ductal-") as folder:
        weights = Path(folder) / WEIGHTS
        with path.open("rb") as handle:
            if handle.read(4) != b"PK\x03\x04":
                raise RunError("it is no .keras file; legacy .h5 models can run code and are never loaded")
            with zipfile.ZipFile(handle) as archive:
                _check_members(archive)
                description = json.loads(archive.read(DESCRIPTION))
                with archive.open(WEIGHTS) as source, weights.open("wb") as target:
                    shutil.copyfileobj(source, target, 2**20)
        from ductal.loading.weights_file import count_numbers

        numbers = count_numbers(weights)
        from ductal.console import quiet_tensorflow

        quiet_tensorflow()
        from ductal.loading.architecture import rebuild

        model = rebuild(description, numbers)
        model.load_weights(weights)
    return model


def _check_members(archive: zipfile.ZipFile) -> None:
    """Raises RunError for an archive that is not just what Keras writes, of a bounded size once unpacked."""
    infos = archive.infolist()
    names = [info.orig_filename for info in infos]
    if sorted(names) != sorted(LIMITS):
        others = [name for name in names if name not in LIMITS]
        raise RunError(f"it holds {others[0]!r}" if others else f"it does not hold {', '.join(LIMITS)}, each once")
    for info in infos:
        if info.flag_bits & _ENCRYPTED:
            raise RunError("it is encrypted")
        if info.filename == WEIGHTS and info.compress_type != zipfile.ZIP_STORED:
            raise RunError("its weights are packed, which Keras never does")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise RunError("it is packed in a way that Keras does not use")
        if info.file_size > LIMITS[info.filename]:
            raise RunError(f"its {info.filename} is too large")

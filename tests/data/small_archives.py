"""Archives of a few patches of noise."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from ductal.data.naming import format_patch_name


def noise(seed: int, size: tuple[int, int] = (50, 50)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)


def encoded(pixels: np.ndarray | Image.Image, form: str = "PNG") -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def name_of(patient: str, x: int, y: int, label: int) -> str:
    return f"IDC/{patient}/{label}/{format_patch_name(patient, x, y, label)}"


def good_files(patients: int = 4, per_class: int = 3) -> dict[str, bytes]:
    return {
        name_of(str(9000 + p), 1 + 50 * i, 1 + 50 * label, label): encoded(noise(100 * p + 10 * label + i))
        for p in range(patients)
        for label in (0, 1)
        for i in range(per_class)
    }


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as target:
        for name, content in files.items():
            target.writestr(name, content)
    return path

"""Decode one patch file and say whether it can be used; every rule is stated in `RULES`."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

PATCH_SIZE = 50
BLANK_STD = 1.5

RULES: dict[str, str] = {
    "undecodable": "The file cannot be read as an 8-bit PNG, JPEG or TIFF image, judged by its content.",
    "size": f"The image is not {PATCH_SIZE} x {PATCH_SIZE} px (patches at the edge of a slide are smaller).",
    "blank": f"The standard deviation of the grey levels is below {BLANK_STD} of 255: an empty or constant "
    "image. Faint adipose tissue stays: the lowest of 18,537 real patches has 6.1.",
}

UNKNOWN_FORMAT = "not a PNG, JPEG or TIFF image"
_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601 luma
_FORMATS = ("PNG", "JPEG", "TIFF")
_EIGHT_BIT_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr"}

Reader = Callable[[Any], Iterable[tuple[bytes | None, str]]]


def inspect(png_bytes: bytes) -> tuple[np.ndarray | None, str, str]:
    """Decode a patch as `decode` does, and check that there is something on it.

    Returns:
        (pixels, "", "") with pixels uint8 (50, 50, 3), or (None, reason, detail) with a reason of `RULES`.
    """
    pixels, reason, detail = decode(png_bytes)
    if pixels is not None and (std := grey_std(pixels)) < BLANK_STD:
        return None, "blank", f"standard deviation of the grey levels {std:.2f}"
    return pixels, reason, detail


def decode(png_bytes: bytes) -> tuple[np.ndarray | None, str, str]:
    """Decode a patch to RGB, blank or not.

    Grey is repeated over the three channels, a palette is looked up, and transparency is composited
    on white, the colour of an empty slide. CMYK is converted by formula, and colour profiles are ignored,
    as no scanner writes either into patches. The first frame counts, and EXIF rotation is ignored. The size is
    checked on the header, so nothing larger than a patch is ever decoded.

    Returns:
        (pixels, "", "") with pixels uint8 (50, 50, 3), or (None, reason, detail): "size" or "undecodable".
    """
    try:
        with Image.open(io.BytesIO(png_bytes), formats=_FORMATS) as image:
            if image.size != (PATCH_SIZE, PATCH_SIZE):
                return None, "size", f"{image.width} x {image.height} px"
            if image.mode not in _EIGHT_BIT_MODES or bits_of(image) > 8:
                return None, "undecodable", f"colour mode {image.mode} in {bits_of(image)} bits is not 8-bit"
            return np.asarray(_to_rgb(image)), "", ""
    except UnidentifiedImageError:  # its message names a memory address, which differs on every run
        return None, "undecodable", UNKNOWN_FORMAT
    except Exception as error:  # Pillow raises almost any type on damaged bytes; all mean the same here
        return None, "undecodable", f"{type(error).__name__}: {error}"[:200]


def grey_std(pixels: np.ndarray) -> float:
    """Standard deviation of the grey levels of a patch, uint8 (h, w, 3); below `BLANK_STD` it is blank."""
    grey = pixels.reshape(-1, 3).astype(np.float32) @ _GREY
    grey -= grey.mean()
    return float(grey @ grey / grey.size) ** 0.5


def bits_of(image: Image.Image) -> int:
    """Bits a channel as stored: Pillow opens 16-bit colour as 8 bits, by a scale that the file may not mean."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    # The raw mode of a PNG's only tile, such as "RGB;16B".
    tile = getattr(image, "tile", [])
    raw = str(tile[0].args) if tile else ""
    return 16 if ";16" in raw or image.mode.startswith("I") else 8


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


class Inspected(NamedTuple):
    """The outcome for one chunk of n files, of which k are good.

    `pixels` is uint8 (k, 50, 50, 3) in the order of the files; `sha1` has n items, "" for a file that
    was left out; `faults` lists (position in the chunk, reason, detail).
    """

    pixels: np.ndarray
    sha1: list[str]
    faults: list[tuple[int, str, str]]


def inspect_chunk(job: tuple[Reader, Any, int]) -> Inspected:
    """Read and inspect the files of a job (reader, chunk for it, number of files); runs in a worker."""
    reader, chunk, count = job
    pixels = np.empty((count, PATCH_SIZE, PATCH_SIZE, 3), np.uint8)
    sha1: list[str] = []
    faults: list[tuple[int, str, str]] = []
    good = 0
    for position, (content, problem) in enumerate(reader(chunk)):
        patch, reason, detail = inspect(content) if content is not None else (None, "undecodable", problem)
        if patch is None:
            sha1.append("")
            faults.append((position, reason, detail))
            continue
        pixels[good] = patch
        sha1.append(hashlib.sha1(patch.tobytes()).hexdigest())
        good += 1
    return Inspected(pixels[:good], sha1, faults)

"""Images of every kind: which are converted, which are left out with a reason, and which are refused."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ductal.data.quality import inspect
from ductal.errors import DataError
from ductal.slides.reader import open_slide

PIXELS = np.random.default_rng(1).integers(0, 256, (50, 50, 3), dtype=np.uint8)
PATCH = Image.fromarray(PIXELS)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def png(width: int, height: int, depth: int, colour: int, data: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG written by hand, since Pillow writes no 16-bit colour and no false sizes."""
    header = struct.pack(">2L5B", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    raw = b"\x89PNG\r\n\x1a\n"
    for name, one in chunks:
        raw += struct.pack(">L", len(one)) + name + one + struct.pack(">L", zlib.crc32(name + one))
    return raw


def sixteen_bit_png() -> bytes:
    rows = [b"\0" + (line.astype(">u2") * 257).tobytes() for line in PIXELS]
    return png(50, 50, 16, 2, b"".join(rows))


def sixteen_bit_tiff() -> bytes:
    tifffile = pytest.importorskip("tifffile")
    target = io.BytesIO()
    tifffile.imwrite(target, PIXELS.astype(np.uint16) * 257, photometric="rgb")
    return target.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(PATCH, exif=exif)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encoded(PATCH, interlace=True), PIXELS),
        (rotated(), PIXELS),
        (encoded(PATCH, icc_profile=b"not a profile" * 20), PIXELS),
        (encoded(PATCH, save_all=True, append_images=[PATCH.rotate(90)]), PIXELS),
        (encoded(PATCH, "TIFF", save_all=True, append_images=[PATCH.rotate(90)]), PIXELS),
    ],
    ids=["interlaced", "EXIF rotation", "profile", "animated", "pages"],
)
def test_pixels_are_taken_as_stored(content: bytes, expected: np.ndarray) -> None:
    """No rotation, no profile, the first frame: what the scanner's program wrote, at the place in the name."""
    pixels, reason, _ = inspect(content)
    assert reason == ""
    np.testing.assert_array_equal(pixels, expected)


def test_cmyk_becomes_rgb_by_formula() -> None:
    pixels, reason, _ = inspect(encoded(PATCH.convert("CMYK"), "TIFF"))
    assert reason == ""
    np.testing.assert_array_equal(pixels, PIXELS)  # 255 minus, without black, there and back


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (sixteen_bit_png(), "16 bits"),
        (encoded(Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)), "16 bits"),
        (encoded(Image.fromarray(PIXELS[..., 0].astype(np.float32)), "TIFF"), "mode F"),
        (encoded(PATCH.convert("LAB"), "TIFF"), "mode LAB"),
        (encoded(PATCH, "GIF"), "not a PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n(canary) (w) file\n", "not a PNG"),
        (encoded(PATCH)[:-2000], "OSError"),
        (encoded(PATCH, "JPEG")[:300], "OSError"),
        (png(50, 50, 8, 2, b"", (b"zTXt", b"a\0\0" + zlib.compress(bytes(2**27)))), "Decompressed data too large"),
    ],
    ids=["16-bit colour", "16-bit grey", "float", "LAB", "GIF", "EPS", "cut PNG", "cut JPEG", "text bomb"],
)
def test_what_has_no_sure_meaning_is_left_out(content: bytes, detail: str) -> None:
    pixels, reason, found = inspect(content)
    assert pixels is None
    assert reason == "undecodable"
    assert detail in found


def test_sixteen_bit_tiff_is_left_out() -> None:
    assert inspect(sixteen_bit_tiff())[1] == "undecodable"


@pytest.mark.parametrize("size", [(2**31 - 1, 2**31 - 1), (60_000, 60_000), (51, 50)])
def test_a_bomb_is_never_decoded(size: tuple[int, int]) -> None:
    pixels, reason, _ = inspect(png(*size, 8, 2, b""))
    assert pixels is None
    assert reason in ("size", "undecodable")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("kind", ["EPS", "GIF", "PPM", "PDF", "ICO", "FLI"])
def test_an_image_in_disguise_is_no_slide(suffix: str, kind: str, tmp_path: Path) -> None:
    """Pillow would start Ghostscript for an EPS file, whatever its name."""
    path = tmp_path / f"slide{suffix}"
    content = b"\x0c\0\0\0\x11\xaf" + bytes(200) if kind == "FLI" else encoded(PATCH, kind)
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a slide or image"):
        open_slide(path, 0.5)


def test_a_slide_of_16_bits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "slide.png").write_bytes(sixteen_bit_png())
    with pytest.raises(DataError, match="16 bits"):
        open_slide(tmp_path / "slide.png", 0.5)


@pytest.mark.parametrize("size", [(100_000, 100_000), (2**31 - 1, 1)])
def test_a_plain_image_that_would_fill_the_memory_is_refused(size: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "slide.png").write_bytes(png(*size, 8, 2, b""))
    with pytest.raises(DataError):
        open_slide(tmp_path / "slide.png", 0.5)


def test_a_scan_of_an_impossible_size_is_refused(tmp_path: Path) -> None:
    """A tiled TIFF whose tags state a size, without the tiles."""
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("openslide")
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, np.tile(PIXELS, (6, 6, 1)), tile=(256, 256), photometric="rgb", metadata=None)
    with tifffile.TiffFile(path, mode="r+") as file:
        for tag in ("ImageWidth", "ImageLength"):
            file.pages[0].tags[tag].overwrite(2**31 - 256)
    with pytest.raises(DataError):
        open_slide(path, 0.5)


def test_a_slide_of_half_a_metre_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.tile(PIXELS, (6, 6, 1))).save(tmp_path / "slide.png")
    assert open_slide(tmp_path / "slide.png", 20.0).size == (300, 300)
    with pytest.raises(DataError, match="which is no slide"):
        open_slide(tmp_path / "slide.png", 2000.0)

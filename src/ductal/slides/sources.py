"""The files behind a slide: OpenSlide's formats, read piece by piece, and plain images, decoded whole.

OpenSlide reads SVS, NDPI, MRXS, tiled TIFF, DICOM and its other formats. PNG, JPEG and TIFF without tiles are decoded
by Pillow, and are therefore limited in size.
"""

from __future__ import annotations

import math
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from ductal.data.quality import bits_of
from ductal.errors import DataError

# A spacing outside is a printer's or a screen's setting (72 dpi are 353 um), not a microscope's.
PLAUSIBLE_UM = (0.05, 20.0)
LARGEST_PLAIN_PX = 178_000_000  # where Pillow itself refuses; 0.5 GB once decoded
UNEVEN = 0.02  # pixels whose two sides differ by more are not square
_CACHE_BYTES = 128 << 20

_FORMATS = ("PNG", "JPEG", "TIFF")  # judged by content: of others, Pillow would start programs for some (EPS)
_PLAIN_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
SLIDE_SUFFIXES = (
    ".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".czi", ".dcm",
    *_PLAIN_SUFFIXES,
)  # fmt: skip


class Source(Protocol):
    """Where pixels come from: levels of one picture, finest first."""

    sizes: list[tuple[int, int]]  # (width, height) of each level
    downsamples: list[float]

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image.Image:
        """RGB pixels of a level at (x, y) of that level; white outside of the slide."""

    def close(self) -> None:
        """Give the file back."""


def open_source(path: Path) -> tuple[Source, str, float | None, str]:
    """The pixels, the format, the spacing in the file, and what else may help to know it."""
    module = _openslide()
    vendor = _vendor(module, path)
    if module is not None and vendor is not None:
        try:
            handle = module.OpenSlide(path)
        except module.OpenSlideError as error:
            raise DataError(f"{path} cannot be opened ({error}). It may be cut short; copy it again.") from error
        power = handle.properties.get("openslide.objective-power")
        hint = f" (objective x{power})" if power else ""
        return _OpenSlideSource(module, handle), vendor, _spacing(path, handle.properties), hint
    if path.suffix.lower() not in _PLAIN_SUFFIXES:  # Pillow would take a scan that is cut short for a plain TIFF
        if module is None:
            raise DataError(
                f"{path} needs OpenSlide, which is not installed. Install it: pip install 'ductal[slides]'."
            )
        raise DataError(
            f"{path} is not a slide that can be read. If it should be one, it is damaged or cut short; copy it again."
        )
    image = _open_plain(path)
    x, y = image.info.get("dpi", (0.0, 0.0))
    return _PlainSource(image), "image", _from_resolution(path, float(x), float(y), 25400.0), ""


def _vendor(module: Any, path: Path) -> str | None:
    """The format in OpenSlide's words, None for a file that it does not read."""
    if module is None:
        return None
    try:
        found: str | None = module.OpenSlide.detect_format(path)
        return found
    except module.OpenSlideError:  # it looks like one of its formats, and is damaged
        return None


def is_plain(path: Path) -> bool:
    """Whether OpenSlide does not read a file, or is not there, so that Pillow would have to decode it whole."""
    return _vendor(_openslide(), path) is None


def _openslide() -> Any:
    try:
        import openslide
    except (ImportError, OSError):  # the library itself may be missing
        return None
    return openslide


def _open_plain(path: Path) -> Image.Image:
    """Decode an image whole."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # our own limit, below
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=_FORMATS) as image:
            width, height = image.size
            if width * height > LARGEST_PLAIN_PX:
                raise DataError(
                    f"{path} has {width:,} x {height:,} px and no tiles, so it would have to be decoded whole. "
                    "Convert it to a tiled pyramidal TIFF first."
                )
            if image.mode not in ("RGB", "RGBA", "P", "CMYK", "YCbCr") or bits_of(image) > 8:
                raise DataError(
                    f"{path} is not a colour image of 8 bits (mode {image.mode}, {bits_of(image)} bits). "
                    "H&E slides are in 8-bit RGB."
                )
            return _on_white(image.convert("RGBA")) if image.mode in ("RGBA", "P") else image.convert("RGB")
    except DataError:
        raise
    except Exception as error:  # Pillow raises OSError, ValueError, SyntaxError, struct.error, ... for damaged files
        raise DataError(
            f"{path} is not a slide or image that can be read ({type(error).__name__}). "
            "If it should be one, it is damaged or cut short; copy it again."
        ) from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _on_white(image: Image.Image) -> Image.Image:
    if image.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def _spacing(path: Path, properties: Any) -> float | None:
    """um per pixel of a file that OpenSlide reads."""
    unit = {"centimeter": 1e4, "inch": 25400.0}.get(properties.get("tiff.ResolutionUnit", ""), 1e4)
    for names, per_unit in (("openslide.mpp-x openslide.mpp-y", None), ("tiff.XResolution tiff.YResolution", unit)):
        try:
            x, y = (float(properties[name]) for name in names.split())
        except (KeyError, ValueError):
            continue
        return _checked(path, x, y) if per_unit is None else _from_resolution(path, x, y, per_unit)
    return None


def _from_resolution(path: Path, x: float, y: float, unit_um: float) -> float | None:
    """Spacing from pixels per unit."""
    return _checked(path, unit_um / x, unit_um / y) if x > 0 and y > 0 else None


def _checked(path: Path, x: float, y: float) -> float | None:
    if not all(PLAUSIBLE_UM[0] <= value <= PLAUSIBLE_UM[1] for value in (x, y)):
        return None
    if abs(x / y - 1.0) > UNEVEN:
        raise DataError(
            f"{path} has pixels of {x:.4g} x {y:.4g} um, which are not square. Resample it to square pixels first."
        )
    return math.sqrt(x * y)


class _OpenSlideSource:
    """Levels of an OpenSlide file, cut to its bounds where it states some, as QuPath does."""

    def __init__(self, module: Any, handle: Any) -> None:
        self._handle = handle
        handle.set_cache(module.OpenSlideCache(_CACHE_BYTES))
        self.downsamples = [float(value) for value in handle.level_downsamples]
        width, height = handle.dimensions
        self._x = self._y = 0
        with suppress(KeyError, ValueError):
            x, y, wide, high = (
                int(handle.properties[f"openslide.bounds-{name}"]) for name in ("x", "y", "width", "height")
            )
            if x >= 0 and y >= 0 and 0 < wide <= width - x and 0 < high <= height - y:
                self._x, self._y, width, height = x, y, wide, high
        self.sizes = [(max(1, int(width / one)), max(1, int(height / one))) for one in self.downsamples]

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image.Image:
        """See `Source.read`."""
        scale = self.downsamples[level]
        corner = (round(self._x + x * scale), round(self._y + y * scale))
        return _on_white(self._handle.read_region(corner, level, (width, height)))

    def close(self) -> None:
        """See `Source.close`."""
        self._handle.close()


class _PlainSource:
    """An image in memory."""

    def __init__(self, image: Image.Image) -> None:
        self._image = image
        self.sizes, self.downsamples = [image.size], [1.0]

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image.Image:  # noqa: ARG002
        """See `Source.read`."""
        box = (x, y, x + width, y + height)
        if min(x, y) >= 0 and box[2] <= self._image.width and box[3] <= self._image.height:
            return self._image.crop(box)
        white = Image.new("RGB", (width, height), (255, 255, 255))
        inside = (max(x, 0), max(y, 0), min(box[2], self._image.width), min(box[3], self._image.height))
        white.paste(self._image.crop(inside), (inside[0] - x, inside[1] - y))
        return white

    def close(self) -> None:
        """See `Source.close`."""
        self._image.close()


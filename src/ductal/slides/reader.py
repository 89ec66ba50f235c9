"""Reading a slide: size, spacing, pyramid, and any rectangle at any spacing; only tissue, never label or macro."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ductal.errors import DataError
from ductal.slides.sources import Source, open_source

# A level this much coarser than asked for is used all the same: x16 of 0.2527 um/px is 4.04, and the next level down
# has 16 times the pixels.
COARSER_BY = 1.05
LARGEST_SIDE_PX = 500_000  # a scan at x80 of a whole slide has about that
LARGEST_SIDE_MM = 300.0  # a slide is 75 mm long; those for whole organs about 200
_STRIPE_PX = 16_000_000  # pixels of a level read at once for an overview


class Box(NamedTuple):
    """A rectangle in pixels of the full resolution; may reach over the slide's edge."""

    x: float
    y: float
    width: float
    height: float


@dataclass
class Slide:
    """An open slide; use as a context manager.

    Attributes:
        path: its file.
        mpp: um per pixel of the full resolution.
        mpp_in_file: what the file itself says, None where it says nothing.
        vendor: the format in OpenSlide's words, or "image".
        source: the pixels.
        name: what results call it; its file's name unless it is to stay secret.
    """

    path: Path
    mpp: float
    mpp_in_file: float | None
    vendor: str
    source: Source
    name: str = ""

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *_: object) -> None:
        self.source.close()

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the full resolution in pixels."""
        return self.source.sizes[0]

    def level_for(self, spacing_um: float) -> int:
        """The coarsest level that is not coarser than `spacing_um` (but for 5 %); the finest where all are."""
        fine = [
            level for level, downsample in enumerate(self.source.downsamples)
            if downsample * self.mpp <= spacing_um * COARSER_BY
        ]  # fmt: skip
        return max(fine, key=lambda level: self.source.downsamples[level], default=0)

    def read(self, box: Box, level: int, width: int, height: int) -> np.ndarray:
        """A rectangle, resampled from `level` by area.

        Args:
            box: in full-resolution pixels.
            level: of the pyramid.
            width: in pixels of the result.
            height: likewise.

        Returns:
            uint8 RGB (height, width, 3), white where the slide ends.

        Raises:
            DataError: the file is damaged there.
        """
        scale = self.source.downsamples[level]
        left, top = box.x / scale, box.y / scale
        right, bottom = left + box.width / scale, top + box.height / scale
        # Rounding errors must not cost a row of pixels, or a resampling where none is needed.
        x, y = math.floor(left + 1e-6), math.floor(top + 1e-6)
        wide, high = math.ceil(right - 1e-6) - x, math.ceil(bottom - 1e-6) - y
        try:
            image = self.source.read(level, x, y, wide, high)
        except Exception as error:  # OpenSlide's own kinds, and Pillow's
            raise DataError(
                f"{self.path} is damaged: the pixels at x {box.x:.0f}, y {box.y:.0f} cannot be read ({error}). "
                "Copy or scan it again."
            ) from error
        inside = (left - x, top - y, right - x, bottom - y)
        exact = (wide, high) == (width, height) and max(abs(inside[0]), abs(inside[1])) < 1e-3
        if not exact:
            # Pillow's box filter takes whole pixels: the mean over the area where they are many, or come out even.
            shrink = box.width / scale / width
            even = shrink >= 4 or abs(shrink - max(2, round(shrink))) < 0.01
            kind = Image.Resampling.HAMMING if shrink > 1 else Image.Resampling.BILINEAR
            kind = Image.Resampling.BOX if even else kind
            limits = (max(0.0, inside[0]), max(0.0, inside[1]), min(wide, inside[2]), min(high, inside[3]))
            image = image.resize((width, height), kind, box=limits)
        return np.asarray(image)

    def overview(self, longest_px: int) -> np.ndarray:
        """The whole slide, uint8 RGB (h, w, 3), at most `longest_px` on its longer side, made in bounded memory."""
        width, height = self.size
        scale = max(1.0, max(width, height) / longest_px)
        columns, rows = max(1, round(width / scale)), max(1, round(height / scale))
        level = self.level_for(self.mpp * scale)
        row_px = self.source.sizes[level][0] * scale / self.source.downsamples[level]
        stripe = max(1, int(_STRIPE_PX / row_px))
        parts = []
        for top in range(0, rows, stripe):
            bottom = min(top + stripe, rows)
            box = Box(0, top * height / rows, width, (bottom - top) * height / rows)
            parts.append(self.read(box, level, columns, bottom - top))
        return np.concatenate(parts)


def open_slide(path: str | Path, mpp: float | None = None) -> Slide:
    """Open a slide or an image of tissue.

    Args:
        path: the file; of DICOM, any file of the series.
        mpp: um per pixel, used where the file does not say.

    Raises:
        DataError: no such file, not an image, damaged, without spacing and `mpp`, too large to be read whole, or in
            need of OpenSlide, which is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} is no file. Name a slide, or a folder of slides.")
    source, vendor, found, hint = open_source(path)
    try:
        spacing = found or mpp
        if spacing is None:
            raise DataError(
                f"{path} does not say how large its pixels are{hint}. Give the um per pixel with --mpp (mpp=...): "
                "about 0.25 for a scan at x40, 0.5 at x20."
            )
        slide = Slide(path, spacing, found, vendor, source, path.name)
        _check_size(slide)
        return slide
    except BaseException:
        source.close()
        raise


def _check_size(slide: Slide) -> None:
    """A damaged or hostile file may state any size; tables and reads grow with it."""
    longest = max(slide.size)
    if min(slide.size) < 1 or longest > LARGEST_SIDE_PX or longest * slide.mpp / 1000 > LARGEST_SIDE_MM:
        width, height = slide.size
        raise DataError(
            f"{slide.path} is said to have {width:,} x {height:,} px of {slide.mpp:.3g} um, which is no slide. "
            "The file is damaged, or --mpp is not its spacing."
        )

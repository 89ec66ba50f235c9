"""A synthetic slide of any size: pyramidal, tiled and JPEG-compressed like a scan, written in bounded memory.

The tissue is that of `ductal.data.synthetic_tissue`, a few cells of it painted once and repeated, so that the largest
slide costs little more than writing its bytes. For trying things out and for benchmarks; nothing on it is a result.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ductal.data.synthetic_cells import smooth_noise
from ductal.data.synthetic_tissue import draw_slide
from ductal.errors import DataError
from ductal.files import atomic_file
from ductal.slides.outputs import import_tifffile

TISSUE_UM = 4.0  # per pixel of what `draw_slide` paints
TILE_PX = 256  # of the file
GLASS = (243, 242, 244)
BENIGN, TUMOUR = (1, 2, 3), (4, 5, 6)  # numbers of painted cells; 0 is glass
_TUMOUR_SHARE = 0.3  # of the tissue's cells
_NOTE = "Synthetic image, drawn by a program (ductal). It shows no patient and no tissue."


@dataclass(frozen=True)
class SyntheticSlide:
    """What was written.

    Attributes:
        path: of the file.
        cells: int64 (rows, columns): which painted cell lies where; 0 glass, 1-3 mostly benign, 4-6 mostly tumour.
        cell_px: side of a cell in pixels of the full resolution.
    """

    path: Path
    cells: np.ndarray
    cell_px: int


def write_synthetic_slide(
    path: str | Path,
    width: int,
    height: int,
    *,
    spacing_um: float = 0.25,
    tissue_share: float = 0.55,
    cell_px: int = 4096,
    levels: int = 4,
    quality: int = 80,
    seed: int = 0,
) -> SyntheticSlide:
    """Write a pyramidal TIFF that OpenSlide reads.

    Args:
        path: the file, usually `.tif`.
        width: in pixels of the full resolution.
        height: likewise.
        spacing_um: um per pixel of the full resolution, at most 4.
        tissue_share: share of the cells that are tissue, one piece in the middle.
        cell_px: side of a cell, a power of two and at least 256.
        levels: of the pyramid, each 4 times coarser than the one before; fewer where they would vanish.
        quality: of JPEG.
        seed: equal seeds give equal pixels.

    Raises:
        DataError: a number is out of range, or tifffile is not installed.
        StorageError: the disk refused.
    """
    if min(width, height, levels) < 1 or cell_px < TILE_PX or cell_px & (cell_px - 1) or not 0 < spacing_um <= 4:
        raise DataError(
            "A synthetic slide needs a size and levels of at least 1, a spacing of at most 4 um and cells whose side "
            f"is a power of two from 256. Received: {width} x {height}, {levels}, {spacing_um}, {cell_px}"
        )
    tifffile, path = import_tifffile(), Path(path)
    rng = np.random.default_rng(seed)
    cells = _layout(rng, (-(-height // cell_px), -(-width // cell_px)), tissue_share)
    painter = _Painter([None, *_paint(rng, round(cell_px * spacing_um / TISSUE_UM))], cells, cell_px, quality)
    with atomic_file(path) as temporary, tifffile.TiffWriter(temporary, bigtiff=True) as file:
        for level in range(levels):
            down = 4**level
            if level and min(width, height) < down * 16:
                break
            shape = (height // down, width // down, 3)
            file.write(
                painter.tiles(shape[0], shape[1], down),
                shape=shape, dtype=np.uint8, tile=(TILE_PX, TILE_PX), photometric="ycbcr", subsampling=(2, 2),
                compression="jpeg", subfiletype=1 if level else 0, description=_NOTE if not level else None,
                resolution=(1e4 / (spacing_um * down),) * 2, resolutionunit="CENTIMETER", metadata=None,
            )  # fmt: skip
    return SyntheticSlide(path, cells, cell_px)


def _layout(rng: np.random.Generator, shape: tuple[int, int], tissue_share: float) -> np.ndarray:
    """One roundish piece of tissue, part of it tumour."""
    v, u = (np.linspace(-1, 1, size + 2)[1:-1] for size in shape)
    score = -(u[None] ** 2 + v[:, None] ** 2) + 0.15 * smooth_noise(rng, shape, 4)
    count = max(1, round(tissue_share * score.size))
    tissue = np.argsort(-score, axis=None, kind="stable")[:count]
    field = smooth_noise(rng, shape, max(2.0, 0.3 * min(shape))).ravel()[tissue]
    tumour = field >= np.quantile(field, 1 - _TUMOUR_SHARE)
    cells = np.zeros(score.size, np.int64)
    cells[tissue] = np.where(tumour, rng.choice(TUMOUR, count), rng.choice(BENIGN, count))
    return cells.reshape(shape)


def _paint(rng: np.random.Generator, side: int) -> list[Image.Image]:
    """The painted cells, `side` x `side` px: the middle of a drawn slide, where all is tissue."""
    tiles = max(30, round((side / 50) ** 2 * 2.5))
    found = []
    for number in (*BENIGN, *TUMOUR):
        pixels = draw_slide(rng, tiles, 0.75 if number in TUMOUR else 0.03).pixels
        top, left = ((size - side) // 2 for size in pixels.shape[:2])
        found.append(Image.fromarray(pixels[top : top + side, left : left + side]))
    return found


class _Painter:
    """Compressed tiles of the file; each different one is made once."""

    def __init__(
        self, painted: list[Image.Image | None], cells: np.ndarray, cell_px: int, quality: int
    ) -> None:
        self._painted, self._cells, self._cell_px, self._quality = painted, cells, cell_px, quality
        self._glass = Image.new("RGB", (TILE_PX, TILE_PX), GLASS)

    def tiles(self, height: int, width: int, down: int) -> Iterator[bytes]:
        """The tiles of a level of `height` x `width` px, row by row."""
        made: dict[tuple[int, ...], bytes] = {}
        cell = self._cell_px // down  # its side at this level
        per_cell, per_tile = max(1, cell // TILE_PX), max(1, TILE_PX // cell) if cell else TILE_PX
        for row in range(-(-height // TILE_PX)):
            for column in range(-(-width // TILE_PX)):
                if cell >= TILE_PX:
                    number = int(self._cells[row // per_cell, column // per_cell])
                    part = (number, row % per_cell, column % per_cell) if number else (0,)
                    if part not in made:
                        made[part] = self._encode(self._inside(part, per_cell))
                    yield made[part]
                else:
                    yield self._encode(self._composed(row * per_tile, column * per_tile, per_tile, cell))

    def _inside(self, part: tuple[int, ...], per_cell: int) -> Image.Image:
        """A tile that is part of one cell."""
        source = self._painted[part[0]]
        if source is None:
            return self._glass
        side = source.width / per_cell
        box = (part[2] * side, part[1] * side, (part[2] + 1) * side, (part[1] + 1) * side)
        return source.resize((TILE_PX, TILE_PX), Image.Resampling.BICUBIC, box=box)

    def _composed(self, row: int, column: int, count: int, cell: int) -> Image.Image:
        """A tile of `count` x `count` whole cells."""
        tile = self._glass.copy()
        for y, numbers in enumerate(self._cells[row : row + count, column : column + count].tolist()):
            for x, number in enumerate(numbers):
                source = self._painted[number]
                if source is not None:
                    tile.paste(source.resize((cell, cell), Image.Resampling.BICUBIC), (x * cell, y * cell))
        return tile

    def _encode(self, image: Image.Image) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=self._quality, subsampling="4:2:0")
        return buffer.getvalue()

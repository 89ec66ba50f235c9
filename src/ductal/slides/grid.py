"""The grid on which the patches of one slide lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ductal.errors import DataError


@dataclass(frozen=True)
class TileGrid:
    """Places of a slide's patches, in whole patches from the left and the top of the grid.

    Attributes:
        columns: int64 (n,).
        rows: int64 (n,); no place is taken twice.
        shape: (height, width) of the grid in patches.
    """

    columns: np.ndarray
    rows: np.ndarray
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        height, width = self.shape
        inside = (self.columns >= 0) & (self.columns < width) & (self.rows >= 0) & (self.rows < height)
        if len(self.columns) != len(self.rows) or not inside.all():
            raise DataError(f"Patches lie outside a grid of {height} x {width}.")
        if len(np.unique(self.rows * width + self.columns)) != len(self.rows):
            raise DataError("Two patches lie at one place of the grid; give each patch of a slide once.")

    @classmethod
    def from_pixels(cls, x: np.ndarray, y: np.ndarray, pitch_px: int = 50) -> TileGrid:
        """The grid of patches at the corners (x, y) in pixels, from the first column and row that hold one.

        Raises:
            DataError: no patch, an unknown place (-1), or two patches at one place.
        """
        if not len(x) or min(x.min(), y.min()) < 0:
            raise DataError("A slide is rebuilt from patches whose places are known; these have none.")
        columns, rows = (np.asarray(one, np.int64) // pitch_px for one in (x, y))
        columns, rows = columns - columns.min(), rows - rows.min()
        return cls(columns, rows, (int(rows.max()) + 1, int(columns.max()) + 1))

    def raster(self, values: np.ndarray, fill: float = np.nan) -> np.ndarray:
        """`values` (n, ...) of the patches as an array (height, width, ...), `fill` where there is no patch."""
        whole = np.full(self.shape + values.shape[1:], fill, np.result_type(values.dtype, type(fill)))
        whole[self.rows, self.columns] = values
        return whole

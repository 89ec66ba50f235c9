"""Pictures for the pages, whose answers by the run of `web_server` are known."""

from __future__ import annotations

from typing import Any

import numpy as np
from web_server import png, tissue

THRESHOLD, LOW, HIGH = 0.5, 0.3, 0.7
PALE, DARK = 0.4, 1.5  # densities of not cancer and of cancer
DOUBTFUL = 0.86  # between
COLUMNS, ROWS = 12, 8
SQUARE = (3, 2, 7, 6)  # left, top, right, bottom of what is dark in the region, in tiles


def region() -> np.ndarray:
    """Pale tissue with a dark square, uint8 (400, 600, 3)."""
    pale, dark = (tissue(density, side=50 * COLUMNS)[: 50 * ROWS] for density in (PALE, DARK))
    left, top, right, bottom = (50 * each for each in SQUARE)
    pale[top:bottom, left:right] = dark[top:bottom, left:right]
    return pale


def upload(name: str, content: bytes) -> dict[str, Any]:
    """A file as Playwright takes it."""
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content}


def patch(name: str, density: float, seed: int = 0) -> dict[str, Any]:
    """A patch, as a file."""
    return upload(name, png(tissue(density, seed=seed)))

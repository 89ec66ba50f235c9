"""Colours, sizes and small helpers that all figures share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ductal.files import atomic_file

WIDTH = 9.0  # inches; 1,350 px at this resolution
DPI = 150

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PALETTE = (BLUE, RED, GREEN, "#CC79A7", ORANGE, "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":")
GREY = "#666666"


def tidy(ax: Axes) -> None:
    """Light grid below the data, and no frame on the right and at the top."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(visible=True, color="#e5e5e5", linewidth=0.7)
    ax.set_axisbelow(True)


def number(value: float) -> str:
    """Three decimals, or the word for nan."""
    return "undefined" if np.isnan(value) else f"{value:.3f}"


def short(text: object, length: int) -> str:
    """At most `length` characters, and no mathematics: a dollar sign would start Matplotlib's."""
    plain = str(text).replace("$", r"\$")
    return plain if len(plain) <= length else plain[: length - 1] + "…"


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG, whole or not at all. Raises StorageError when the disk refuses."""
    with atomic_file(Path(path)) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png", facecolor="white")
    return Path(path)

"""The figure of explanations: patches, their maps in colour over them, and what the network said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from ductal.errors import RunError
from ductal.evaluation.drawing import GREY, WIDTH, save
from ductal.evaluation.figures import CLASS_NAMES
from ductal.inference.explain import COLOURS, is_empty, overlay

COLUMNS = 9  # pictures side by side
# Inches: around all, between pictures of a patch, between patches; for titles, captions and the colour bar.
EDGE, GAP, SPACE = 0.15, 0.06, 0.3
TITLE, CAPTION, BAR = 0.35, 0.46, 0.5


def explanations(
    patches_u8: npt.NDArray[np.uint8],
    maps: Mapping[str, npt.NDArray[np.float32]],
    probs: npt.ArrayLike,
    called: npt.ArrayLike,
    path: Path,
    *,
    numbers: npt.ArrayLike | None = None,
    agreement: npt.ArrayLike | None = None,
) -> Path:
    """Each patch with its maps beside it, several to a row.

    Args:
        patches_u8: uint8 RGB, shape (n, 50, 50, 3).
        maps: float32 (n, 50, 50) in [0, 1] of each method, by its name, which becomes the title.
        probs: probabilities of IDC, shape (n,).
        called: shape (n,), true where called cancer.
        path: the PNG to write.
        numbers: shape (n,), printed before the probabilities; from 1 by default.
        agreement: shape (n,), printed below the last map where it is not nan.

    Raises:
        RunError: there is no patch or no map.
        DataError: patches and maps do not fit, as `ductal.inference.explain.overlay`.
        StorageError: the disk refused the write.
    """
    if not len(patches_u8) or not maps:
        raise RunError("There is no patch, or no map of one, to draw. Give at least one.")
    count = len(patches_u8)
    p, is_called = np.asarray(probs, np.float64), np.asarray(called).astype(int)
    ids = np.arange(1, count + 1) if numbers is None else np.asarray(numbers)
    agreed = np.full(count, np.nan) if agreement is None else np.asarray(agreement, np.float64)
    pictures = [patches_u8, *(overlay(patches_u8, each) for each in maps.values())]
    empty = [np.zeros(count, bool), *(is_empty(each) for each in maps.values())]
    figure, groups = _grid(count, len(pictures))
    for row, axes in enumerate(groups):
        for column, ax in enumerate(axes):
            ax.imshow(pictures[column][row], interpolation="nearest")
            if empty[column][row]:
                ax.set_xlabel("empty", fontsize=7.5, labelpad=3)
        axes[0].set_xlabel(f"{ids[row]}: p = {p[row]:.3f}\n{CLASS_NAMES[is_called[row]]}", fontsize=7.5, labelpad=3)
        if not np.isnan(agreed[row]):
            axes[-1].set_xlabel(f"agree {agreed[row]:.2f}", fontsize=7.5, labelpad=3)
    for axes in groups[: COLUMNS // len(pictures)]:
        for ax, title in zip(axes, ("Patch", *maps), strict=True):
            ax.set_title(title, fontsize=9)
    return save(figure, path)


def _grid(count: int, pictures: int) -> tuple[Figure, list[list[Any]]]:
    """A figure with a colour bar, and the axes of each patch.

    Laid out by hand, in inches from the top left: Matplotlib's layouts make room around pictures of a fixed shape.
    """
    across = max(1, COLUMNS // pictures)
    rows = -(-count // across)
    side = (WIDTH - 2 * EDGE - across * (pictures - 1) * GAP - (across - 1) * SPACE) / (across * pictures)
    height = TITLE + rows * (side + CAPTION) + BAR
    figure = Figure(figsize=(WIDTH, height))

    def axes_at(left: float, top: float, wide: float, high: float) -> Any:
        return figure.add_axes((left / WIDTH, 1 - (top + high) / height, wide / WIDTH, high / height))

    groups = []
    for row, group in (divmod(patch, across) for patch in range(count)):
        left = EDGE + group * (pictures * (side + GAP) - GAP + SPACE)
        top = TITLE + row * (side + CAPTION)
        groups.append([axes_at(left + number * (side + GAP), top, side, side) for number in range(pictures)])
    for ax in (ax for axes in groups for ax in axes):
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    bar = axes_at(0.3 * WIDTH, height - BAR + 0.12, 0.4 * WIDTH, 0.1)
    figure.colorbar(ScalarMappable(cmap=COLOURS), cax=bar, orientation="horizontal", ticks=[0, 1])
    bar.set_xticklabels(["nothing", "most of this patch"], fontsize=8, color=GREY)
    return figure, groups

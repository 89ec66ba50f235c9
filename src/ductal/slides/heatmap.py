"""The picture of a slide's result: the tissue with its regions, and the probability of IDC over it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from ductal.evaluation.drawing import DPI, GREY, short
from ductal.slides.judging import Judged
from ductal.slides.regions import Region
from ductal.slides.tiling import Tiling
from ductal.slides.tissue import Gate

OUTLINE = "#00E5FF"  # neither tissue nor ink has it
GATE_COLOURS = {Gate.pen: "#222222", Gate.fold: "#7A3FA0", Gate.blur: "#2E9E6B"}
HEAT_ALPHA = 0.62
_WIDTH, _SIDE = 12.0, 5.2  # inches: of the figure, and the longest side of a panel


def draw_heatmap(
    path: Path,
    judged: Judged,
    tiling: Tiling,
    overview: np.ndarray,
    regions: list[Region],
    summary: dict[str, Any],
) -> None:
    """Write the figure as PNG.

    Args:
        path: to write.
        judged: what was found.
        tiling: gives the places.
        overview: uint8 RGB (h, w, 3) of the whole slide.
        regions: of tumour, outlined.
        summary: for title and foot.
    """
    width, height = tiling.slide.size
    beside = height >= 0.75 * width
    panel_width = min(_SIDE, 6.2 * width / height) if beside else _WIDTH - 3.2
    panel_height = panel_width * height / width
    total = (
        (2 * panel_width + 2.0, panel_height + 1.85) if beside else (panel_width + 2.0, 2 * panel_height + 2.25)
    )
    figure = Figure(figsize=(max(total[0], 8.5), total[1]))
    left, bottom = (figure.get_figwidth() - total[0]) / 2 + 0.4, 0.85
    corners = (
        [(left, bottom), (left + panel_width + 0.35, bottom)] if beside
        else [(left, bottom + panel_height + 0.4), (left, bottom)]
    )  # fmt: skip
    tissue, heat = (_panel(figure, corner, panel_width, panel_height, tiling) for corner in corners)
    extent = (0.0, float(width), float(height), 0.0)
    tissue.imshow(overview, extent=extent, interpolation="antialiased")
    grey = overview @ np.array([0.299, 0.587, 0.114])
    heat.imshow(grey, extent=extent, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
    beside_heat = (corners[1][0] + panel_width + 0.12, corners[1][1], panel_height)
    bar = _draw_heat(figure, heat, judged, tiling, beside_heat)
    bar.axhline(summary["threshold"], color="black", linewidth=1.2)
    place = bar.get_yaxis_transform()
    bar.text(3.6, summary["threshold"], "threshold", fontsize=7, rotation=90, va="center", transform=place)
    for panel in (tissue, heat):
        _outline(panel, regions, tiling)
    _scale_bar(tissue, tiling)
    tissue.set_title("Tissue; outlined: called IDC", fontsize=10, loc="left")
    heat.set_title("Probability of IDC", fontsize=10, loc="left")
    _words(figure, judged, summary)
    figure.savefig(path, dpi=DPI, format="png", facecolor="white")


def _panel(figure: Figure, corner: tuple[float, float], width: float, height: float, tiling: Tiling) -> Axes:
    """Axes at `corner` in inches, in pixels of the full resolution."""
    total_width, total_height = figure.get_size_inches()
    axes = figure.add_axes(
        (corner[0] / total_width, corner[1] / total_height, width / total_width, height / total_height)
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("#bbbbbb")
    axes.set_xlim(0, tiling.slide.size[0])
    axes.set_ylim(tiling.slide.size[1], 0)
    axes.set_autoscale_on(False)
    return axes


def _draw_heat(
    figure: Figure, axes: Axes, judged: Judged, tiling: Tiling, beside: tuple[float, float, float]
) -> Axes:
    """The raster, and its colour bar `beside` it: x, y, height in inches; the bar's axes are returned."""
    rows, columns = tiling.shape
    extent = (0.0, columns * tiling.side_px, rows * tiling.side_px, 0.0)
    image = axes.imshow(
        judged.probs, extent=extent, cmap=heat_colours(), vmin=0, vmax=1, alpha=HEAT_ALPHA, interpolation="nearest"
    )
    for gate, colour in GATE_COLOURS.items():
        if (judged.gates == gate).any():
            mask = np.where(judged.gates == gate, 1.0, np.nan)
            axes.imshow(mask, extent=extent, cmap=ListedColormap([colour]), alpha=0.5, interpolation="nearest")
    total_width, total_height = figure.get_size_inches()
    x, y, height = beside
    bar = figure.add_axes((x / total_width, y / total_height, 0.14 / total_width, height / total_height))
    colours = Colorbar(bar, image)
    colours.set_ticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    bar.tick_params(labelsize=8)
    colours.outline.set_visible(False)
    return bar


def heat_colours() -> Any:
    """Blue, pale, red: calm where there is little to see, and readable for the colour-blind."""
    return colormaps["RdYlBu_r"]


def _outline(axes: Axes, regions: list[Region], tiling: Tiling) -> None:
    for region in regions:
        for ring in (region.outer, *region.holes):
            corners = np.asarray(ring, np.float64) * tiling.side_px
            axes.plot(corners[:, 0], corners[:, 1], color="#1a1a1a", linewidth=1.8, solid_joinstyle="miter")
            axes.plot(corners[:, 0], corners[:, 1], color=OUTLINE, linewidth=0.9, solid_joinstyle="miter")


def scale_length_um(width_um: float) -> float:
    """A round length (1, 2 or 5 times a power of ten) of at most a quarter of the picture's width, in um."""
    longest = width_um / 4
    power = 10.0 ** math.floor(math.log10(longest))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= longest)


def _scale_bar(axes: Axes, tiling: Tiling) -> None:
    width, height = tiling.slide.size
    length_um = scale_length_um(width * tiling.slide.mpp)
    length, margin = length_um / tiling.slide.mpp, 0.03 * max(width, height)
    text = f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} µm"
    high = 0.008 * max(width, height)
    pad = 0.5 * margin
    corner, ground = (margin - pad, height - margin - 6.2 * high), (length + 2 * pad, 6.2 * high + pad)
    axes.add_patch(Rectangle(corner, *ground, color="white", alpha=0.85, linewidth=0))
    axes.add_patch(Rectangle((margin, height - margin - high), length, high, color="black", linewidth=0))
    axes.text(margin + length / 2, height - margin - 1.5 * high, text, ha="center", va="bottom", fontsize=8)


def _words(figure: Figure, judged: Judged, summary: dict[str, Any]) -> None:
    total_width, total_height = figure.get_size_inches()
    left = 0.4 / total_width
    found = summary["found"]
    figure.text(
        left, 1 - 0.36 / total_height, short(summary["slide"]["name"], 70), fontsize=13, fontweight="bold"
    )
    figure.text(
        left, 1 - 0.6 / total_height,
        f"IDC {found['tumour_area_mm2']:.2f} mm², {100 * found['tumour_share_of_tissue']:.0f} % of "
        f"{found['tissue_area_mm2']:.2f} mm² tissue, at a threshold of {summary['threshold']:.2f}",
        fontsize=9.5, color="#333333",
    )  # fmt: skip
    handles: list[Any] = [Line2D([], [], color=OUTLINE, linewidth=2.2, label="called IDC")]
    handles += [
        Patch(color=colour, alpha=0.6, label=f"not judged: {gate.name}")
        for gate, colour in GATE_COLOURS.items() if (judged.gates == gate).any()
    ]  # fmt: skip
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(left, 0.45 / total_height), ncols=4, fontsize=8.5,
        frameon=False, borderaxespad=0, handlelength=1.6,
    )  # fmt: skip
    figure.text(
        left, 0.2 / total_height,
        short(
            f"run {summary['run']['name']} · track {summary['track']} · "
            f"tiles of {summary['spacing']['tile_um']:g} µm · research use only, no diagnosis",
            150,
        ),
        fontsize=8, color=GREY,
    )  # fmt: skip

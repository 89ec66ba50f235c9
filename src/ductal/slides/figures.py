"""The picture of a rebuilt slide: tissue, truth, probability and errors side by side, with their keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from ductal.evaluation.drawing import GREY, save
from ductal.slides.rebuilt import OUTCOMES, PITCH_PX, RebuiltSlide

PANEL_WIDE, PANEL_HIGH = 3.1, 5.2  # inches, at most
EDGE, GAP, TITLE, HEADING, KEY, BOTTOM = 0.3, 0.25, 0.75, 0.3, 0.62, 0.75
COLOURS = "viridis"
IDC, OTHER = "#D55E00", "#e6dfd8"
OUTCOME_COLOURS = {"TN": "#d9d9d9", "FP": "#E69F00", "FN": "#7b2d8e", "TP": "#009E73"}
OUTCOME_WORDS = {"TN": "rightly not", "FP": "false alarm", "FN": "missed", "TP": "found"}
MISSING: dict[str, Any] = {"facecolor": "#fbfbfb", "edgecolor": "#cfcfcf", "hatch": "////", "linewidth": 0}
LEFT_OUT: dict[str, Any] = {"facecolor": "#8a8a8a", "edgecolor": "#ffffff", "hatch": "xxxx", "linewidth": 0}
BARS_MM = (0.1, 0.2, 0.5, 1, 2, 5, 10)
TISSUE_PX = 1200  # of the longer side; finer pixels than a panel shows are averaged


def draw_slide(slide: RebuiltSlide, path: Path, *, pixels: np.ndarray | None = None, note: str = "") -> Path:
    """Draw a slide; places without a patch are hatched, patches that could not be used are hatched on dark grey.

    Args:
        slide: what to draw.
        path: the PNG to write.
        pixels: the cohort's, uint8 (N, 50, 50, 3), for the tissue; None leaves the tissue out.
        note: put before the title.

    Raises:
        StorageError: the disk refused the write.
    """
    names = ["Tissue"] if pixels is not None else []
    names += ["Truth", "Probability of IDC", "Right and wrong"]
    sheet = _Sheet(slide.grid.shape, len(names))
    axes = dict(zip(names, sheet.panels(), strict=True))
    for name, ax in axes.items():
        _ground(ax, slide, name)
    if pixels is not None:
        _tissue(axes["Tissue"], slide, pixels)
    truth = np.where((slide.labels == 1)[:, None], to_rgb(IDC), to_rgb(OTHER))
    _picture(axes["Truth"], slide, truth)
    _picture(axes["Probability of IDC"], slide, mpl.colormaps[COLOURS](slide.probs)[:, :3])
    outcomes = np.array([to_rgb(OUTCOME_COLOURS[name]) for name in OUTCOMES])
    _picture(axes["Right and wrong"], slide, outcomes[slide.outcomes])
    _keys(sheet, slide, names)
    _words(sheet, slide, note)
    # Matplotlib's hatches are too heavy for a background.
    with mpl.rc_context({"hatch.linewidth": 0.5}):
        return save(sheet.figure, path)


class _Sheet:
    """A figure laid out in inches from the top left: title, panels in a row, a key below each, figures below all."""

    def __init__(self, shape: tuple[int, int], panels: int) -> None:
        height, width = shape
        inches_a_patch = min(PANEL_WIDE / width, PANEL_HIGH / height)
        self.panel = (max(width, 1) * inches_a_patch, height * inches_a_patch)
        self.inches_a_patch = inches_a_patch
        self.slot, self.count = PANEL_WIDE, panels
        self.width = 2 * EDGE + panels * self.slot + (panels - 1) * GAP
        self.top = TITLE + HEADING
        self.height = self.top + self.panel[1] + KEY + BOTTOM
        self.figure = Figure(figsize=(self.width, self.height))

    def left(self, panel: int) -> float:
        """Of a panel's slot."""
        return EDGE + panel * (self.slot + GAP)

    def axes(self, left: float, top: float, wide: float, high: float) -> Axes:
        """Axes at a place in inches."""
        place = (left / self.width, 1 - (top + high) / self.height, wide / self.width, high / self.height)
        return self.figure.add_axes(place)

    def panels(self) -> list[Axes]:
        """One for each picture, at the left of its slot."""
        return [self.axes(self.left(number), self.top, *self.panel) for number in range(self.count)]

    def write(self, left: float, top: float, text: str, **style: Any) -> None:
        """Text whose top left corner is at a place in inches."""
        self.figure.text(left / self.width, 1 - top / self.height, text, va="top", **style)


def _ground(ax: Axes, slide: RebuiltSlide, name: str) -> None:
    height, width = slide.grid.shape
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    ax.spines[:].set(color="#bbbbbb", linewidth=0.6)
    ax.set_title(name, fontsize=11, loc="left", pad=5)
    ax.add_patch(Rectangle((-0.5, -0.5), width, height, zorder=0, **MISSING))
    for column, row in zip(*slide.left_out, strict=True):
        ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, zorder=3, **LEFT_OUT))


def _picture(ax: Axes, slide: RebuiltSlide, colours: np.ndarray) -> None:
    """Colours float64 (n, 3) of the patches; nothing where there is none."""
    raster = slide.grid.raster(np.concatenate([colours, np.ones((len(colours), 1))], axis=1), 0.0)
    ax.imshow(raster, interpolation="nearest", aspect="auto", zorder=2)


def _tissue(ax: Axes, slide: RebuiltSlide, pixels: np.ndarray) -> None:
    finest = TISSUE_PX / max(slide.grid.shape)
    px = max([size for size in (10, 25, PITCH_PX) if size <= finest] or [10])
    image = slide.tissue(pixels, px)
    there = np.isfinite(slide.grid.raster(np.zeros(len(slide.rows)))).astype(np.uint8) * 255
    alpha = there.repeat(px, axis=0).repeat(px, axis=1)
    height, width = slide.grid.shape
    ax.imshow(
        np.dstack([image, alpha]), extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="antialiased",
        aspect="auto", zorder=2,
    )  # fmt: skip


def _keys(sheet: _Sheet, slide: RebuiltSlide, names: list[str]) -> None:
    """What colours mean, below each picture; the scale bar below the first."""
    top = sheet.top + sheet.panel[1] + 0.08
    counts = np.bincount(slide.outcomes, minlength=len(OUTCOMES))
    idc, unusable = int((slide.labels == 1).sum()), len(slide.left_out[0])
    missing = [Patch(**MISSING, label="no patch")]
    missing += [Patch(**LEFT_OUT, label=f"not usable ({unusable:,})")] if unusable else []
    truth = [
        Patch(facecolor=IDC, label=f"IDC ({idc:,})"),
        Patch(facecolor=OTHER, label=f"not IDC ({len(slide.labels) - idc:,})"),
    ]
    outcomes = [
        Patch(facecolor=OUTCOME_COLOURS[name], label=f"{OUTCOME_WORDS[name]} ({counts[OUTCOMES.index(name)]:,})")
        for name in ("TP", "FN", "FP", "TN")
    ]
    _legend(sheet, sheet.left(names.index("Truth")), top, truth + missing)
    _legend(sheet, sheet.left(names.index("Right and wrong")), top, outcomes)
    _colour_bar(sheet, slide, sheet.left(names.index("Probability of IDC")), top)
    _scale_bar(sheet, slide, sheet.left(0) + sheet.slot, top + 0.1)


def _colour_bar(sheet: _Sheet, slide: RebuiltSlide, left: float, top: float) -> None:
    ax = sheet.axes(left, top + 0.03, 2.4, 0.11)
    bar = sheet.figure.colorbar(ScalarMappable(cmap=COLOURS), cax=ax, orientation="horizontal", ticks=[0, 0.5, 1])
    bar.outline.set_linewidth(0.4)
    ax.tick_params(labelsize=8, length=2, color=GREY, labelcolor=GREY)
    for colour, width in (("white", 2.4), ("black", 1.1)):
        ax.axvline(min(slide.threshold, 1.0), color=colour, linewidth=width)
    sheet.write(left, top + 0.36, f"line: called IDC from {slide.threshold:.2f} on", fontsize=8, color=GREY)


def _legend(sheet: _Sheet, left: float, top: float, handles: list[Any]) -> None:
    sheet.figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(left / sheet.width, 1 - top / sheet.height), ncols=2,
        fontsize=8, frameon=False, borderpad=0, borderaxespad=0, handlelength=1.2, handleheight=0.9,
        labelspacing=0.35, columnspacing=1.2, labelcolor=GREY,
    )  # fmt: skip


def _scale_bar(sheet: _Sheet, slide: RebuiltSlide, right: float, top: float) -> None:
    """Ends at `right`, where the legend of the same panel does not reach."""
    if slide.spacing_um is None:
        patches, text = (10.0, "10 patches") if slide.grid.shape[1] >= 20 else (2.0, "2 patches")
    else:
        patch_mm = PITCH_PX * slide.spacing_um / 1000
        longest = 0.35 * PANEL_WIDE / sheet.inches_a_patch * patch_mm
        mm = max([size for size in BARS_MM if size <= longest] or [BARS_MM[0]])
        patches, text = mm / patch_mm, f"{mm:g} mm"
    long = patches * sheet.inches_a_patch
    y, left = 1 - top / sheet.height, right - long
    sheet.figure.add_artist(
        Line2D([left / sheet.width, (left + long) / sheet.width], [y, y], color="black", linewidth=2.2,
               solid_capstyle="butt")
    )  # fmt: skip
    sheet.write(left, top + 0.07, text, fontsize=8, color=GREY)


def _words(sheet: _Sheet, slide: RebuiltSlide, note: str) -> None:
    """Title above, and the slide's figures below."""
    found = slide.figures()
    title = f"Patient {slide.patient}".replace("$", r"\$")
    sheet.write(EDGE, 0.18, title + (f"   {note}" if note else ""), fontsize=14, fontweight="bold")
    spacing = "spacing unknown" if slide.spacing_um is None else f"{slide.spacing_um:g} µm a pixel"
    about = f"{len(slide.labels):,} patches; {slide.role}; track: {slide.track}; {spacing}"
    sheet.write(EDGE, 0.48, about, fontsize=9.5, color=GREY)
    cells = [
        ("ROC AUC", _number(found["roc_auc"])),
        ("Balanced accuracy", _number(found["balanced_accuracy"])),
        ("F1", _number(found["f1"])),
        ("Sensitivity", _number(found["recall"])),
        ("Specificity", _number(found["specificity"])),
        ("Tumour by truth", _area(found["tumour_mm2"], found["idc"])),
        ("Tumour by model", _area(found["tumour_mm2_model"], found["called"])),
    ]
    top = sheet.height - BOTTOM + 0.12
    step = (sheet.width - 2 * EDGE) / len(cells)
    for number, (name, value) in enumerate(cells):
        sheet.write(EDGE + number * step, top, name, fontsize=8.5, color=GREY)
        sheet.write(EDGE + number * step, top + 0.19, value, fontsize=12)


def _number(value: float) -> str:
    return "n/a" if np.isnan(value) else f"{value:.3f}"


def _area(mm2: float, patches: int) -> str:
    return f"{patches:,} patches" if np.isnan(mm2) else f"{mm2:.1f} mm²"

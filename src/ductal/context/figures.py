"""The figure of a context study: what neighbours change, over all slides and on each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ductal.evaluation.drawing import BLUE, GREY, PALETTE, save, tidy

PANELS = (("roc_auc", "ROC AUC"), ("balanced_accuracy", "Balanced accuracy"))
WIDE, HIGH = 10.5, 4.6


def draw_context(models: pd.DataFrame, slides: pd.DataFrame, path: Path, *, synthetic: bool = False) -> Path:
    """Two panels with each model's figure and interval over all slides, and one with each slide's change.

    Args:
        models: as `ductal.context.scores.score_models`.
        slides: as `ductal.context.scores.slide_scores`.
        path: the PNG to write.
        synthetic: written into the title.

    Raises:
        StorageError: the disk refused the write.
    """
    figure = Figure(figsize=(WIDE, HIGH), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=(1, 1, 1.35))
    for ax, (metric, title) in zip(axes, PANELS, strict=False):
        _intervals(ax, models, metric, title)
    axes[1].set_yticklabels([])
    _by_slide(axes[2], models["name"].tolist(), slides)
    count, patches = int(models["slides"].iloc[0]), int(models["patches"].iloc[0])
    what = "SYNTHETIC, no result: " if synthetic else ""
    figure.suptitle(
        f"{what}{patches:,} patches of {count} complete slides, each called by what was fitted on the others; "
        "bars: 95 % over slides",
        fontsize=9.5, color=GREY,
    )  # fmt: skip
    return save(figure, path)


def _intervals(ax: Axes, models: pd.DataFrame, metric: str, title: str) -> None:
    for place, (_, row) in enumerate(models.iterrows()):
        colour = PALETTE[place % len(PALETTE)]
        if np.isfinite(row[f"{metric}_low"]):
            ax.plot([row[f"{metric}_low"], row[f"{metric}_high"]], [place, place], color=colour, linewidth=2.2)
        ax.plot(row[metric], place, "o", color=colour, markersize=7)
        ax.annotate(
            f"{row[metric]:.3f}", (row[metric], place), (0, 9), textcoords="offset points", ha="center", fontsize=9
        )
    pairs = zip(models["name"], models["track"], strict=True)
    labels = [name if name == track else f"{name}\n({track})" for name, track in pairs]
    ax.set_yticks(range(len(models)), labels)
    ax.set_ylim(len(models) - 0.5, -0.6)
    ax.set_title(title, fontsize=11, loc="left")
    ax.margins(x=0.12)
    ax.locator_params(axis="x", nbins=5)
    tidy(ax)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)


def _by_slide(ax: Axes, names: list[str], slides: pd.DataFrame) -> None:
    """Balanced accuracy of every slide, a column a model, a line a slide."""
    table = slides.pivot_table(index="patient", columns="name", values="balanced_accuracy")[names]
    heights = _spread(table[names[-1]].to_numpy(), 0.045 * max(float(np.ptp(table.to_numpy())), 0.02))
    for (patient, values), height in zip(table.iterrows(), heights, strict=True):
        ax.plot(range(len(names)), values, "-o", color=BLUE, alpha=0.55, linewidth=1.3, markersize=4)
        ax.annotate(
            str(patient), (len(names) - 1, values.iloc[-1]), (len(names) - 0.8, height), fontsize=8, color=GREY,
            va="center", arrowprops={"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.6},
        )  # fmt: skip
    ax.set_xticks(range(len(names)), [name.replace("-", "-\n") for name in names], fontsize=9)
    ax.set_xlim(-0.25, len(names) - 0.25)
    ax.set_title("Balanced accuracy of each slide", fontsize=11, loc="left")
    tidy(ax)


def _spread(values: np.ndarray, gap: float) -> np.ndarray:
    """Heights of labels near `values`, at least `gap` apart."""
    order = np.argsort(values)
    placed = values[order].astype(np.float64)
    for _ in range(50):
        for at in range(1, len(placed)):
            short = gap - (placed[at] - placed[at - 1])
            if short > 1e-9:
                placed[at - 1] -= short / 2
                placed[at] += short / 2
    found = np.empty(len(placed))
    found[order] = placed
    return found

"""Learning curves: how a training went, epoch by epoch."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ductal.errors import RunError
from ductal.evaluation.drawing import BLUE, GREY, ORANGE, RED, WIDTH, save, short, tidy

# Column of history.csv (and the same with val_), and the panel's title.
CURVES = (
    ("loss", "Loss"),
    ("accuracy", "Accuracy"),
    ("balanced_accuracy", "Balanced accuracy"),
    ("auc", "ROC AUC"),
)


def curves(history: pd.DataFrame, path: Path) -> Path:
    """Training and validation curves over all stages, with each stage's kept epoch starred.

    Args:
        history: as history.csv: epoch, stage, best, and pairs such as accuracy and val_accuracy;
            panels without a column are left out.
        path: the PNG to write.

    Raises:
        RunError: no epoch was recorded, or none of the known columns is there.
        StorageError: the disk refused the write.
    """
    panels = [(name, title) for name, title in CURVES if name in history or f"val_{name}" in history]
    if history.empty or not panels:
        raise RunError(f"The history has no epochs to draw. Received: columns {list(history.columns)}.")
    rows = (len(panels) + 1) // 2
    figure = Figure(figsize=(WIDTH, 3.1 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, 2, sharex=True, squeeze=False).ravel()
    stages = _stage_spans(history)
    for ax, (name, title) in zip(axes, panels, strict=False):
        _curve_panel(ax, history, name, title)
        _mark_stages(ax, stages)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    for ax in axes[max(0, len(panels) - 2) : len(panels)]:
        ax.set_xlabel("Epoch")
        ax.tick_params(labelbottom=True)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    if len(stages) > 1:
        named = "   ".join(f"{i} = {short(name, 28)}" for i, (name, _, _) in enumerate(stages, 1))
        figure.supxlabel(f"Stages: {named}", fontsize=9, color=GREY, wrap=True)
    return save(figure, path)


def _curve_panel(ax: Axes, history: pd.DataFrame, name: str, title: str) -> None:
    epochs = history["epoch"].to_numpy()
    for column, label, colour, marker in (
        (name, "train", BLUE, "o"),
        (f"val_{name}", "validation", RED, "s"),
    ):
        if column in history:
            values = history[column].to_numpy(dtype=float)
            ax.plot(epochs, values, color=colour, marker=marker, markersize=3.5, linewidth=1.6, label=label)
    if f"val_{name}" in history and "best" in history and history["best"].any():
        kept = history[history["best"].astype(bool)]
        ax.plot(
            kept["epoch"].to_numpy(),
            kept[f"val_{name}"].to_numpy(dtype=float),
            linestyle="none",
            marker="*",
            markersize=13,
            markerfacecolor=ORANGE,
            markeredgecolor="black",
            markeredgewidth=0.7,
            zorder=4,
            label="kept epoch of a stage",
        )
    ax.set_title(title, fontsize=11, pad=14)  # the stage's number goes between title and panel
    ax.set_xlim(epochs.min() - 0.5, epochs.max() + 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    tidy(ax)


def _stage_spans(history: pd.DataFrame) -> list[tuple[str, float, float]]:
    """(name, first epoch, last epoch) of each stage, in order of training."""
    if "stage" not in history:
        return []
    number = history["stage"].ne(history["stage"].shift()).cumsum()
    return [
        (str(part["stage"].iloc[0]), float(part["epoch"].min()), float(part["epoch"].max()))
        for _, part in history.groupby(number, sort=True)
    ]


def _mark_stages(ax: Axes, stages: list[tuple[str, float, float]]) -> None:
    if len(stages) < 2:
        return
    for index, (_, first, last) in enumerate(stages, 1):
        if index > 1:
            ax.axvline(first - 0.5, color=GREY, linewidth=0.9, linestyle="--")
        middle = (first + last) / 2
        top = ax.get_xaxis_transform()
        ax.text(middle, 1.0, str(index), transform=top, ha="center", va="bottom", color=GREY, fontsize=8)

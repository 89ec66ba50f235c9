"""Figures of where a model fails; each function writes one PNG and returns its path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ductal.errors import RunError
from ductal.evaluation.drawing import BLUE, GREEN, GREY, RED, WIDTH, save, tidy
from ductal.evaluation.failures import STAIN_NAMES


def errors_by_distance(rows: pd.DataFrame, path: Path) -> Path:
    """Error rate by distance from the nearest change of class.

    Args:
        rows: as from `ductal.evaluation.failures.errors_by_distance`.
        path: the PNG to write.

    Raises:
        RunError: there is no row: no slide could be rebuilt.
        StorageError: the disk refused the write.
    """
    _check(rows)
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    ax = figure.subplots()
    _rates(ax, rows, rows["distance"].tolist())
    ax.set_xlabel("Distance from the nearest patch of the other class, in patches")
    _finish(figure, ax)
    return save(figure, path)


def errors_by_stain(rows: pd.DataFrame, path: Path) -> Path:
    """Error rate from the palest to the darkest patches, a panel for each stain.

    Args:
        rows: as from `ductal.evaluation.failures.errors_by_stain`.
        path: the PNG to write.

    Raises:
        RunError: there is no row.
        StorageError: the disk refused the write.
    """
    _check(rows)
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    axes = figure.subplots(1, len(STAIN_NAMES), sharey=True)
    for ax, stain in zip(axes, STAIN_NAMES, strict=True):
        own = rows[rows["stain"] == stain]
        edges = zip(own["lowest"], own["highest"], strict=True)
        _rates(ax, own, [f"{low:.2f}\nto {high:.2f}" for low, high in edges])
        ax.set_title(f"{stain.capitalize()}, palest to darkest", fontsize=11)
        ax.set_xlabel("Mean optical density of the patch")
    _finish(figure, axes[0])
    return save(figure, path)


def _check(rows: pd.DataFrame) -> None:
    if rows.empty:
        raise RunError(
            "There is no group of patches to draw: none was given, or no patient's patches make up a slide. "
            "Distances need patches with patient, x and y."
        )


def _rates(ax: Axes, rows: pd.DataFrame, names: list[str]) -> None:
    """Error rate with its interval, and beside it the rates in either class; counts below the names."""
    at = np.arange(len(rows))
    rate = rows["error_rate"].to_numpy(np.float64)
    spread = np.stack([rate - rows["low"].to_numpy(np.float64), rows["high"].to_numpy(np.float64) - rate])
    ax.errorbar(
        at, rate, np.nan_to_num(spread), color=BLUE, marker="o", markersize=7, linestyle="none", capsize=3,
        label="wrong among all (95 % interval over patients)",
    )  # fmt: skip
    for offset, column, colour, marker, label in (
        (-0.16, "missed_rate", RED, "v", "missed among IDC patches"),
        (0.16, "false_alarm_rate", GREEN, "^", "false alarms among the others"),
    ):
        ax.plot(
            at + offset, rows[column].to_numpy(np.float64), color=colour, marker=marker, linestyle="none",
            markerfacecolor="white", label=label,
        )  # fmt: skip
    counts = [f"{name}\n{n:,} of {k}" for name, n, k in zip(names, rows["n"], rows["patients"], strict=True)]
    ax.set_xticks(at, counts, fontsize=8.5)
    ax.set_xlim(-0.5, len(rows) - 0.5)
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    tidy(ax)
    ax.grid(visible=False, axis="x")


def _finish(figure: Figure, ax: Axes) -> None:
    ax.set_ylabel("Rate")
    ax.set_ylim(bottom=0)
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    figure.supxlabel("below each group: patches, of how many patients", fontsize=9, color=GREY)

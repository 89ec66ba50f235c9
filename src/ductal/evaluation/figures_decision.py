"""Figures of calibration and decisions; each function writes one PNG and returns its path.

Drawn as those of `ductal.evaluation.figures`: no pyplot, colours of Okabe & Ito, models told apart by line style too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ductal.errors import RunError
from ductal.evaluation.calibration import calibration_scores, reliability_table
from ductal.evaluation.decision import decision_curve as net_benefits
from ductal.evaluation.drawing import GREY, PALETTE, STYLES, WIDTH, number, save, short, tidy
from ductal.evaluation.metrics import binary_metrics
from ductal.evaluation.selective import aurc, within_limits
from ductal.evaluation.selective import risk_coverage as risks

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# Thresholds that are ticks of the decision curve, with the exchange that each stands for.
_ODDS = ((0.05, "19:1"), (0.1, "9:1"), (0.2, "4:1"), (0.33, "2:1"), (0.5, "1:1"), (0.67, "1:2"), (0.8, "1:4"),
         (0.9, "1:9"))  # fmt: skip
_LEFT_OUT = 20  # below as many patches, a share is noise

Grouped = tuple[str, npt.ArrayLike, npt.ArrayLike, npt.ArrayLike | None]
Scores = tuple[str, npt.ArrayLike, npt.ArrayLike]


def reliability(models: Sequence[Grouped], path: Path) -> Path:
    """Reliability diagram: share of IDC against mean probability in equal-mass bins, and where probabilities lie.

    Args:
        models: (name, labels (n,), probabilities (n,), patient ids (n,) or None) of each, such as one
            before and one after calibration; ids widen the intervals to what patients allow.
        path: the PNG to write.

    Raises:
        RunError: no model or no patch, or as `reliability_table`.
        StorageError: the disk refused the write.
    """
    _check(models)
    figure = Figure(figsize=(WIDTH, 4.9 + 0.22 * len(models)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    left.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, linestyle=":")
    left.text(0.03, 0.92, "probabilities too low", color=GREY, fontsize=9)
    left.text(0.97, 0.06, "too high", color=GREY, fontsize=9, ha="right")
    sizes = [_reliability_line(left, index, *model) for index, model in enumerate(models)]
    for index, (_, _, p, _) in enumerate(models):
        right.hist(np.asarray(p, dtype=np.float64), np.linspace(0, 1, 41), histtype="step", **_style(index))
    left.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    left.set_aspect("equal")
    _name(left, "Do probabilities come true?", "Mean predicted probability of IDC", "Observed share of IDC")
    right.set(xlim=(-0.02, 1.02), yscale="log")
    _name(right, "Where they lie", "Predicted probability of IDC", "Patches (log scale)")
    _legend(figure, left)
    over = "patients" if all(patients is not None for *_, patients in models) else "patches"
    marks = " / ".join(f"{size:,}" for size in dict.fromkeys(sizes))
    figure.suptitle(f"Each mark: about {marks} patches; bars: 95 % intervals over {over}", fontsize=10, color=GREY)
    return save(figure, path)


def risk_coverage(
    models: Sequence[Scores], thresholds: Sequence[float], path: Path, *,
    limits: tuple[float, float] | None = None, aim: float | None = None,
) -> Path:  # fmt: skip
    """Error rate among the most confident share of patches, for every share.

    Args:
        models: (name, labels (n,), probabilities (n,)) of each.
        thresholds: one a model; a patch is called IDC from this probability on.
        path: the PNG to write.
        limits: (low, high) of abstention, chosen on validation patients; what they leave is marked.
        aim: the error rate that the limits were chosen for, as a line.

    Raises:
        RunError: no model or no patch, or as `ductal.evaluation.selective.risk_coverage`.
        StorageError: the disk refused the write.
    """
    _check(models)
    figure = Figure(figsize=(WIDTH, 4.4 + 0.22 * len(models)), layout="constrained")
    ax = figure.subplots()
    for index, ((name, y, p), threshold) in enumerate(zip(models, thresholds, strict=True)):
        curve, style = risks(y, p, threshold), _style(index)
        label = f"{short(name, 50)}: overall {curve['risk'].iloc[-1]:.1%} wrong, AURC {number(aurc(y, p, threshold))}"
        if limits is not None:
            coverage, error_rate = within_limits(y, p, threshold, *limits)
            label += f"; {coverage:.0%} within limits"
            if coverage:
                label += f", {error_rate:.1%} wrong"
                ax.plot(coverage, error_rate, marker="o", markersize=8, color=style["color"], zorder=4)
        n = np.size(y)
        shown = curve[curve["coverage"] * n >= min(_LEFT_OUT, n)]
        ax.plot(shown["coverage"], shown["risk"], label=label, **style)
    if aim is not None:
        ax.axhline(aim, color=GREY, linewidth=0.9, linestyle=":")
    ax.set(xlim=(0, 1.01), ylim=(0, max(0.02, ax.get_ylim()[1])))
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    _name(ax, "", "Share of patches called, the most confident first (coverage)", "Wrong among these (risk)")
    _legend(figure, ax)
    return save(figure, path)


def decision_curve(models: Sequence[Scores], path: Path) -> Path:
    """Net benefit of each model over thresholds, with calling all patches and calling none.

    Args:
        models: (name, labels (n,), calibrated probabilities (n,)) of each, on the same patches.
        path: the PNG to write.

    Raises:
        RunError: no model or no patch, or as `ductal.evaluation.decision.decision_curve`.
        StorageError: the disk refused the write.
    """
    _check(models)
    figure = Figure(figsize=(WIDTH, 4.6 + 0.22 * len(models)), layout="constrained")
    ax = figure.subplots()
    prevalence = max(binary_metrics(y, p)["prevalence"] for _, y, p in models)
    for index, (name, y, p) in enumerate(models):
        curve = net_benefits(y, p)
        if index == 0:
            ax.plot(curve["threshold"], curve["treat_all"], color=GREY, linewidth=1.2, label="call all patches IDC")
            ax.axhline(0, color="black", linewidth=1.2, label="call none")
        ax.plot(curve["threshold"], curve["net_benefit"], label=short(name, 60), **_style(index))
    ax.set(xlim=(0, 1), ylim=(-0.15 * max(prevalence, 0.02), 1.08 * max(prevalence, 0.02)))
    ax.set_xticks([t for t, _ in _ODDS], [f"{t:g}\n{odds}" for t, odds in _ODDS])
    _name(
        ax, "", "Threshold probability, and how many false alarms a missed IDC patch is held to be worth",
        "Net benefit (true positives per patch)",
    )  # fmt: skip
    _legend(figure, ax, ncols=2)
    return save(figure, path)


def _check(models: Sequence[tuple[Any, ...]]) -> None:
    if not models or any(not np.size(model[1]) for model in models):
        raise RunError("There is no model, or one without patches, so there is nothing to draw.")


def _reliability_line(
    ax: Axes, index: int, name: str, y: npt.ArrayLike, p: npt.ArrayLike, patients: npt.ArrayLike | None
) -> int:
    """Draw one model's bins; returns how many patches a bin has in the median."""
    table, found = reliability_table(y, p, patients), calibration_scores(y, p)
    label = (
        f"{short(name, 60)}: ECE {number(found['ece'])}, Brier {number(found['brier'])}, "
        f"log loss {number(found['nll'])}"
    )
    observed = table["observed"].to_numpy()
    spread = np.nan_to_num(np.stack([observed - table["low"], table["high"] - observed]))
    ax.errorbar(
        table["predicted"], observed, spread, marker=MARKERS[index % len(MARKERS)], markersize=4.5, elinewidth=1,
        capsize=2, label=label, **_style(index),
    )  # fmt: skip
    return int(table["n"].median())


def _style(index: int) -> dict[str, Any]:
    return {"color": PALETTE[index % len(PALETTE)], "linestyle": STYLES[index % len(STYLES)], "linewidth": 1.7}


def _name(ax: Axes, title: str, xlabel: str, ylabel: str) -> None:
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.set_title(title, fontsize=11)
    tidy(ax)


def _legend(figure: Figure, ax: Axes, ncols: int = 1) -> None:
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=ncols, frameon=False, handlelength=3)

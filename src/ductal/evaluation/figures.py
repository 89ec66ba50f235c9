"""Figures of a run's predictions and of a comparison; each function writes one PNG and returns its path.

Drawn with Matplotlib's objects and no pyplot, so nothing global is left behind and a web server
may draw too. Colours are those of Okabe & Ito, told apart with colour-blind eyes; models also
differ in line style. Sizes suit a column of about 850 px.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ductal.data.cohort import PatchView
from ductal.data.naming import parse_patch_name
from ductal.errors import RunError
from ductal.evaluation.drawing import (
    BLUE,
    GREY,
    PALETTE,
    STYLES,
    WIDTH,
    number,
    save,
    short,
    tidy,
)
from ductal.evaluation.metrics import binary_metrics

CLASS_NAMES = ("not_cancer", "cancer")

Scores = tuple[str, npt.ArrayLike, npt.ArrayLike]


def confusion(y: npt.ArrayLike, p: npt.ArrayLike, threshold: float, path: Path) -> Path:
    """Confusion matrix: counts, and beside them the share of each true class.

    Args:
        y: labels, shape (n,), IDC = 1.
        p: probabilities of IDC, shape (n,).
        threshold: a patch is called cancer from this probability on.
        path: the PNG to write.

    Raises:
        RunError: as `binary_metrics`.
        StorageError: the disk refused the write.
    """
    found = binary_metrics(y, p, threshold)
    counts = np.array([[found["tn"], found["fp"]], [found["fn"], found["tp"]]], dtype=np.int64)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros((2, 2)), where=totals > 0)
    figure = Figure(figsize=(WIDTH, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    for ax, cells, title in (
        (left, [[f"{value:,}" for value in row] for row in counts], "Patches"),
        (right, [[f"{value:.1%}" for value in row] for row in shares], "Share of each true class"),
    ):
        # Both are shaded by the share: counts would let the larger class drown the other.
        ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for i in range(2):
            for j in range(2):
                colour = "white" if shares[i, j] > 0.55 else "black"
                ax.text(j, i, cells[i][j], ha="center", va="center", color=colour, fontsize=15)
        ax.set_title(title, fontsize=11)
        ax.set_xticks([0, 1], CLASS_NAMES)
        ax.set_yticks([0, 1], CLASS_NAMES, rotation=90, va="center")
        ax.set_xlabel("Called")
        ax.set_ylabel("Truth")
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    figure.suptitle(
        f"{int(found['n']):,} patches, called cancer from probability {threshold:.3f}", fontsize=11
    )
    return save(figure, path)


def roc_pr(models: Sequence[Scores], path: Path) -> Path:
    """ROC and precision-recall curves of one or more models, AUC and AP in a shared legend.

    Args:
        models: (name, labels (n,), probabilities (n,)) of each, best first.
        path: the PNG to write.

    Raises:
        RunError: no model was given, or as `binary_metrics`.
        StorageError: the disk refused the write.
    """
    if not models:
        raise RunError("There is no model whose curves could be drawn. Give at least one.")
    figure = Figure(figsize=(WIDTH, 4.6 + 0.22 * len(models)), layout="constrained")
    roc, pr = figure.subplots(1, 2)
    roc.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    for index, (name, y, p) in enumerate(models):
        _roc_pr_lines(roc, pr, index, name, np.asarray(y), np.asarray(p, dtype=np.float64))
    prevalence = [float(np.mean(np.asarray(y))) for _, y, _ in models if np.size(np.asarray(y))]
    if prevalence:
        pr.axhline(prevalence[0], color=GREY, linewidth=0.8, linestyle=":")
        pr.text(0.01, prevalence[0] + 0.012, f"prevalence {prevalence[0]:.1%}", color=GREY, fontsize=9)
    _unit_square(roc, "ROC", "False positive rate (1 - specificity)", "True positive rate (recall)")
    _unit_square(pr, "Precision-recall", "Recall", "Precision")
    handles, labels = roc.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", frameon=False, handlelength=3)
    return save(figure, path)


def sample_patches(
    pixels_u8: npt.NDArray[np.uint8] | PatchView,
    labels: npt.ArrayLike,
    probs: npt.ArrayLike,
    path: Path,
    *,
    patch_ids: Sequence[str] | None = None,
    threshold: float = 0.5,
    per_kind: int = 8,
) -> Path:
    """The patches a model is surest about: right and wrong, of both classes.

    Args:
        pixels_u8: uint8 RGB, shape (n, 50, 50, 3); may be a memory map or a view, only shown patches are read.
        labels: shape (n,), IDC = 1.
        probs: probabilities of IDC, shape (n,).
        path: the PNG to write.
        patch_ids: shape (n,); patient and place are printed below each patch when given.
        threshold: a patch is called cancer from this probability on.
        per_kind: patches in each of the four rows.

    Raises:
        RunError: there is no patch, or the arrays do not agree in length.
        StorageError: the disk refused the write.
    """
    y, p = np.asarray(labels).astype(bool), np.asarray(probs, dtype=np.float64)
    if not len(p) or len(pixels_u8) != len(p) or len(y) != len(p):
        raise RunError(
            "Sample patches need as many pixels as labels and probabilities, and at least one. "
            f"Received: {len(pixels_u8)}, {len(y)} and {len(p)}."
        )
    called = p >= threshold
    kinds = (
        ("Right:\ncancer", y & called, -p),
        ("Right:\nnot cancer", ~y & ~called, p),
        ("Missed\ncancer", y & ~called, p),
        ("False\nalarm", ~y & called, -p),
    )
    figure = Figure(figsize=(WIDTH, 1.62 * len(kinds)), layout="constrained")
    axes = figure.subplots(len(kinds), per_kind, squeeze=False)
    for row, (title, members, surest_first) in zip(axes, kinds, strict=True):
        chosen = np.flatnonzero(members)
        chosen = chosen[np.argsort(surest_first[chosen], kind="stable")][:per_kind]
        for ax in row:
            ax.set_xticks([])
            ax.set_yticks([])
            ax.spines[:].set_visible(False)
        row[0].set_ylabel(
            f"{title}\n({int(members.sum()):,})", rotation=0, ha="right", va="center", fontsize=9
        )
        for ax, index in zip(row, chosen, strict=False):
            ax.imshow(pixels_u8[index], interpolation="nearest")
            caption = f"p = {p[index]:.3f}"
            if patch_ids is not None:
                caption += f"\n{_place(str(patch_ids[int(index)]))}"
            ax.set_xlabel(caption, fontsize=7.5, labelpad=3)
        if not len(chosen):
            row[0].imshow(np.full((50, 50, 3), 255, np.uint8))
            row[0].text(25, 25, "none", ha="center", va="center", color=GREY)
    return save(figure, path)


def leaderboard_bars(rows: pd.DataFrame, path: Path) -> Path:
    """Balanced accuracy and ROC AUC of each model as dots with 95 % intervals; control models are hollow.

    Args:
        rows: as from `ductal.evaluation.compare.leaderboard`: columns name, control,
            balanced_accuracy, roc_auc, and perhaps each one's _low and _high; the first row is drawn on top.
        path: the PNG to write.

    Raises:
        RunError: there is no row.
        StorageError: the disk refused the write.
    """
    if rows.empty:
        raise RunError("The leaderboard has no row to draw. Give at least one run.")
    figure = Figure(figsize=(WIDTH, 1.15 + 0.34 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    heights = np.arange(len(rows))[::-1]
    control = rows["control"].to_numpy(dtype=bool)
    for ax, column, title in (
        (left, "balanced_accuracy", "Balanced accuracy"),
        (right, "roc_auc", "ROC AUC"),
    ):
        values = rows[column].to_numpy(dtype=float)
        low, high = (
            rows[f"{column}_{end}"].to_numpy(dtype=float) if f"{column}_{end}" in rows else np.full(len(rows), np.nan)
            for end in ("low", "high")
        )
        ax.hlines(heights, 0.5, np.maximum(values, 0), color="#cccccc", linewidth=1)
        ax.hlines(heights, low, high, color=BLUE, alpha=0.35, linewidth=4)
        ax.scatter(values[~control], heights[~control], color=BLUE, s=48, zorder=3)
        ax.scatter(values[control], heights[control], facecolor="white", edgecolor=BLUE, s=48, zorder=3)
        for value, top, height in zip(values, high, heights, strict=True):
            shown = "undefined" if np.isnan(value) else f"{value:.3f}"
            at = 0.5 if np.isnan(value) else np.fmax(value, top)
            ax.annotate(
                shown, (at, height), xytext=(8, 0), textcoords="offset points", va="center", fontsize=9
            )
        lowest = np.nanmin(np.fmin(values, low)) if np.isfinite(values).any() else 0.5
        # Room on the right for the number beside a dot at 1.0.
        left_end = min(0.48, lowest - 0.03)
        ax.set_xlim(left_end, 1.0 + 0.17 * (1.0 - left_end))
        ax.set_xticks(np.arange(np.ceil(left_end * 10) / 10, 1.01, 0.1))
        ax.set_title(title, fontsize=11)
        tidy(ax)
        ax.grid(visible=False, axis="y")
    names = [short(name, 40) for name in rows["name"]]
    left.set_yticks(heights, names)
    left.set_ylim(-0.6, len(rows) - 0.4)
    legend = ["hollow: control models, which see colours or nothing at all"] if control.any() else []
    if "roc_auc_low" in rows and rows["roc_auc_low"].notna().any():
        legend.append("bars: 95 % intervals over patients")
    if legend:
        figure.supxlabel("; ".join(legend), fontsize=9, color=GREY)
    return save(figure, path)


def _roc_pr_lines(
    roc: Axes, pr: Axes, index: int, name: str, y: npt.NDArray[Any], p: npt.NDArray[np.float64]
) -> None:
    from sklearn.metrics import precision_recall_curve, roc_curve

    style: dict[str, Any] = {
        "color": PALETTE[index % len(PALETTE)],
        "linestyle": STYLES[index % len(STYLES)],
        "linewidth": 1.7,
    }
    found = binary_metrics(y, p)
    label = f"{short(name, 60)}: AUC {number(found['roc_auc'])}, AP {number(found['average_precision'])}"
    if not 0 < y.sum() < y.size:
        roc.plot([], [], label=f"{label} (one class only)", **style)
        return
    false_positive, true_positive, _ = roc_curve(y, p)
    roc.plot(false_positive, true_positive, label=label, **style)
    precision, recall, _ = precision_recall_curve(y, p)
    pr.plot(recall, precision, drawstyle="steps-post", **style)


def _unit_square(ax: Axes, title: str, xlabel: str, ylabel: str) -> None:
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=xlabel, ylabel=ylabel)
    ax.set_title(title, fontsize=11)
    tidy(ax)


def _place(patch_id: str) -> str:
    name = parse_patch_name(patch_id)
    return f"{short(name.patient, 14)}\nx{name.x} y{name.y}" if name else short(patch_id, 14)

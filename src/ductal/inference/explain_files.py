"""Explanations of image files, folders, archives and cohorts, written as a folder of pictures, maps and one table."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import pandas as pd
from PIL import Image

from ductal.errors import DataError, RunError
from ductal.evaluation.figures import CLASS_NAMES
from ductal.evaluation.figures_explain import explanations
from ductal.files import atomic_folder
from ductal.inference.engines import load_keras
from ductal.inference.explain import (
    SMALLEST_DROP,
    agreement,
    enlarged,
    grad_cam,
    is_empty,
    normalised,
    occlusion,
    overlay,
)
from ductal.inference.predict_files import read_patches
from ductal.inference.predictor import MEMBERS, Predictor

Method = Literal["grad-cam", "occlusion", "both"]
TABLE, MAPS, OVERLAYS = "explanations.csv", "maps.npz", "overlays"
A_PAGE = 24  # patches of one overview
SCALE = 4  # of the overlays, 200 px
GAP = 8  # white pixels between the pictures of a strip
# Closer to 0 or 1, float32 rounds a probability by more than `SMALLEST_DROP` in its logit, or it is cut off there.
SATURATED = 1e-5


@dataclass(frozen=True)
class Explained:
    """Maps of n patches: `shown` holds those of each method in [0, 1] by its name, for viewing.

    `drops` are occlusion's own values, float32 (n, 50, 50), None where it was not asked for; `layer` is Grad-CAM's.
    """

    shown: dict[str, np.ndarray]
    drops: np.ndarray | None
    layer: str

    def agreement(self) -> np.ndarray:
        """float32 (n,); nan where there are not two maps to compare."""
        maps = list(self.shown.values())
        return agreement(maps[0], maps[1]) if len(maps) == 2 else np.full(len(maps[0]), np.nan, np.float32)


def explain_source(
    run_folder: str | Path,
    source: str | Path,
    out: str | Path,
    *,
    method: Method = "both",
    limit: int = 24,
    d4: bool = False,
    layer: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Explain the class each patch of `source` is called, and write `out`.

    `out` holds `explanations.csv`, `overview.png` (and `overview_2.png`, ... of 24 patches each), `overlays/` with a
    strip for each patch (the patch, then its overlays), and `maps.npz` (`patch`; `grad_cam`, float32 (n, 50, 50) in
    [0, 1]; `occlusion`, the same shape, drops of the logit).

    Args:
        run_folder: a finished run; its threshold decides what is called cancer.
        source: an image, a folder of images (searched to any depth), a zip, or a prepared cohort.
        out: a folder that is new, empty, or an earlier explanation, which is replaced.
        method: "grad-cam", "occlusion", or "both" with their agreement.
        limit: at most this many images, evenly over the source.
        d4: explain the average over the 8 rotations and flips of each patch.
        layer: Grad-CAM's; the last with a map of at least 2 x 2 by default.
        progress: called with (maps done, maps in all).

    Returns:
        The table that was written: number, patch, probability, called, layer, agreement, largest_drop (of the logit,
        by occlusion), flags (what to know before looking, or why an image is not usable).

    Raises:
        DataError: no usable image there, `out` holds something else,
            or a layer is named for occlusion alone. UnsafeArchiveError: a hostile zip.
        RunError: not a finished run, or a network or layer that cannot be explained.
        StorageError: the disk refused the write.
    """
    out, source = Path(out), Path(source)
    if layer is not None and method == "occlusion":
        raise DataError(f"Occlusion looks at no layer. Leave out the layer, or use Grad-CAM. Received: {layer}")
    _check_out(out, source)
    predictor = Predictor.from_run(run_folder, d4=d4, exact=True)
    names, patches, problems = read_patches(source, limit)
    good = np.flatnonzero([not problem for problem in problems])
    if not len(good):
        raise DataError(
            f"None of the {len(names)} images read from {source} can be explained. The first, {names[0]}: "
            f"{problems[0]}. Patches are whole images of 50 x 50 px."
        )
    patches = patches[good]
    probs = predictor.predict(patches)
    called = predictor.called(probs)
    explained = _explain(Path(run_folder), predictor, patches, called, method, layer, d4, progress)
    agreed = explained.agreement()
    table = _table(names, problems, good, probs, called, agreed, explained)
    with atomic_folder(out) as folder:
        table.to_csv(folder / TABLE, index=False, float_format="%.6g")
        _write_maps(folder / MAPS, [names[row] for row in good], explained)
        _write_overlays(folder / OVERLAYS, table.iloc[good], patches, explained)
        for page, start in enumerate(range(0, len(good), A_PAGE), start=1):
            part = slice(start, start + A_PAGE)
            explanations(
                patches[part], {name: maps[part] for name, maps in explained.shown.items()},
                probs[part], called[part], folder / (f"overview_{page}.png" if page > 1 else "overview.png"),
                numbers=good[part] + 1, agreement=agreed[part],
            )  # fmt: skip
    return table


def summary(table: pd.DataFrame) -> str:
    """One line about what `explain_source` returned."""
    usable = table[table["probability"].notna()]
    parts = [f"{len(usable):,} patches explained"]
    parts += [f"Grad-CAM of layer {name}" for name in usable["layer"].unique() if name]
    if usable["agreement"].notna().any():
        parts.append(f"median agreement of the two maps {usable['agreement'].median():.2f}")
    if flagged := int((table["flags"] != "").sum()):
        parts.append(f"{flagged:,} with flags, see {TABLE}")
    return "; ".join(parts)


def _check_out(out: Path, source: Path) -> None:
    """Before the work: what is at `out` would be replaced."""
    foreign = {item.name for item in out.iterdir()} - {TABLE, MAPS, OVERLAYS} if out.is_dir() else set()
    foreign = {name for name in foreign if not re.fullmatch(r"overview(_\d+)?\.png", name)}
    if foreign or (out.exists() and not out.is_dir()):
        what = f"holds {sorted(foreign)[0]!r}" if foreign else "is a file"
        raise DataError(f"{out} {what}, so it is not replaced by explanations. Choose a new or empty folder.")
    if out.exists() and source.exists() and source.resolve().is_relative_to(out.resolve()):
        raise DataError(f"{out} holds the source {source} and would be replaced. Choose another folder to write to.")


def _explain(
    run_folder: Path,
    predictor: Predictor,
    patches: np.ndarray,
    called: np.ndarray,
    method: Method,
    layer: str | None,
    d4: bool,
    progress: Callable[[int, int], None] | None,
) -> Explained:
    methods = 2 if method == "both" else 1
    shown: dict[str, np.ndarray] = {}
    drops, name = None, ""

    def told(done: int, total: int) -> None:
        if progress:
            progress(len(shown) * total + done, methods * total)

    if method != "occlusion":
        if (run_folder / MEMBERS).is_dir():
            raise RunError(
                f"{run_folder} is an ensemble, and Grad-CAM looks into one network. Name a folder below "
                f"{run_folder / MEMBERS}, or use the method occlusion."
            )
        model = load_keras(run_folder / "model.keras")
        from ductal.inference.taps import Tap

        name = Tap(model, layer).name
        shown["Grad-CAM"] = grad_cam(model, patches, layer=name, target=called, d4=d4, progress=told)
    if method != "grad-cam":
        drops = occlusion(predictor.predict, patches, target=called, progress=told)
        shown["Occlusion"] = normalised(drops, floor=SMALLEST_DROP)
    return Explained(shown, drops, name)


def _table(
    names: list[str],
    problems: list[str],
    good: np.ndarray,
    probs: np.ndarray,
    called: np.ndarray,
    agreed: np.ndarray,
    explained: Explained,
) -> pd.DataFrame:
    flags = [f"not usable: {problem}" if problem else "" for problem in problems]
    for row, flag in zip(good, _flags(probs, explained), strict=True):
        flags[row] = flag
    largest = np.full(len(good), np.nan) if explained.drops is None else explained.drops.max(axis=(1, 2))
    columns = pd.DataFrame(
        {
            "probability": probs,
            "called": np.array(CLASS_NAMES)[called.astype(int)],
            "layer": explained.layer,
            "agreement": agreed,
            "largest_drop": largest,
        },
        index=good,
    )
    table = pd.DataFrame({"number": range(1, len(names) + 1), "patch": names})
    return table.join(columns).assign(flags=flags)


def _flags(probs: np.ndarray, explained: Explained) -> list[str]:
    found: list[list[str]] = [[] for _ in probs]
    for name, maps in explained.shown.items():
        for row in np.flatnonzero(is_empty(maps)):
            found[row].append(f"{name} is empty")
    if explained.drops is not None:
        for row in np.flatnonzero(np.minimum(probs, 1 - probs) < SATURATED):
            found[row].append("probability so near 0 or 1 that drops are rough")
    return ["; ".join(each) for each in found]


def _write_maps(path: Path, names: list[str], explained: Explained) -> None:
    arrays: dict[str, Any] = {"patch": np.array(names)}
    if "Grad-CAM" in explained.shown:
        arrays["grad_cam"] = explained.shown["Grad-CAM"]
    if explained.drops is not None:
        arrays["occlusion"] = explained.drops
    np.savez_compressed(path, **arrays)


def _write_overlays(folder: Path, rows: pd.DataFrame, patches: np.ndarray, explained: Explained) -> None:
    folder.mkdir()
    pictures = [enlarged(patches, SCALE)]
    for maps in explained.shown.values():
        gap = np.full((len(patches), pictures[0].shape[1], GAP, 3), 255, np.uint8)
        pictures += [gap, overlay(patches, maps, scale=SCALE)]
    strips = np.concatenate(pictures, axis=2)
    for number, name, strip in zip(rows["number"], rows["patch"], strips, strict=True):
        stem = re.sub(r"[^\w.-]", "_", PurePosixPath(name).stem)[:80]
        Image.fromarray(strip).save(folder / f"{number:04d}_{stem}.png")

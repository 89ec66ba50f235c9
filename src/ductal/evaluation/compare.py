"""Runs side by side: reads finished run folders, without TensorFlow, into one leaderboard."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ductal.errors import RunError
from ductal.evaluation.bootstrap import Resampling
from ductal.evaluation.differences import (
    COMPARED,
    Difference,
    Patches,
    Scored,
    corrected,
    difference,
    resampled,
)
from ductal.evaluation.folds import pool_folds
from ductal.evaluation.runs import PART_WORDS, Part, RunRecord, load_run

AT_THRESHOLD = ("accuracy", "balanced_accuracy", "precision", "recall", "specificity", "f1")
NO_THRESHOLD = ("roc_auc", "average_precision", "brier")


def leaderboard(
    folders: Iterable[str | Path], part: Part | None = None, *, allow_different: bool = False
) -> pd.DataFrame:
    """One row a run, control models included, sorted by ROC AUC on `part` (the best first).

    ROC AUC decides because it depends on no threshold. The reference "best" of the columns below is the model (not a
    control) with the highest ROC AUC on validation patients: on test patients it was then chosen without them.
    Columns without a suffix are taken at the
    threshold chosen on validation patients; those ending in ``_at_0.5`` at 0.5. Folds of one k-fold
    split are pooled into one row (`ductal.evaluation.folds`): every patient is then a validation patient of one
    network and a test patient of another, so "best" is chosen by other scores, but of the same patients.

    Args:
        folders: run folders.
        part: "test" or "val"; None takes test patients when every run has been evaluated on
            them, else validation patients.
        allow_different: compare runs of other patches or splits too, and say so in a `note` column.

    Returns:
        Columns name (told apart where two runs have one), recipe, seed, settings (equal for runs that differ in
        their seed only), title, control, track, part, val_roc_auc, patches, patients, prevalence, threshold,
        NO_THRESHOLD, AT_THRESHOLD at both thresholds, patient_balanced_accuracy (macro mean), parameters, epochs,
        train_seconds and perhaps note. Each metric has ``<metric>_low`` and ``<metric>_high``, its 95 %
        interval over patients, nan where there is none. With two runs or more, ``to_best`` and ``to_control``
        say whether the ROC AUC is really higher or lower than that of the best model and of the best control
        ("unclear" where chance explains it), and ``<metric>_minus_best`` (and ``_low``, ``_high``, ``_p``) by
        how much, for the metrics COMPARED; see `ductal.evaluation.differences`.

    Raises:
        RunError: no run, an incomplete one, one that was not evaluated on `part`, or (unless
            allowed) runs of another cohort, split or set of patches.
    """
    return ranked(load_runs(folders), part, allow_different=allow_different)[0]


def load_runs(folders: Iterable[str | Path]) -> list[RunRecord]:
    """Read finished runs, with folds of one k-fold split pooled. Raises RunError as `load_run` and `pool_folds`."""
    return pool_folds([load_run(folder) for folder in folders])


def ranked(
    runs: Sequence[RunRecord], part: Part | None = None, *, allow_different: bool = False
) -> tuple[pd.DataFrame, list[RunRecord]]:
    """The leaderboard of runs that are read already, and the runs in its order; see `leaderboard`."""
    if not runs:
        raise RunError("There is no run to compare. Train a recipe first, or name run folders.")
    part = part or ("test" if all("test" in run.parts for run in runs) else "val")
    for run in runs:
        if part not in run.parts:
            raise RunError(
                f"{run.folder} was not evaluated on {PART_WORDS[part]} patients. "
                "Evaluate it on them, or compare on the other part."
            )
    tables = [run.predictions(part) for run in runs]
    rows = pd.DataFrame([_row(run, part, table) for run, table in zip(runs, tables, strict=True)])
    rows["name"] = _distinct_names(runs)
    differences = _differences(runs, tables)
    if any(differences):
        if not allow_different:
            first = next(index for index, text in enumerate(differences) if text)
            raise RunError(
                f"{runs[first].folder} and {runs[0].folder} cannot be compared: {differences[first]}. "
                "Evaluate both on the same patients, or allow different runs to get a noted table."
            )
        rows["note"] = differences
    rows = rows.sort_values(["roc_auc", "name"], ascending=[False, True])
    order = list(rows.index)
    rows = rows.reset_index(drop=True)
    if len(rows) > 1:
        rows = _against_references(rows, [tables[index] for index in order])
    return rows, [runs[index] for index in order]


def _row(run: RunRecord, part: Part, table: pd.DataFrame) -> dict[str, Any]:
    block = run.metrics[part]
    chosen, plain = block["at_threshold"], block["at_0.5"]
    intervals = block.get("intervals") or {}  # runs of an older version have none
    row = {
        "name": run.name,
        "recipe": run.name,
        "seed": run.run.get("seed"),
        "settings": _settings(run),
        "title": run.title,
        "control": run.control,
        "track": "patch-only, D4 averaged" if run.metrics.get("d4") else "patch-only",
        "part": part,
        "val_roc_auc": _val_auc(run),
        "patches": len(table),
        "patients": int((table["patient"].drop_duplicates() != "").sum()),
        "prevalence": _float(chosen["prevalence"]),
        **_with_interval({name: chosen[name] for name in NO_THRESHOLD}, intervals.get("at_threshold")),
        "threshold": _float(block["threshold"]),
        **_with_interval({name: chosen[name] for name in AT_THRESHOLD}, intervals.get("at_threshold")),
    }
    at_half = _with_interval({name: plain[name] for name in AT_THRESHOLD}, intervals.get("at_0.5"), "_at_0.5")
    macro = {"balanced_accuracy": block["per_patient"].get("balanced_accuracy")}
    return {
        **row,
        **at_half,
        **{f"patient_{name}": value for name, value in _with_interval(macro, intervals.get("per_patient")).items()},
        "parameters": _float((run.run.get("parameters") or {}).get("total")) if not run.control else np.nan,
        "epochs": np.nan if run.history is None else float(len(run.history)),
        "train_seconds": _float(run.run.get("timings", {}).get("train_seconds")),
    }


def _val_auc(run: RunRecord) -> float:
    """What may choose a model before test patients are looked at."""
    block = run.metrics.get("val")
    return _float(block["at_threshold"]["roc_auc"]) if block else np.nan


def best_on_validation(rows: pd.DataFrame) -> int:
    """Index of the model that validation patients would choose; of the first row, the best on `part`, if none can."""
    models = rows.loc[~rows["control"].astype(bool), "val_roc_auc"]
    models = models if len(models) else rows["val_roc_auc"]
    at = models.to_numpy(np.float64)
    return int(models.index[int(np.nanargmax(at))]) if np.isfinite(at).any() else int(models.index[0])


def _settings(run: RunRecord) -> str:
    """Equal for runs that differ in their seed only; a seed divides k folds anew, which is part of its doing."""
    split = "folds" if run.pooled else run.run.get("split", {}).get("id")
    same = [run.name, run.run.get("recipe"), run.run["cohort"].get("fingerprint"), split, run.run.get("profile")]
    same += [run.metrics.get("d4"), run.metrics.get("exact", True), run.run.get("precision"), run.run.get("weights")]
    return hashlib.sha1(json.dumps(same, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _with_interval(
    values: Mapping[str, Any], intervals: Mapping[str, Any] | None, suffix: str = ""
) -> dict[str, float]:
    columns = {}
    for name, value in values.items():
        low, high = (intervals or {}).get(name) or (None, None)
        columns[f"{name}{suffix}"] = _float(value)
        columns[f"{name}{suffix}_low"], columns[f"{name}{suffix}_high"] = _float(low), _float(high)
    return columns


def _against_references(rows: pd.DataFrame, tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Add how every row differs from the best model and from the best control, as `leaderboard` says."""
    patches, models = _aligned(tables)
    controls = [index for index in rows.index[rows["control"].astype(bool)] if models[index] is not None]
    references = {"best": best_on_validation(rows)} | ({"control": controls[0]} if controls else {})
    pairs: dict[tuple[int, int], dict[str, Difference]] = {}
    if patches is not None:
        draws = Resampling(patches.patients)
        drawn = [None if model is None else resampled(patches, model, draws) for model in models]
        wanted = sorted({(index, other) for index in rows.index for other in references.values() if index != other})
        for first, second in wanted:
            one, two = models[first], models[second]
            if one is not None and two is not None:
                metrics = (drawn[first] or {}, drawn[second] or {})
                pairs[first, second] = difference(patches, one, two, draws, metrics)
        pairs = dict(zip(pairs, corrected(list(pairs.values())), strict=True))
    for name, reference in references.items():
        found = [pairs.get((index, reference)) for index in rows.index]
        words = [_word(pair) for pair in found]
        words[reference] = name
        rows = pd.concat([rows.assign(**{f"to_{name}": words}), _columns(found, name)], axis=1)
    return rows


def _columns(pairs: Sequence[dict[str, Difference] | None], reference: str) -> pd.DataFrame:
    columns: dict[str, list[float]] = {}
    for metric in COMPARED:
        found = [None if pair is None else pair[metric] for pair in pairs]
        name = f"{metric}_minus_{reference}"
        columns[name] = [_float(one and one.value) for one in found]
        for end, suffix in enumerate(("low", "high")):
            columns[f"{name}_{suffix}"] = [_float(one and one.interval and one.interval[end]) for one in found]
        columns[f"{name}_p"] = [_float(one and one.p) for one in found]
    return pd.DataFrame(columns)


def _word(pair: dict[str, Difference] | None) -> str:
    if pair is None or np.isnan(pair["roc_auc"].p):
        return "n/a"
    if not pair["roc_auc"].real:
        return "unclear"
    return "higher" if pair["roc_auc"].value > 0 else "lower"


def _aligned(tables: Sequence[pd.DataFrame]) -> tuple[Patches | None, list[Scored | None]]:
    """All runs' scores in the order of the first one's patches; None for a run of other patches.

    Without patient ids nothing can be drawn or exchanged, so there are no patches to compare on.
    """
    key = ["patch_id", "patient", "label", "fold"]
    first = tables[0].sort_values("patch_id", ignore_index=True)
    if (first["patient"] == "").any():
        return None, [None] * len(tables)
    group, names = pd.factorize(first["patient"])
    stratum = first["fold"].to_numpy(np.intp) if first["fold"].nunique() > 1 else None
    patches = Patches(first["label"].to_numpy().astype(bool), group.astype(np.intp), len(names), stratum)
    models: list[Scored | None] = []
    for each in tables:
        table = each.sort_values("patch_id", ignore_index=True)
        scores = table["prob"].to_numpy(np.float64)
        same = len(table) == len(first) and all((table[name] == first[name]).all() for name in key)
        models.append(Scored(scores, scores >= table["threshold"].to_numpy(np.float64)) if same else None)
    return patches, models


def _differences(runs: Sequence[RunRecord], tables: Sequence[pd.DataFrame]) -> list[str]:
    """Why each run cannot be put beside the first one; "" where it can."""
    first, patches = runs[0].run, set(tables[0]["patch_id"])
    found = []
    for run, table in zip(runs, tables, strict=True):
        why = []
        if run.run["cohort"].get("fingerprint") != first["cohort"].get("fingerprint"):
            why.append("another cohort")
        if run.run.get("split", {}).get("id") != first.get("split", {}).get("id"):
            why.append(f"another split ({run.run.get('split', {}).get('name')})")
        if set(table["patch_id"]) != patches:
            why.append("evaluated on other patches")
        found.append(", ".join(why))
    return found


def _distinct_names(runs: Sequence[RunRecord]) -> list[str]:
    averaged = [bool(run.metrics.get("d4")) for run in runs]
    mixed = len(set(averaged)) > 1
    names = [f"{run.name}, D4" if mixed and d4 else run.name for run, d4 in zip(runs, averaged, strict=True)]
    for name in {name for name in names if names.count(name) > 1}:
        alike = [number for number, other in enumerate(names) if other == name]
        folders = [runs[number].folder.resolve() for number in alike]
        shared = os.path.commonpath(folders)
        for number, folder in zip(alike, folders, strict=True):
            names[number] = f"{name} ({folder.relative_to(shared).as_posix()})"
    return names


def _float(value: Any) -> float:
    return float("nan") if value is None else float(value)

"""The folds of a k-fold split as one result: every patient is tested once, by a network that never saw them.

Scores of different networks are on different scales, so they are never ranked together (Forman & Scholz 2010,
SIGKDD Explor. 12:49; Airola et al. 2011, Comput. Stat. Data Anal. 55:1828: pooling scores biases the AUC):

- calls are made at each fold's own threshold, and their counts are added up before any ratio is taken, which is
  the way to an unbiased F1 (Forman & Scholz 2010);
- the ROC AUC counts pairs within a fold only: the mean of the folds' AUC weighted by their numbers of pairs. The
  average precision is the mean weighted by their numbers of IDC patches.

The intervals draw patients. They do not hold what other training sets would have changed: the folds share most of
theirs, and no unbiased estimate of that variance exists (Bengio & Grandvalet 2004, J. Mach. Learn. Res. 5:1089).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ductal.errors import RunError
from ductal.evaluation.bootstrap import patient_intervals, resampled_metrics
from ductal.evaluation.metrics import binary_metrics, patient_means, per_patient_metrics
from ductal.evaluation.runs import Part, RunRecord


@dataclass(frozen=True)
class PooledRun(RunRecord):
    """Runs of one recipe on the folds of one k-fold split, behaving like a run.

    Attributes:
        folds: the runs, by fold.
    """

    folds: tuple[RunRecord, ...]

    @property
    def title(self) -> str:
        """The recipe's title and the number of folds."""
        return f"{super().title} ({len(self.folds)} folds pooled)"

    @property
    def pooled(self) -> bool:
        """True."""
        return True

    def predictions(self, part: Part) -> pd.DataFrame:
        """As `RunRecord.predictions`, of all folds one below the other."""
        return _joined(self.folds, part)


def pool_folds(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Put runs that are folds of one k-fold split together; all others stay as they are.

    Two runs belong together when they have one recipe, one cohort, one seed and a ``kfold`` split each, with
    different folds. A fold on its own stays a run of its own.

    Raises:
        RunError: two of the folds have tested or validated one patient, so they are of different k-fold splits.
    """
    groups: dict[str, list[RunRecord]] = {}
    for number, run in enumerate(runs):
        groups.setdefault(_family(run) or str(number), []).append(run)
    found: list[RunRecord] = []
    for members in groups.values():
        folds = [member.run.get("split", {}).get("fold") for member in members]
        if len(members) == 1 or len(set(folds)) < len(folds):
            found += members
        else:
            found.append(_pooled(sorted(members, key=lambda member: int(member.run["split"]["fold"]))))
    return found


def evaluate_folds(table: pd.DataFrame) -> dict[str, Any]:
    """The block of metrics.json for predictions of several folds.

    Args:
        table: columns patch_id, patient, label, prob, threshold and fold; a patient is in one fold.

    Returns:
        As `ductal.evaluation.metrics.evaluate_predictions`; ``threshold`` is None, and ``thresholds`` are the folds'.

    Raises:
        RunError: a patch or patient is in two folds.
    """
    per_fold = table.groupby("fold")["threshold"].first()
    named = table[table["patient"] != ""]
    if table["patch_id"].duplicated().any() or (named.groupby("patient")["fold"].nunique() > 1).any():
        raise RunError(
            "Two folds hold the same patient in one part, so they are not of one k-fold split. "
            "Compare runs that were made with one seed and one number of folds."
        )
    truth, probs = table["label"].to_numpy().astype(bool), table["prob"].to_numpy(np.float64)
    fold = table["fold"].to_numpy(np.intp)
    called = {"at_0.5": probs >= 0.5, "at_threshold": probs >= table["threshold"].to_numpy(np.float64)}
    # Patches of unknown patients count as one patient of their fold: for the metrics themselves it does not matter.
    group = pd.factorize(table["patient"] + " " + table["fold"].astype(str))[0].astype(np.intp)
    one = np.ones((1, int(group.max()) + 1))
    found = resampled_metrics(truth, probs, called, group, one, fold)
    each = each_patient(table)
    return {
        **{point: _block(truth, called[point], found[point]) for point in called},
        "per_patient": patient_means(each),
        "threshold": None,
        "thresholds": [float(value) for value in per_fold],
        "intervals": patient_intervals(truth, probs, called, table["patient"].to_numpy(), each, fold),
    }


def each_patient(table: pd.DataFrame) -> pd.DataFrame:
    """The metrics of every patient at their fold's threshold, sorted by patient; see `per_patient_metrics`.

    Args:
        table: as from `RunRecord.predictions`.
    """
    tables = [
        per_patient_metrics(part["label"], part["prob"], part["patient"], float(part["threshold"].iloc[0]))[0]
        for _, part in table.groupby("fold")
    ]
    if not tables:
        return per_patient_metrics([], [], [], 0.5)[0]
    return pd.concat([one for one in tables if len(one)] or tables[:1]).sort_values("patient", ignore_index=True)


def _block(truth: np.ndarray, called: np.ndarray, found: dict[str, np.ndarray]) -> dict[str, float]:
    # The counts of yes-or-no calls do not depend on a scale, so those of all folds can be taken at once.
    counts = binary_metrics(truth, called.astype(np.float64), 0.5)
    return {name: float(found[name][0]) if name in found else value for name, value in counts.items()}


def _family(run: RunRecord) -> str | None:
    """What runs have in common that can be pooled; None for a run that is no fold."""
    split = run.run.get("split", {})
    if split.get("name") != "kfold" or split.get("fold") is None:
        return None
    seeds = [split.get("seed"), run.run.get("seed")]
    same = [run.name, run.run.get("recipe"), run.run["cohort"].get("fingerprint"), seeds]
    return json.dumps(same, sort_keys=True, default=str)


def _joined(folds: Sequence[RunRecord], part: Part) -> pd.DataFrame:
    tables = [run.predictions(part).assign(fold=int(run.run["split"]["fold"])) for run in folds]
    return pd.concat(tables, ignore_index=True)


def _pooled(folds: list[RunRecord]) -> PooledRun:
    parts: list[Part] = [part for part in ("val", "test") if all(part in run.parts for run in folds)]
    tables = {part: _joined(folds, part) for part in parts}
    first, table = folds[0].run, tables[parts[-1]]
    numbers = ", ".join(str(run.run["split"]["fold"]) for run in folds)
    split = first["split"] | {
        # Whoever has tested the same patches can be compared, however they were divided.
        "id": hashlib.sha1("\n".join(sorted(table["patch_id"])).encode()).hexdigest(),
        "fold": None,
        "counts": {
            part: _added([run.run["split"].get("counts", {}).get(part, {}) for run in folds]) for part in parts
        },
        "trained_on": round(np.mean([run.run["split"].get("trained_on", 0) for run in folds])),
        "notes": [f"folds {numbers} pooled: each patient was scored by the network that had not seen them"],
    }
    seconds = [run.run.get("timings", {}) for run in folds]
    record = first | {
        "split": split,
        "test_opened": max(int(run.run.get("test_opened", 0)) for run in folds),
        "alarms": [
            f"Fold {run.run['split']['fold']}: {alarm}" for run in folds for alarm in run.run.get("alarms", [])
        ],
        "audit": next((run.run["audit"] for run in folds if _failed(run)), first.get("audit")),
        "timings": {key: sum(float(one.get(key, 0)) for one in seconds) for key in seconds[0]},
        "finished": max(str(run.run.get("finished", "")) for run in folds),
    }
    metrics: dict[str, Any] = {part: evaluate_folds(each) for part, each in tables.items()}
    metrics["d4"] = folds[0].metrics.get("d4", False)
    return PooledRun(folds[0].folder, record, metrics, None, tuple(folds))


def _failed(run: RunRecord) -> bool:
    return any(check.get("status") == "failed" for check in (run.run.get("audit") or {}).get("checks", []))


def _added(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    return {key: sum(int(one.get(key, 0)) for one in counts) for key in ("patients", "patches", "positives")}

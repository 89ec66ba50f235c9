"""Where a model fails: on whom, how far from the border of the tumour, in what stain, and how surely.

All functions take the table that `place` makes of a part's predictions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from ductal.errors import RunError
from ductal.evaluation.arrays import Bools, Ints
from ductal.evaluation.bins import clustered_share, equal_mass_bins
from ductal.evaluation.grid import surroundings
from ductal.evaluation.metrics import join_labels, per_patient_metrics
from ductal.evaluation.selective import confidence

STAIN_NAMES = ("haematoxylin", "eosin")
FARTHEST = 4  # patches; this distance and beyond are one group
GROUP_COLUMNS = ("n", "patients", "prevalence", "errors", "error_rate", "low", "high", "missed_rate",
                 "false_alarm_rate")  # fmt: skip
MISTAKE_COLUMNS = ["patch_id", "patient", "label", "prob", "confidence"]


def place(predictions: pd.DataFrame, cohort_table: pd.DataFrame) -> pd.DataFrame:
    """Put predictions beside labels, places and surroundings, by patch id.

    Args:
        predictions: columns patch_id and prob, as from `predictions/<part>.parquet`.
        cohort_table: `Cohort.table`; all patches of the patients concerned, since a neighbour counts
            whether it was predicted or not.

    Returns:
        Columns patch_id, patient, label (int8), prob (float32), x, y, change_distance, neighbours,
        positive_neighbours (see `ductal.evaluation.grid.surroundings`), in the order of `cohort_table`.

    Raises:
        RunError: as `ductal.evaluation.metrics.join_labels`.
    """
    predicted = cohort_table["patch_id"].isin(predictions["patch_id"])
    joined = join_labels(predictions, cohort_table[predicted])
    whole = cohort_table[cohort_table["patient"].isin(joined["patient"].unique())]
    around = surroundings(whole)[predicted[whole.index]]
    places = cohort_table.loc[predicted, ["x", "y"]]
    return pd.concat([joined, places.reset_index(drop=True), around.reset_index(drop=True)], axis=1)


def errors_by_patient(table: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """One row a patient, the one with the most wrong patches first.

    Args:
        table: columns patient, label, prob; patches without a patient's id are left out.
        threshold: a patch is called IDC from this probability on.

    Returns:
        Columns patient, n, prevalence, errors, error_rate, error_share (of all patients' errors), fn, fp, recall,
        specificity, balanced_accuracy, roc_auc; nan where undefined.

    Raises:
        RunError: as `binary_metrics`.
    """
    each, _ = per_patient_metrics(table["label"], table["prob"], table["patient"], threshold)
    errors = each["fn"] + each["fp"]
    each = each.assign(
        errors=errors, error_rate=errors / each["n"], error_share=errors / (errors.sum() or float("nan"))
    )
    columns = ["patient", "n", "prevalence", "errors", "error_rate", "error_share", "fn", "fp", "recall",
               "specificity", "balanced_accuracy", "roc_auc"]  # fmt: skip
    ranked = each[columns].sort_values(["errors", "patient"], ascending=[False, True])
    return ranked.reset_index(drop=True)


def errors_by_distance(table: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Errors by distance from the nearest patch of the other class, in patches, on rebuilt slides.

    Next to a change of class, patches hold both tissues and the label is a matter of where the outline was
    drawn; errors far from it cannot be put down to that.

    Args:
        table: as from `place`; patches whose distance is unknown are left out.
        threshold: a patch is called IDC from this probability on.

    Returns:
        Column distance ("1", "2", "3", "4+", "one class" for slides without a change) and GROUP_COLUMNS; a row
        for each group that has patches. low and high are the error rate's 95 % interval (`clustered_share`);
        missed_rate is among IDC patches, false_alarm_rate among the others.

    Raises:
        RunError: the threshold is nan.
    """
    known = table[table["change_distance"].notna()]
    distance = known["change_distance"].to_numpy(np.float64)
    group = np.where(np.isinf(distance), FARTHEST, np.clip(distance, 1, FARTHEST) - 1).astype(np.intp)
    names = [*(str(step) for step in range(1, FARTHEST)), f"{FARTHEST}+", "one class"]
    return _grouped(known, threshold, group, names, "distance")


def errors_by_stain(
    table: pd.DataFrame, threshold: float, densities: npt.ArrayLike, *, groups: int = 5
) -> pd.DataFrame:
    """Errors in patches of little to much haematoxylin, and of little to much eosin.

    Stain differs between patients and with the tissue, so a difference here is a lead, not a cause:
    compare the missed and the false alarm rates, and see how many patients a group has.

    Args:
        table: columns patient, label, prob.
        threshold: a patch is called IDC from this probability on.
        densities: shape (n, 2), as `ductal.data.stain.stain_densities` of the same patches in the same order.
        groups: of equal size; quintiles unless set.

    Returns:
        Columns stain, group ("1" the palest), lowest, highest (density), and those of `errors_by_distance`.

    Raises:
        RunError: there is not one row of densities for each patch, or the threshold is nan.
    """
    values = np.asarray(densities, dtype=np.float64)
    if values.shape != (len(table), len(STAIN_NAMES)):
        raise RunError(
            "Stain needs the densities of haematoxylin and eosin of each patch. "
            f"Received: shape {values.shape} for {len(table)} patches."
        )
    parts = []
    for stain, density in zip(STAIN_NAMES, values.T, strict=True):
        number = equal_mass_bins(density, groups)
        found = _grouped(table, threshold, number, [str(k + 1) for k in range(groups)], "group")
        edges = pd.Series(density).groupby(number).agg(["min", "max"])
        found.insert(0, "stain", stain)
        found.insert(2, "lowest", edges["min"].to_numpy())
        found.insert(3, "highest", edges["max"].to_numpy())
        parts.append(found)
    return pd.concat(parts, ignore_index=True)


def confident_mistakes(table: pd.DataFrame, threshold: float, *, limit: int = 24) -> pd.DataFrame:
    """The wrong patches that the model was surest of.

    Args:
        table: columns patch_id, patient, label, prob.
        threshold: a patch is called IDC from this probability on.
        limit: how many.

    Returns:
        Columns patch_id, patient, label, prob, confidence (distance from the threshold in logits), surest first.

    Raises:
        RunError: the threshold is nan.
    """
    wrong = table[_wrong(table, threshold)]
    found = wrong.assign(confidence=confidence(wrong["prob"], threshold))[MISTAKE_COLUMNS]
    return found.sort_values(["confidence", "patch_id"], ascending=[False, True])[:limit].reset_index(drop=True)


def label_suspects(
    table: pd.DataFrame,
    threshold: float,
    *,
    sure: float = 0.9,
    agreement: float = 0.75,
    min_neighbours: int = 4,
) -> pd.DataFrame:
    """Patches whose label the model and the labels around them contradict: for a pathologist to look at.

    A suspect is called against its label with a (calibrated) probability of at least `sure`, and where at least
    `min_neighbours` of its neighbours are known, a share of at least `agreement` of these has the
    class that it was called. Elsewhere there is only the model's word, and `agreeing` is nan.

    This is a list to check, not to delete: a lone focus of tumour looks the same from here, and dropping
    evaluated patches that the model got wrong only flatters it.

    Args:
        table: as from `place`.
        threshold: a patch is called IDC from this probability on.
        sure: probability of the called class, in [0.5, 1].
        agreement: share of neighbours.
        min_neighbours: of 8.

    Returns:
        Columns patch_id, patient, label, prob, confidence, neighbours, agreeing (share), the best supported first.

    Raises:
        RunError: the threshold is nan.
    """
    wrong = table[_wrong(table, threshold)]
    called = wrong["label"] == 0  # all of them are called the other class
    called_prob = wrong["prob"].where(called, 1.0 - wrong["prob"])
    supporting = wrong["positive_neighbours"].where(called, wrong["neighbours"] - wrong["positive_neighbours"])
    agreeing = (supporting / wrong["neighbours"]).where(wrong["neighbours"] >= max(1, min_neighbours))
    found = wrong.assign(confidence=confidence(wrong["prob"], threshold), agreeing=agreeing)
    found = found[(called_prob >= sure) & (agreeing.isna() | (agreeing >= agreement))]
    found = found.sort_values(["agreeing", "confidence", "patch_id"], ascending=[False, False, True])
    return found[[*MISTAKE_COLUMNS, "neighbours", "agreeing"]].reset_index(drop=True)


def _wrong(table: pd.DataFrame, threshold: float) -> Bools:
    if np.isnan(threshold):
        raise RunError("Errors need a threshold. Received: nan; choose one on validation patients.")
    wrong: Bools = (table["prob"].to_numpy() >= threshold) != (table["label"].to_numpy() == 1)
    return wrong


def _grouped(
    table: pd.DataFrame, threshold: float, group: Ints, names: Sequence[str], column: str
) -> pd.DataFrame:
    """A row of GROUP_COLUMNS for each number in `group`, which has names[number]."""
    wrong, positive = _wrong(table, threshold), table["label"].to_numpy() == 1
    patient = table["patient"].to_numpy(dtype=str)
    rows = []
    for number in np.unique(group):
        members = group == number
        rate, low, high = clustered_share(wrong[members], patient[members])
        rows.append((
            names[number],
            int(members.sum()),
            len(set(patient[members].tolist()) - {""}),
            float(positive[members].mean()),
            int(wrong[members].sum()),
            rate,
            low,
            high,
            clustered_share(wrong[members & positive]).value,
            clustered_share(wrong[members & ~positive]).value,
        ))  # fmt: skip
    return pd.DataFrame(rows, columns=[column, *GROUP_COLUMNS])

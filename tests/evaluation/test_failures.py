"""Where it fails: groups hold the patches they claim, and suspects need the neighbours' word."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ductal.errors import RunError
from ductal.evaluation.failures import (
    confident_mistakes,
    errors_by_distance,
    errors_by_patient,
    errors_by_stain,
    label_suspects,
    place,
)


def cohort(side: int = 8, patients: str = "ab") -> pd.DataFrame:
    """Whole slides, the left half IDC, in the order of a cohort; the index is not 0 to n - 1."""
    cells = [(r, c) for r in range(side) for c in range(side)]
    rows = [(who, 50 * c + 1, 50 * r + 1, int(c < side // 2)) for who in patients for r, c in cells]
    table = pd.DataFrame(rows, columns=["patient", "x", "y", "label"])
    table["patch_id"] = [
        f"{who}_idx5_x{x}_y{y}_class{label}" for who, x, y, label in table.itertuples(index=False, name=None)
    ]
    return table.astype({"label": "int8"}).set_index(np.arange(len(table)) + 7)


def predicted(table: pd.DataFrame, wrong: pd.Series | np.ndarray, sure: float = 0.95) -> pd.DataFrame:
    called = (table["label"] == 1) != np.asarray(wrong)
    return pd.DataFrame({"patch_id": table["patch_id"], "prob": np.where(called, sure, 1 - sure)})


def test_place_joins_by_id_and_sees_neighbours_that_were_not_predicted() -> None:
    table = cohort(patients="abc")
    some = predicted(table, np.zeros(len(table), bool)).iloc[[5, 70, 3]]
    found = place(some, table)
    assert found["patch_id"].tolist() == [table["patch_id"].iloc[i] for i in (3, 5, 70)]
    assert found["change_distance"].tolist() == [1, 2, 3]
    assert found["neighbours"].tolist() == [5, 5, 5]
    assert found["positive_neighbours"].tolist() == [3, 0, 0]
    assert (found["x"].iloc[0], found["y"].iloc[0]) == (151, 1)
    assert found["prob"].notna().all()
    with pytest.raises(RunError, match="outside the evaluated rows"):
        place(some.assign(patch_id=["other", *some["patch_id"][1:]]), table)


def test_errors_by_distance() -> None:
    table = cohort(side=10)
    near = ((table["x"] - 1) // 50).isin([4, 5])
    found = errors_by_distance(place(predicted(table, near & (table["label"] == 1)), table), 0.5)
    assert found["distance"].tolist() == ["1", "2", "3", "4+"]
    assert found["n"].tolist() == [40, 40, 40, 80]
    assert found["error_rate"].tolist() == [0.5, 0, 0, 0]
    assert found["missed_rate"].tolist() == [1, 0, 0, 0]
    assert (found["false_alarm_rate"] == 0).all()
    assert (found["patients"] == 2).all()
    assert found["errors"].sum() == 20


def test_errors_by_distance_without_slides_has_no_row_and_one_class_has_its_own() -> None:
    table = cohort()
    nothing = np.zeros(len(table), bool)
    assert errors_by_distance(place(predicted(table, nothing), table.assign(x=-1, y=-1)), 0.5).empty
    benign = table.assign(label=np.int8(0))
    found = errors_by_distance(place(predicted(benign, nothing), benign), 0.5)
    assert found["distance"].tolist() == ["one class"]
    assert found["n"].tolist() == [128]
    assert np.isnan(found["missed_rate"][0])


def test_errors_by_stain() -> None:
    table = cohort()
    rank = np.arange(128)
    joined = place(predicted(table, rank >= 115), table)
    found = errors_by_stain(joined, 0.5, np.stack([rank, np.full(128, 0.3)], axis=1))
    haematoxylin = found[found["stain"] == "haematoxylin"]
    assert haematoxylin["group"].tolist() == list("12345")
    assert haematoxylin["n"].sum() == 128
    assert haematoxylin["errors"].tolist() == [0, 0, 0, 0, 13]
    assert (haematoxylin["highest"].to_numpy()[:-1] < haematoxylin["lowest"].to_numpy()[1:]).all()
    eosin = found[found["stain"] == "eosin"]  # all alike: one group
    assert (len(eosin), eosin["n"].iloc[0]) == (1, 128)
    with pytest.raises(RunError, match=r"shape \(127, 2\)"):
        errors_by_stain(joined, 0.5, np.zeros((127, 2)))
    assert errors_by_stain(joined[:0], 0.5, np.zeros((0, 2))).empty


def test_errors_by_patient() -> None:
    table = cohort(patients="abc")
    wrong = (table["patient"] == "b") & (table["y"] == 1)
    found = errors_by_patient(place(predicted(table, wrong), table), 0.5)
    assert found["patient"].tolist() == ["b", "a", "c"]
    assert found["errors"].tolist() == [8, 0, 0]
    assert found["error_share"].tolist() == [1, 0, 0]
    assert (found["fn"][0], found["fp"][0]) == (4, 4)
    assert found["error_rate"][0] == 8 / 64
    assert errors_by_patient(place(predicted(table, wrong & False), table), 0.5)["error_share"].isna().all()


def test_confident_mistakes_are_the_surest_first() -> None:
    table = pd.DataFrame(
        {
            "patch_id": list("pqrst"),
            "patient": "a",
            "label": [1, 0, 1, 0, 0],
            "prob": [0.01, 0.6, 0.9, 0.8, 0.3],
        }
    )
    found = confident_mistakes(table, 0.5)
    assert found["patch_id"].tolist() == ["p", "s", "q"]
    assert found["confidence"].tolist() == pytest.approx([np.log(99), np.log(4), np.log(1.5)])
    assert len(confident_mistakes(table, 0.5, limit=1)) == 1
    assert confident_mistakes(table, 0.7)["patch_id"].tolist() == ["p", "s"]


def test_suspects_need_neighbours_that_agree_with_the_model() -> None:
    table = cohort()
    column, row = (table["x"] - 1) // 50, (table["y"] - 1) // 50
    # Inside the benign half and labelled IDC, and inside the tumour but called benign against all labels around.
    mislabelled = (column == 6) & (row == 3) & (table["patient"] == "a")
    missed = (column == 1) & (row == 3) & (table["patient"] == "b")
    labelled = table.assign(label=table["label"].where(~mislabelled, 1).astype("int8"))
    joined = place(predicted(labelled, mislabelled | missed), labelled)
    found = label_suspects(joined, 0.5)
    assert found["patch_id"].tolist() == table["patch_id"][mislabelled].tolist()
    assert (found["neighbours"][0], found["agreeing"][0]) == (8, 1)
    assert label_suspects(joined, 0.5, sure=0.97).empty
    unplaced = place(predicted(labelled, mislabelled | missed), labelled.assign(x=-1, y=-1))
    assert label_suspects(unplaced, 0.5)["agreeing"].isna().tolist() == [True, True]


@pytest.mark.parametrize("function", [errors_by_distance, confident_mistakes, label_suspects])
def test_a_threshold_that_could_not_be_chosen_is_refused(function) -> None:
    table = cohort()
    joined = place(predicted(table, np.zeros(len(table), bool)), table)
    with pytest.raises(RunError, match="nan"):
        function(joined, float("nan"))

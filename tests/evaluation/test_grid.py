"""Surroundings: against brute force, and unknown where the slide is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ductal.evaluation.grid import surroundings


def slide(rows: list[str], patient: str = "a") -> pd.DataFrame:
    """Patches of a drawing: "#" IDC, "." not, " " no patch."""
    cells = [(c, r, mark) for r, line in enumerate(rows) for c, mark in enumerate(line) if mark != " "]
    return pd.DataFrame(
        {
            "patient": patient,
            "x": [50 * c + 1 for c, _, _ in cells],
            "y": [50 * r + 1 for _, r, _ in cells],
            "label": [int(mark == "#") for *_, mark in cells],
        }
    )


def test_distances_and_neighbours_by_hand() -> None:
    table = slide(["#....", ".....", "....."])
    found = surroundings(table)
    assert found["change_distance"].tolist() == [1, 1, 2, 3, 4, 1, 1, 2, 3, 4, 2, 2, 2, 3, 4]
    assert found["neighbours"].tolist() == [3, 5, 5, 5, 3, 5, 8, 8, 8, 5, 3, 5, 5, 5, 3]
    assert found["positive_neighbours"].tolist() == [0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]


def test_agrees_with_brute_force_whatever_the_order() -> None:
    rng = np.random.default_rng(0)
    parts = [
        slide(["".join(rng.choice([*"##....", " "], 12)) for _ in range(9)], patient) for patient in ("a", "b", "c")
    ]
    table = pd.concat(parts).sample(frac=1, random_state=1)
    found = surroundings(table)
    assert found.index.equals(table.index)
    for patient in "abc":
        own = (table["patient"] == patient).to_numpy()
        xy, label = table[own][["x", "y"]].to_numpy() // 50, table[own]["label"].to_numpy()
        apart = np.abs(xy[:, None] - xy[None]).max(axis=-1)
        other = np.where(label[:, None] != label[None], apart, 99).min(axis=1)
        assert found[own]["change_distance"].tolist() == other.tolist()
        assert found[own]["neighbours"].tolist() == ((apart == 1).sum(axis=1)).tolist()
        assert found[own]["positive_neighbours"].tolist() == ((apart == 1) @ label).tolist()


def test_a_slide_of_one_class_has_no_change() -> None:
    assert np.isinf(surroundings(slide(["....", "...."]))["change_distance"]).all()


@pytest.mark.parametrize(
    "table",
    [
        slide(["#....", "....."]).assign(x=-1, y=-1),
        slide(["#....", "....."], patient=""),
        slide(["# . .", "     ", ". . ."]),  # a sample of patches, not a slide
    ],
)
def test_unknown_places_and_sampled_slides_have_no_distance(table: pd.DataFrame) -> None:
    found = surroundings(table)
    assert found["change_distance"].isna().all()
    assert (found["neighbours"] == 0).all()


def test_nothing_gives_nothing() -> None:
    assert surroundings(slide([])).empty


def test_off_the_grid_touching_is_one() -> None:
    table = slide(["#....", ".....", "....."])
    table.loc[table.index[1:], "x"] -= 20
    assert surroundings(table)["change_distance"].min() == 1

"""Several seeds of one recipe are a range, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import fake_runs as fake
import pandas as pd
import pytest

from ductal.evaluation.compare import leaderboard
from ductal.evaluation.seeds import RANGED, seed_ranges


def board(**changes: list) -> pd.DataFrame:
    rows = pd.DataFrame({"recipe": ["a"] * 3, "seed": [3, 1, 2], "settings": ["x"] * 3, "control": [False] * 3})
    return rows.assign(**{metric: [0.9, 0.8, 0.7] for metric in RANGED}, **changes)


def test_lowest_mean_and_highest() -> None:
    row = seed_ranges(board()).iloc[0]
    assert (row["name"], row["seeds"], row["runs"]) == ("a", "1, 2, 3", 3)
    assert (row["f1_min"], row["f1_max"]) == (0.7, 0.9)
    assert row["f1_mean"] == pytest.approx(0.8)


@pytest.mark.parametrize("changes", [{"settings": ["x", "y", "z"]}, {"seed": [1, 1, 1]}, {"control": [True] * 3}])
def test_other_settings_one_seed_and_controls_are_no_range(changes: dict) -> None:
    found = seed_ranges(board(**changes))
    assert found.empty
    assert "roc_auc_mean" in found


def test_a_changed_recipe_is_another_recipe(tmp_path: Path) -> None:
    runs = [
        fake.make_run(tmp_path / "a", seed=1),
        fake.make_run(tmp_path / "b", seed=2, noise=1),
        fake.make_run(tmp_path / "c", seed=3, recipe={"name": "vgg16-full", "title": "t", "input_px": 96}),
    ]
    assert seed_ranges(leaderboard(runs))["seeds"].tolist() == ["1, 2"]

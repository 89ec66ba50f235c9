"""The context model that a run keeps: its formula, and a file that is whole, readable or refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ductal.context.model import FILE, ContextModel
from ductal.errors import DataError, RunError
from ductal.slides.grid import TileGrid

MODEL = ContextModel(3, 0.5, 0.25, 0.75, temperature=2.0, bias=-1.0, threshold=0.4, patients=("1", "2"), model="ab")
ROW = TileGrid(np.array([0, 1, 3]), np.array([0, 0, 0]), (1, 4))


def test_refine_is_the_formula() -> None:
    found = MODEL.refine(ROW, np.array([2.0, -4.0, 6.0]))
    around = np.array([-1.0, -1.0, 6.0])
    np.testing.assert_allclose(found, (0.5 + 0.25 * np.array([2.0, -4.0, 6.0]) + 0.75 * around) / 2 - 1)


def test_a_tile_that_was_not_looked_at_stays_unknown_and_tells_its_neighbours_nothing() -> None:
    found = MODEL.refine(ROW, np.array([2.0, np.nan, 6.0]))
    np.testing.assert_allclose(found, [(0.5 + 2) / 2 - 1, np.nan, (0.5 + 6) / 2 - 1])


@pytest.mark.parametrize("logits", [np.zeros(2), np.zeros((3, 1)), np.array([0, np.inf, 0])])
def test_wrong_logits_are_refused(logits: np.ndarray) -> None:
    with pytest.raises(DataError):
        MODEL.refine(ROW, logits)


def test_a_saved_model_comes_back(tmp_path: Path) -> None:
    MODEL.save(tmp_path)
    assert ContextModel.load(tmp_path) == MODEL
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    "change",
    [{"window": 4}, {"window": 5.5}, {"window": -1}, {"own": None}, {"own": "x"}, {"temperature": 0}, {"format": 2},
     {"bias": float("inf")}, {"patients": 3}],
)  # fmt: skip
def test_a_file_that_makes_no_sense_is_refused(tmp_path: Path, change: dict) -> None:
    MODEL.save(tmp_path)
    content = json.loads((tmp_path / FILE).read_text()) | change
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"ductal context"):
        ContextModel.load(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "{"])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(RunError, match="Fit it again"):
        ContextModel.load(tmp_path)


def test_a_run_without_context_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no context was fitted"):
        ContextModel.load(tmp_path)

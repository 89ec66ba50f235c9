"""The leaderboard as people read it: narrow in a terminal, whole as CSV, escaped as Markdown."""

from __future__ import annotations

import io
from pathlib import Path

import fake_runs as fake
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from ductal.evaluation.compare import leaderboard
from ductal.evaluation.tables import (
    caption,
    cell,
    difference_rows,
    duration,
    p_equals,
    p_words,
    seed_rows,
    show,
    signed,
    to_csv,
    to_markdown,
    to_rich_table,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six patients, which are too few for intervals."""
    out = tmp_path_factory.mktemp("few")
    return [
        fake.make_run(out / "weak", "vgg16-frozen", skill=1.0),
        fake.make_run(out / "majority", "majority", skill=0.0, control=True),
        fake.make_run(out / "strong", "vgg16-full", skill=3.0),
    ]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Twenty patients, one recipe with two seeds, a control."""
    out = tmp_path_factory.mktemp("many")
    return leaderboard(
        [
            fake.make_run(out / "a", "efficientnetb3-scratch", skill=3.0, noise=1, patients=fake.MANY),
            fake.make_run(out / "b", "efficientnetb3-scratch", skill=3.0, noise=2, patients=fake.MANY, seed=7),
            fake.make_run(out / "c", "colour-histogram", skill=1.0, control=True, patients=fake.MANY),
        ]
    )


def test_markdown_is_one_table_row_a_run_and_escapes_bars(tmp_path: Path) -> None:
    text = to_markdown(leaderboard([fake.make_run(tmp_path / "run", "a|b<script>")]))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 3
    assert r"a\|b&lt;script>" in lines[2]
    assert "track patch-only" in text
    assert "360 patches of 6 test patients" in text


def test_csv_reads_back(folders: list[Path]) -> None:
    rows = leaderboard(folders)
    again = pd.read_csv(io.StringIO(to_csv(rows)))
    assert np.allclose(again["roc_auc"], rows["roc_auc"])
    assert list(again.columns) == list(rows.columns)


def test_the_terminal_table_fits_80_columns_and_takes_names_literally(tmp_path: Path) -> None:
    rows = leaderboard([fake.make_run(tmp_path / "run", "[red]efficientnetb3-scratch")])
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(to_rich_table(rows))
    text = console.export_text()
    assert "[red]" in text
    assert f"{rows['roc_auc'][0]:.3f}" in text
    assert all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.84, "0.8 s"), (42, "42 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_undefined_is_shown_as_such() -> None:
    assert show("roc_auc", float("nan")) == "n/a"
    assert show("parameters", 14_780_481.0) == "14,780,481"


def _terminal(rows: pd.DataFrame) -> str:
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(to_rich_table(rows))
    return console.export_text()


def test_a_cell_says_its_interval_where_there_is_one() -> None:
    row = {"roc_auc": 0.9514, "roc_auc_low": 0.9211, "roc_auc_high": 0.9719, "recall": 0.8}
    assert cell(row, "roc_auc") == "0.951 (0.921 to 0.972)"
    assert cell(row | {"roc_auc_low": np.nan}, "roc_auc") == "0.951"
    assert cell(row, "recall") == "0.800"
    gained = {"d": -0.019, "d_low": -0.031, "d_high": 0.002}
    assert signed(gained, "d") == "-0.019 (-0.031 to +0.002)"
    assert signed({"d": np.nan}, "d") == "n/a"


@pytest.mark.parametrize(("p", "words"), [(0.0314, "0.031"), (0.0002, "< 0.001"), (1.0, "1.000"), (np.nan, "n/a")])
def test_p_values(p: float, words: str) -> None:
    assert p_words(p) == words
    assert p_equals(0.0314) == "= 0.031"
    assert p_equals(0.0002) == "< 0.001"


def test_the_terminal_shows_intervals_and_differences_in_80_columns(rows: pd.DataFrame) -> None:
    text = _terminal(rows)
    assert f"{rows['roc_auc_low'][0]:.3f}-{rows['roc_auc_high'][0]:.3f}" in text
    for word in ("unclear", "lower", "higher", "vs best", "vs control"):
        assert word in text
    assert "colour-histogram" in text  # not folded
    assert all(len(line) <= 80 for line in text.splitlines())


def test_markdown_says_intervals_differences_and_seeds(rows: pd.DataFrame) -> None:
    text = to_markdown(rows)
    assert cell(rows.iloc[0].to_dict(), "balanced_accuracy") in text
    assert "95 % intervals over patients" in text
    assert text.count("(best on validation patients) |") == 2
    assert text.count("colour-histogram (the best control) |") == 2
    assert "(Holm)" in text
    assert "| efficientnetb3-scratch | 7, 42 | " in text
    assert "mean (lowest to highest)" in text


def test_without_intervals_the_caption_says_so(folders: list[Path]) -> None:
    few = leaderboard(folders)
    assert "No intervals over patients: there are fewer than 10" in caption(few)
    assert seed_rows(few) == []
    assert len(difference_rows(few)) == 4
    assert "n/a" not in _terminal(few)


def test_a_single_run_has_no_differences(folders: list[Path]) -> None:
    assert difference_rows(leaderboard(folders[:1])) == []


def test_a_control_that_is_ahead_is_no_best_model_and_among_controls_rows_are_listed_once(tmp_path: Path) -> None:
    runs = [
        fake.make_run(tmp_path / "a", "model", skill=1.0),
        fake.make_run(tmp_path / "b", "mean-colour", skill=3.0, control=True),
        fake.make_run(tmp_path / "c", "majority", skill=0.5, control=True),
    ]
    found = difference_rows(leaderboard(runs[:2]))
    assert [row[:2] for row in found] == [
        ["mean-colour", "model (best on validation patients)"], ["model", "mean-colour (the best control)"]
    ]  # fmt: skip
    found = difference_rows(leaderboard(runs[1:]))
    assert [row[:2] for row in found] == [["majority", "mean-colour (best on validation patients)"]]

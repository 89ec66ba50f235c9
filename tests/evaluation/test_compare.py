"""The leaderboard: right figures, honest comparisons, readable tables."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import fake_runs as fake
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from ductal.errors import RunError
from ductal.evaluation.compare import (
    duration,
    leaderboard,
    load_run,
    show,
    to_csv,
    to_markdown,
    to_rich_table,
)


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [
        fake.make_run(tmp_path / "weak", "vgg16-frozen", skill=1.0),
        fake.make_run(tmp_path / "majority", "majority", skill=0.0, control=True),
        fake.make_run(tmp_path / "strong", "vgg16-full", skill=3.0),
    ]


def test_the_best_run_comes_first_and_controls_are_rows(folders: list[Path]) -> None:
    rows = leaderboard(folders)
    assert rows["name"].tolist() == ["vgg16-full", "vgg16-frozen", "majority"]
    assert rows["control"].tolist() == [False, False, True]
    assert rows["part"].unique().tolist() == ["test"]
    assert rows["track"].unique().tolist() == ["patch-only"]
    assert (rows["patches"] == 360).all()
    assert (rows["patients"] == 6).all()
    assert rows["epochs"].tolist()[:2] == [8, 8]
    assert np.isnan(rows["epochs"].iloc[2])
    assert "note" not in rows


def test_figures_are_those_of_metrics_json_at_both_thresholds(folders: list[Path]) -> None:
    metrics = json.loads((folders[0] / "metrics.json").read_text())["val"]
    row = leaderboard(folders, "val").set_index("name").loc["vgg16-frozen"]
    for name in ("accuracy", "balanced_accuracy", "precision", "recall", "specificity", "f1"):
        assert row[name] == metrics["at_threshold"][name]
        assert row[f"{name}_at_0.5"] == metrics["at_0.5"][name]
    assert row["roc_auc"] == metrics["at_0.5"]["roc_auc"]
    assert row["threshold"] == metrics["threshold"] != 0.5


def test_validation_is_used_when_one_run_has_no_test_patients(folders: list[Path], tmp_path: Path) -> None:
    only_val = fake.make_run(tmp_path / "val", "other", parts=("val",))
    assert leaderboard([*folders, only_val])["part"].unique().tolist() == ["val"]
    with pytest.raises(RunError, match="not evaluated on test patients"):
        leaderboard([*folders, only_val], "test")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"cohort": fake.cohort(fingerprint="ff" * 20)}, "another cohort"),
        ({"split": {"id": "random-7", "name": "random"}}, r"another split \(random\)"),
        ({}, "other patches"),
    ],
)
def test_runs_of_other_data_are_refused_or_noted(folders, tmp_path, change, reason) -> None:
    patients = ("1", "2") if not change else ("8863", "8914", "9022", "9175", "9250", "9257")
    other = fake.make_run(tmp_path / "other", "other", patients=patients, **change)
    with pytest.raises(RunError, match=reason):
        leaderboard([*folders, other])
    rows = leaderboard([*folders, other], allow_different=True).set_index("name")
    assert rows.loc["other", "note"]
    assert rows.loc["vgg16-full", "note"] == ""
    assert "Note" in to_markdown(rows.reset_index())


@pytest.mark.parametrize("missing", ["run.json", "metrics.json", "history.csv", "predictions"])
def test_an_incomplete_run_is_refused(tmp_path: Path, missing: str) -> None:
    folder = fake.make_run(tmp_path / "run")
    path = folder / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(RunError):
        load_run(folder)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="There is no run folder"):
        load_run(tmp_path / "absent")
    folder = fake.make_run(tmp_path / "run")
    for broken in ("[]", "{", "{}"):
        (folder / "run.json").write_text(broken)
        with pytest.raises(RunError):
            load_run(folder)
    with pytest.raises(RunError, match="no run to compare"):
        leaderboard([])


def test_reading_a_run_does_not_load_tensorflow(folders: list[Path]) -> None:
    before = "tensorflow" in sys.modules
    leaderboard(folders)
    assert ("tensorflow" in sys.modules) == before


def test_one_name_twice_is_told_apart(tmp_path: Path) -> None:
    twins = [fake.make_run(tmp_path / name / "vgg16", "vgg16") for name in ("a", "b")]
    assert sorted(leaderboard(twins)["name"]) == ["vgg16 (a/vgg16)", "vgg16 (b/vgg16)"]


def test_a_cohort_without_patient_ids_counts_none(tmp_path: Path) -> None:
    rows = leaderboard([fake.make_run(tmp_path / "run", patients=("",))])
    assert rows["patients"].tolist() == [0]
    assert "patients" not in to_markdown(rows).split("; track")[0].rsplit("\n", 1)[1]


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

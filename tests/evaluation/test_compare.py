"""The leaderboard: right figures, honest comparisons, readable tables."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import fake_runs as fake
import numpy as np
import pytest

from ductal.errors import RunError
from ductal.evaluation.compare import leaderboard
from ductal.evaluation.tables import to_markdown


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


def test_reading_a_run_does_not_load_tensorflow(folders: list[Path]) -> None:
    script = (
        "import sys\nfrom ductal.evaluation.compare import leaderboard\n"
        "leaderboard(sys.argv[1:])\nsys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script, *map(str, folders)], check=False).returncode == 0


def test_one_name_twice_is_told_apart(tmp_path: Path) -> None:
    twins = [fake.make_run(tmp_path / name / "vgg16", "vgg16") for name in ("a", "b")]
    assert sorted(leaderboard(twins)["name"]) == ["vgg16 (a/vgg16)", "vgg16 (b/vgg16)"]
    deeper = [fake.make_run(tmp_path / name / "runs" / "vgg16", "vgg16") for name in ("a", "b")]
    assert sorted(leaderboard(deeper)["name"]) == ["vgg16 (a/runs/vgg16)", "vgg16 (b/runs/vgg16)"]


def test_a_cohort_without_patient_ids_counts_none(tmp_path: Path) -> None:
    rows = leaderboard([fake.make_run(tmp_path / "run", patients=("",))])
    assert rows["patients"].tolist() == [0]
    assert "patients" not in to_markdown(rows).split("; track")[0].rsplit("\n", 1)[1]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twenty patients: a model, one that differs from it by chance only, a weak one and two controls."""
    out = tmp_path_factory.mktemp("many")
    made = {
        "strong": {"skill": 3.0, "noise": 1},
        "twin": {"skill": 2.95, "noise": 2},
        "weak": {"skill": 1.0},
        "mean-colour": {"skill": 2.0, "control": True},
        "majority": {"skill": 0.0, "control": True},
    }
    return [fake.make_run(out / name, name, patients=fake.MANY, **how) for name, how in made.items()]


def test_every_metric_has_its_interval_beside_it(many: list[Path]) -> None:
    row = leaderboard(many).set_index("name").loc["strong"]
    metrics = json.loads((many[0] / "metrics.json").read_text())["test"]
    for column, point in (("roc_auc", "at_threshold"), ("f1", "at_threshold"), ("brier", "at_0.5")):
        assert [row[f"{column}_low"], row[f"{column}_high"]] == metrics["intervals"][point][column]
    assert [row["recall_at_0.5_low"], row["recall_at_0.5_high"]] == metrics["intervals"]["at_0.5"]["recall"]
    assert row["patient_balanced_accuracy_low"] < row["patient_balanced_accuracy"]


def test_differences_are_called_real_or_unclear(many: list[Path]) -> None:
    rows = leaderboard(many).set_index("name")
    # The best is the one that validation patients choose, also where test patients put another one above it.
    first, second = rows.loc[["strong", "twin"], "val_roc_auc"].sort_values(ascending=False).index
    assert set(rows.index[:2]) == {"strong", "twin"}
    assert rows["part"].unique().tolist() == ["test"]
    assert rows["to_best"].to_dict() == {
        first: "best",
        second: "unclear",
        "mean-colour": "lower",
        "weak": "lower",
        "majority": "lower",
    }
    assert rows["to_control"][[first, second, "mean-colour", "weak"]].tolist() == [
        "higher",
        "higher",
        "control",
        "lower",
    ]
    for metric in ("roc_auc", "balanced_accuracy"):
        gained = rows[metric] - rows.loc[first, metric]
        assert np.allclose(rows[f"{metric}_minus_best"].drop(first), gained.drop(first))
        assert np.isnan(rows.loc[first, f"{metric}_minus_best"])
        low, high = rows[f"{metric}_minus_best_low"], rows[f"{metric}_minus_best_high"]
        assert ((low < gained) & (gained < high)).drop(first).all()
    assert (rows["roc_auc_minus_control_p"].drop("mean-colour") > 0).all()


def test_one_run_is_compared_with_nobody(many: list[Path]) -> None:
    assert "to_best" not in leaderboard(many[:1])
    assert "to_control" not in leaderboard(many[:2])


def test_runs_of_an_older_version_have_no_intervals_and_are_still_compared(many, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(many[0], old)
    metrics = json.loads((old / "metrics.json").read_text())
    for part in ("val", "test"):
        del metrics[part]["intervals"]
    (old / "metrics.json").write_text(json.dumps(metrics))
    rows = leaderboard([old, *many[2:]])
    row = rows.set_index("name").loc["strong"]
    assert np.isnan(row["roc_auc_low"])
    assert rows["to_best"].tolist() == ["best", "lower", "lower", "lower"]


def test_without_patients_or_on_other_patches_nothing_is_compared(tmp_path: Path, many: list[Path]) -> None:
    unknown = [fake.make_run(tmp_path / name, name, patients=("",)) for name in ("a", "b")]
    assert leaderboard(unknown)["to_best"].tolist() == ["best", "n/a"]
    other = fake.make_run(tmp_path / "other", "other", patients=("1", "2"), skill=0.5)
    rows = leaderboard([*many[:3], other], allow_different=True).set_index("name")
    assert rows.loc["other", "to_best"] == "n/a"
    assert rows.loc["weak", "to_best"] == "lower"
    assert np.isnan(rows.loc["other", "roc_auc_minus_best"])

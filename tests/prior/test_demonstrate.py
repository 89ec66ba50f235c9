"""`ductal prior` as a user meets it: the table, its files, its help and its messages."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ductal.cli import app
from ductal.data.cohort import Cohort
from ductal.errors import RecipeError
from ductal.prior.demonstrate import Demonstration, demonstrate
from ductal.prior.faults import FAULTS, Configuration
from ductal.prior.reporting import Outcome
from ductal.prior.study import Study
from ductal.prior.tables import NOTICE

HONEST = "none: small CNN from random weights"
SMALL = ("--backbone", "cnn", "--epochs", "1", "--seed", "3")


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "140"})
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def shown(tiny_cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("prior")
    code, said = invoke(
        "prior", tiny_cohort.folder, "--duplicated-patches", "--shuffled-matrix", "--out", out, *SMALL
    )
    assert code == 0, said
    return out, said


def test_the_table_is_shown_and_written(shown: tuple[Path, str]) -> None:
    out, said = shown
    name = "duplicated-patches + shuffled-matrix"
    assert said.count(NOTICE) == 2
    assert "acc.  bal.  AUC" in said
    assert HONEST in said
    record = json.loads((out / "prior.json").read_text())
    assert record["notice"] == NOTICE
    assert record["settings"]["faults"] == ["duplicated-patches", "shuffled-matrix"]
    honest, faulty = record["rows"]
    assert faulty["fault"] == name
    for metric in ("accuracy", "balanced_accuracy", "roc_auc"):
        assert honest[f"reported_{metric}"] == honest[f"true_{metric}"]
        assert faulty[f"true_without_fault_{metric}"] == honest[f"true_{metric}"]
        found = faulty[f"reported_{metric}"] - faulty[f"true_{metric}"]
        assert faulty[f"difference_{metric}"] == pytest.approx(found)
    with (out / "prior.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [row["fault"] for row in rows] == [honest["fault"], name]
    assert float(rows[1]["reported_roc_auc"]) == faulty["reported_roc_auc"]
    markdown = (out / "prior.md").read_text()
    assert markdown.startswith(NOTICE)
    assert len([line for line in markdown.splitlines() if line.startswith("|")]) == 4
    assert "synthetic patches, which show no tissue" in markdown


def test_no_model_and_no_split_is_kept(shown: tuple[Path, str]) -> None:
    assert sorted(path.name for path in shown[0].rglob("*")) == ["prior.csv", "prior.json", "prior.md"]


def test_the_same_seed_gives_the_same_files(shown: tuple[Path, str], tiny_cohort: Cohort, tmp_path: Path) -> None:
    plan = Demonstration(
        ("duplicated-patches", "shuffled-matrix"), one_by_one=False, source=tiny_cohort.folder, out=tmp_path,
        epochs=1, seed=3, backbone="cnn",
    )  # fmt: skip
    demonstrate(plan)
    assert (tmp_path / "prior.md").read_text() == (shown[0] / "prior.md").read_text()


def test_an_interrupted_call_leaves_the_rows_it_finished(
    tiny_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = Study.measure

    def interrupted(study: Study, configuration: Configuration) -> Outcome:
        if configuration.faults:
            raise KeyboardInterrupt
        return measure(study, configuration)

    monkeypatch.setattr(Study, "measure", interrupted)
    code, said = invoke("prior", tiny_cohort.folder, "--leaky-split", "--out", tmp_path, *SMALL)
    assert code == 130
    assert "Interrupted" in said
    assert [row["fault"] for row in json.loads((tmp_path / "prior.json").read_text())["rows"]] == [HONEST]


def test_every_fault_is_a_switch_with_its_own_words() -> None:
    code, said = invoke("prior", "--help")
    assert code == 0
    plain = " ".join(re.sub(r"[│╭╮╰╯─]", " ", said).split())
    for fault in FAULTS:
        assert f"--{fault.name}" in plain
        assert fault.says[:30] in plain
    assert "no way to train" in plain


def test_faults_without_patients_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("cancer", "not_cancer"):
        (tmp_path / "source" / label).mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(0, 256, (50, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "source" / label / f"{number}.png")
    code, said = invoke("prior", tmp_path / "source", "--leaky-split", "--out", tmp_path / "out", *SMALL)
    assert code == 3
    assert "patient ids" in said


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("prior", 2, "name one fault or more"),
        ("prior --all --leaky-split", 2, "name one fault or more"),
        ("prior --frozen-random --batch-norm-training", 4, "cannot be shown in one configuration"),
        ("prior --leaky-split --backbone resnet", 2, "resnet"),
        ("prior --leaky-split --epochs 0", 2, "--epochs"),
        ("prior absent.zip --leaky-split", 3, "absent.zip does not exist"),
        ("prior COHORT --leaky-split --patients 5", 3, "prepared cohort with the selection"),
        ("prior TINY --leaky-split --out FILE", 8, "a file is where a folder is needed"),
    ],
)
def test_exit_codes(
    arguments: str, code: int, message: str,
    tiny_zip: Path, tiny_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").touch()
    arguments = arguments.replace("TINY", str(tiny_zip)).replace("COHORT", str(tiny_cohort.folder))
    found, said = invoke(*arguments.split())
    assert (found, "Traceback" in said) == (code, False)
    assert message in said


def test_no_epoch_is_refused() -> None:
    with pytest.raises(RecipeError, match="epochs must be at least 1"):
        demonstrate(Demonstration(("leaky-split",), epochs=0))

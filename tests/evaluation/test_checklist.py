"""The reporting checklists: complete, numbered as published, and never claiming what the run does not know."""

from __future__ import annotations

import json
import tomllib
from importlib import resources
from pathlib import Path

import fake_runs as fake
import pytest

from ductal.evaluation.checklist import CHECKLISTS, OPEN, filled, write_checklist
from ductal.evaluation.checklist_answers import answers
from ductal.evaluation.runs import load_run

# Items with lettered parts, and how many.
_PARTS = {3: 3, 5: 2, 6: 3, 8: 3, 9: 3, 12: 7, 18: 6, 20: 3, 23: 2, 27: 3}
TRIPOD = [f"{item}{letter}" for item in range(1, 28) for letter in "abcdefg"[: _PARTS.get(item, 0)] or [""]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake.make_run(tmp_path_factory.mktemp("run") / "run", patients=fake.MANY)


def test_every_item_is_there_once_and_in_order(run: Path) -> None:
    claim, tripod = filled(load_run(run))
    assert [item.number for item in claim.items] == [str(number) for number in range(1, 45)]
    assert [item.number for item in tripod.items] == TRIPOD
    assert all(item.topic and item.section for item in (*claim.items, *tripod.items))


def test_what_a_run_knows_is_filled_in_and_the_rest_is_open(run: Path) -> None:
    claim, tripod = ({item.number: item for item in one.items} for one in filled(load_run(run)))
    assert "Disjoint by patient" in claim["20"].says
    assert claim["20"].status == "from the run"
    assert "training: 12,800 patches of 84 patients, 3,610 cancer" in claim["19"].says
    assert "2,000 draws" in claim["29"].says
    assert "keras 3.12.0" in claim["23"].says
    assert claim["33"].status == "partly"
    assert claim["33"].says.startswith("None by this run.")
    for number in ("4", "11", "15", "16", "18", "34", "44"):
        assert claim[number].says == OPEN
    for number in ("3c", "8b", "14", "17", "18a", "18b", "18c", "18d", "19", "25", "27c"):
        assert tripod[number].status == "open"
    assert "None: figures are at the natural prevalence." in tripod["13"].says


def test_an_answer_that_a_run_does_not_have_is_open(tmp_path: Path) -> None:
    folder = fake.make_run(tmp_path / "run", recipe={}, split={})
    (folder / "metrics.json").unlink()
    claim, _ = ({item.number: item for item in one.items} for one in filled(load_run(folder, evaluated=False)))
    assert [claim[number].says for number in ("13", "19", "28", "29", "37", "39")] == [OPEN] * 6


def test_the_file_holds_both_and_no_path(run: Path) -> None:
    path = write_checklist(run)
    text = path.read_text(encoding="utf-8")
    assert path == run / "CHECKLIST.md"
    assert "## CLAIM 2024" in text
    assert "## TRIPOD+AI" in text
    assert str(run.parent) not in text
    rows = [line for line in text.split("\n") if line.startswith("| ")]
    assert len(rows) == 44 + len(TRIPOD) + 2
    assert all(line.count(" | ") == 4 for line in rows)


def test_answers_that_the_files_name_exist(run: Path) -> None:
    calibration = {"temperature": 1.1, "threshold": 0.4, "calibration": {"fit": "temperature"}, "patch_size": 50}
    (run / "calibration.json").write_text(json.dumps(calibration))
    record = json.loads((run / "run.json").read_text())
    record["cohort"]["spacing_um"] = 4.0
    (run / "run.json").write_text(json.dumps(record))
    (run / "failures").mkdir(exist_ok=True)
    (run / "failures" / "patients.csv").write_text("patient,n,prevalence,errors,error_rate,error_share,recall,"
                                                   "specificity\n9300,60,0.3,6,0.1,1.0,0.9,0.9\n")  # fmt: skip
    known = set(answers(load_run(run)))
    for name in CHECKLISTS:
        file = resources.files("ductal.evaluation") / "templates" / f"{name}.toml"
        asked = {item["answer"] for item in tomllib.loads(file.read_text())["items"] if "answer" in item}
        assert asked - known <= {"updated"}

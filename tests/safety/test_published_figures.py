"""Figures in README and docs are those that the kept records hold."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "verify_docs.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("verify_docs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["verify_docs"] = module
    sys.path.insert(0, str(SCRIPT.parent))
    spec.loader.exec_module(module)
    return module


def known() -> dict[str, list[dict[str, Any]]]:
    path = SCRIPT.parents[1] / "docs" / "measured" / "figures.json"
    found: dict[str, list[dict[str, Any]]] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("table", known()["tables"], ids=lambda table: f"{table['document']}-{table['record']}")
def test_every_figure_is_the_record_s(table: dict[str, Any], script: ModuleType) -> None:
    count, differing = script.compare(table)
    assert differing == []
    assert count > 3


@pytest.mark.parametrize("text", known()["texts"], ids=lambda text: text["text"][:40])
def test_every_sentence_says_what_the_record_says(text: dict[str, Any], script: ModuleType) -> None:
    count, differing = script.compare_text(text)
    assert differing == []
    assert count == text["text"].count("{}")


def test_every_table_has_a_record_or_a_reason(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 0, capsys.readouterr().out


@pytest.fixture
def elsewhere(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the documents, where the script looks instead."""
    shutil.copytree(script.ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("figures", "measured"))
    shutil.copy(script.ROOT / "README.md", tmp_path)
    monkeypatch.setattr(script, "ROOT", tmp_path)
    return tmp_path


def test_a_changed_figure_is_found(script: ModuleType, elsewhere: Path) -> None:
    table = next(one for one in known()["tables"] if one["record"] == "cross_fitted.csv")
    replace(elsewhere / table["document"], "0.971 (0.942", "0.972 (0.942")
    assert [line.split(":")[0] for line in script.compare(table)[1]] == ["the same without D4, ROC AUC"]


def test_a_changed_or_lost_sentence_is_found(script: ModuleType, elsewhere: Path) -> None:
    text = next(one for one in known()["texts"] if one["document"] == "docs/scale.md")
    before, after = text["text"].split("{}")[:2]
    shown = (elsewhere / text["document"]).read_text(encoding="utf-8").split(before)[1].split(after)[0]
    replace(elsewhere / text["document"], before + shown, before + "9" + shown)
    assert "measured" in script.compare_text(text)[1][0]
    replace(elsewhere / text["document"], before, "")
    assert script.compare_text(text) == (0, ["found 0 times"])


@pytest.mark.parametrize(
    ("added", "told"),
    [
        ("| new | figure |\n|---|---|\n| a | 0.99 |", ["| new | figure |"]),
        (
            "It takes 12 s for 4,321 patches (`0.5`, [a 3.5](x_1.5.md), arXiv 1706.04599).",
            ["12 s", "4,321", "3.5"],
        ),
    ],
    ids=["table", "running text"],
)
def test_a_new_figure_that_is_not_listed_is_found(
    added: str, told: list[str], script: ModuleType, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (elsewhere / "docs/splits.md").open("a", encoding="utf-8") as handle:
        handle.write(f"\n{added}\n")
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if "neither a record nor a reason" in line]
    assert len(lines) == len(told)
    for line, figure in zip(lines, told, strict=True):
        assert line.startswith("docs/splits.md")
        assert figure in line


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_numbers_carry_the_precision_they_are_shown_with(script: ModuleType) -> None:
    shown = script.numbers("**+15.9x**, 18,302 and 1.2e-07 of `vgg16`")
    assert [value for value, _ in shown] == [15.9, 18302, 1.2e-7]
    assert [half for _, half in shown] == pytest.approx([0.05, 0.5, 0.05e-7])


def test_what_is_stated_without_a_record_is_still_in_the_documents(script: ModuleType) -> None:
    for entry in known()["stated"]:
        document = (script.ROOT / entry["document"]).read_text(encoding="utf-8")
        assert entry["why"]
        assert set(entry.get("sections", [])) <= {line.lstrip("# ") for line in document.splitlines()}
        for text in entry.get("texts", []):
            assert text in " ".join(document.split()), entry["document"]

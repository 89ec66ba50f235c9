"""Figures in README and docs are those that the kept records hold."""

from __future__ import annotations

import importlib.util
import json
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
    spec.loader.exec_module(module)
    return module


def known() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((SCRIPT.parents[1] / "docs/measured/tables.json").read_text())
    return found


@pytest.mark.parametrize("table", known(), ids=lambda table: f"{table['document']}-{table['record']}")
def test_every_figure_is_the_record_s(table: dict[str, Any], script: ModuleType) -> None:
    count, differing = script.compare(table)
    assert differing == []
    assert count > 5


def test_a_changed_figure_is_found(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = known()[0]
    text = (script.ROOT / "README.md").read_text(encoding="utf-8").replace("0.971 (0.942", "0.972 (0.942")
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    monkeypatch.setattr(script, "ROOT", tmp_path)
    assert [line.split(":")[0] for line in script.compare(table)[1]] == ["the same without D4, ROC AUC"]


def test_numbers_carry_the_precision_they_are_shown_with(script: ModuleType) -> None:
    shown = script.numbers("**+15.9x**, 18,302 and 1.2e-07 of `vgg16`")
    assert [value for value, _ in shown] == [15.9, 18302, 1.2e-7]
    assert [half for _, half in shown] == pytest.approx([0.05, 0.5, 0.05e-7])

"""From probabilities to calls and words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ductal.errors import RunError
from ductal.evaluation.arrays import expit, logit
from ductal.web.answers import Judge, percent
from ductal.web.schemas import Band
from ductal.web.uploads import NAME_LENGTH, shown_name

JUDGE = Judge(0.5, Band(low=0.3, high=0.8), 0.05, False)
Probs = st.floats(0.001, 0.999)


@pytest.mark.parametrize(
    ("probability", "call"),
    [(0.1, "not_cancer"), (0.3, "not_cancer"), (0.31, "unsure"), (0.6, "unsure"), (0.8, "cancer"), (0.9, "cancer")],
)
def test_calls(probability: float, call: str) -> None:
    answer = JUDGE.answer("a", np.array([probability]), [])
    assert answer.call == call
    assert answer.above_threshold == (probability >= 0.5)
    assert answer.d4 is None


def test_without_limits_it_is_never_unsure() -> None:
    answer = Judge(0.5, None, None, False).answer("a", np.array([0.5]), [])
    assert (answer.call, answer.abstain) == ("cancer", None)


@given(st.lists(Probs, min_size=8, max_size=8))
def test_views(values: list[float]) -> None:
    found = np.array(values, np.float32)
    alone, averaged = (Judge(0.5, None, None, d4).answer("a", found, []) for d4 in (False, True))
    assert alone.probability == pytest.approx(values[0], rel=1e-5)
    assert averaged.probability == pytest.approx(float(expit(logit(found).mean())))
    assert averaged.d4 is not None
    assert alone.d4 is not None
    assert averaged.d4.mean == averaged.probability == alone.d4.mean
    assert averaged.d4.lowest - 1e-6 <= averaged.probability <= averaged.d4.highest + 1e-6
    above = sum(one >= 0.5 for one in found.tolist())
    assert alone.d4.agree == (above if alone.above_threshold else 8 - above)
    assert alone.d4.agree >= 1


@given(st.floats(0, 1))
def test_percentages_never_claim_certainty(value: float) -> None:
    assert percent(value) not in ("0 %", "100 %", "0.0 %", "100.0 %")


@pytest.mark.parametrize(
    "content", ["", "[]", '{"abstention": {"low": "x", "high": 1, "max_error": 1}}', '{"abstention": 3}']
)
def test_a_calibration_that_cannot_be_read(content: str, tmp_path: Path) -> None:
    (tmp_path / "calibration.json").write_text(content)
    with pytest.raises(RunError, match=r"calibration\.json"):
        Judge.of_run(tmp_path, 0.5, False)


def test_limits_that_reach_nothing_are_none(tmp_path: Path) -> None:
    nothing = {"abstention": {"low": None, "high": None, "max_error": 0.05}}
    (tmp_path / "calibration.json").write_text(json.dumps(nothing))
    assert Judge.of_run(tmp_path, 0.5, False).band is None


@given(st.text(max_size=300))
def test_names_are_safe_to_show(name: str) -> None:
    shown = shown_name(name)
    assert 0 < len(shown) <= NAME_LENGTH
    assert shown.isprintable()
    assert not set(shown) & set("/\\")

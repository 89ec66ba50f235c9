"""Calibration, thresholds and abstention of a run, and the blocks of metrics.json made of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ductal.errors import RunError
from ductal.evaluation.decision import ThresholdRule
from ductal.evaluation.judgement import MAX_ERROR, calibration_block, decision_block, judge
from ductal.evaluation.temperature import Scaling
from ductal.record import to_json

RNG = np.random.default_rng(8)
PATIENTS = np.repeat([str(9000 + number) for number in range(20)], 60)
LOGITS = RNG.normal(-1.0, 2.0, len(PATIENTS))
TRUE = 1 / (1 + np.exp(-LOGITS))
LABELS = (RNG.random(len(PATIENTS)) < TRUE).astype(int)
SURE = (1 / (1 + np.exp(-3 * LOGITS))).astype(np.float32)  # three times too sure: the temperature is 3


def test_the_temperature_is_found_and_the_threshold_is_chosen_on_calibrated_probabilities() -> None:
    judged = judge(LABELS, SURE, PATIENTS, ThresholdRule(), "temperature")
    assert judged.scaling.temperature == pytest.approx(3.0, rel=0.2)
    np.testing.assert_allclose(judged.probs, TRUE, atol=0.06)
    assert judged.threshold == ThresholdRule().choose(LABELS, judged.probs)
    told = json.loads(to_json(judged.settings))
    assert (told["temperature"], told["bias"]) == (judged.scaling.temperature, 0.0)
    assert told["calibration"]["patients"] == 20
    called = ~((judged.probs > told["abstention"]["low"]) & (judged.probs < told["abstention"]["high"]))
    wrong = (judged.probs >= judged.threshold) != (LABELS == 1)
    assert wrong[called].mean() <= MAX_ERROR
    assert called.mean() == pytest.approx(told["abstention"]["coverage"])


def test_class_weights_need_a_bias() -> None:
    shifted = (1 / (1 + np.exp(-(LOGITS + 1.5)))).astype(np.float32)
    judged = judge(LABELS, shifted, PATIENTS, ThresholdRule(), "platt")
    assert judged.scaling.bias == pytest.approx(-1.5, abs=0.3)
    np.testing.assert_allclose(judged.probs, TRUE, atol=0.06)


def test_the_rule_is_kept() -> None:
    judged = judge(LABELS, SURE, PATIENTS, ThresholdRule.parse("sensitivity:0.95"), "temperature")
    called = judged.probs >= judged.threshold
    assert called[LABELS == 1].mean() >= 0.95
    assert "0.95" in judged.settings["threshold_rule"]


def test_a_diverged_training_is_no_run() -> None:
    with pytest.raises(RunError, match="diverged"):
        judge(LABELS, np.full(len(LABELS), np.nan), PATIENTS, ThresholdRule(), "temperature")


@pytest.mark.parametrize("held_out", [False, True])
def test_before_and_after_calibration(held_out: bool) -> None:
    scaling = Scaling(temperature=3.0, fitted=True)
    block = calibration_block(LABELS, scaling.apply(SURE), PATIENTS, scaling, "temperature", held_out=held_out)
    before, after = block["before"], block["after"]
    assert after["ece"] < 0.5 * before["ece"]
    assert after["nll"] < before["nll"]
    for scores in (before, after):
        low, high = scores["intervals"]["ece"]
        assert low < scores["ece"] < high
    assert ("cross-fitted" in block["after_is"]) != held_out


def test_without_a_calibration_or_patients_there_is_no_after() -> None:
    assert set(calibration_block(LABELS, SURE, PATIENTS, None, "temperature", held_out=False)) == {"before"}
    unknown = np.full(len(LABELS), "")
    block = calibration_block(LABELS, SURE, unknown, Scaling(), "temperature", held_out=False)
    assert set(block) == {"before"}
    assert block["before"]["intervals"]["ece"] is None


def test_decisions() -> None:
    block = decision_block(LABELS, TRUE, 0.5, {"low": 0.3, "high": 0.7})
    called = (TRUE <= 0.3) | (TRUE >= 0.7)
    assert block["abstention"]["coverage"] == called.mean()
    assert block["abstention"]["error_rate"] == pytest.approx(((TRUE >= 0.5) != LABELS)[called].mean())
    at90, at95 = (block["sensitivity_at_specificity"][level]["sensitivity"] for level in ("0.9", "0.95"))
    assert at95 <= at90
    assert "abstention" not in decision_block(LABELS, TRUE, 0.5, {})
    assert "abstention" not in decision_block(LABELS, TRUE, 0.5, {"low": None, "high": None})

"""How far an export may be from its run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ductal.errors import ExportError
from ductal.export import parity
from ductal.export.reference import Reference


def exactly(*probs: float) -> Reference:
    values = np.array(probs, np.float32)
    return Reference(values, values, values)


def test_probabilities_that_are_none_are_refused() -> None:
    for found in ([0.1, np.nan], [0.1]):
        with pytest.raises(ExportError, match="for 2 patches"):
            parity.compare(exactly(0.1, 0.9), np.array(found, np.float32), "float32", threshold=0.5, labels=None)


def test_a_run_that_gives_no_numbers_is_refused() -> None:
    for found in ([0.1, 0.9], [0.1, np.nan]):
        with pytest.raises(ExportError, match="The run itself gives no number for 1 of 2 patches"):
            parity.compare(exactly(0.1, np.nan), np.array(found, np.float32), "float32", threshold=0.5, labels=None)


def test_the_bound_of_float32_is_strict() -> None:
    settings: dict[str, Any] = {"threshold": 0.5, "labels": None}
    near, far = (np.array([0.1, 0.9 + off], np.float32) for off in (0.9e-4, 1.1e-4))
    assert parity.compare(exactly(0.1, 0.9), near, "float32", **settings).largest_difference < 1e-4
    with pytest.raises(ExportError, match="differ by up to"):
        parity.compare(exactly(0.1, 0.9), far, "float32", **settings)


def test_eight_bits_that_cost_too_much_are_refused() -> None:
    labels = np.array([0, 0, 1, 1], np.int8)
    run, export = exactly(0.3, 0.45, 0.55, 0.7), np.array([0.3, 0.55, 0.45, 0.7], np.float32)
    with pytest.raises(ExportError, match=r"roc auc falls from 1\.000 to 0\.750"):
        parity.compare(run, export, "int8", threshold=0.5, labels=labels)

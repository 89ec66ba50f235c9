"""Two devices train what one does: on logical CPU devices, in a process that has them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ductal.data.cohort import Cohort
from ductal.training.pipeline import TrainingFeed, epoch_order
from ductal.training.recipe import Augment


@pytest.fixture(scope="module")
def found(tiny_cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    script = Path(__file__).with_name("mirrored_training.py")
    out = tmp_path_factory.mktemp("mirrored")
    done = subprocess.run(
        [sys.executable, script, tiny_cohort.folder, out], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_two_devices_come_to_the_weights_of_one(found: dict[str, Any]) -> None:
    assert found["single"]["device"] == "CPU"
    assert found["double"]["device"] == "2 x CPU at once"
    for column, values in found["single"]["history"].items():
        np.testing.assert_allclose(found["double"]["history"][column], values, atol=2e-3, err_msg=column)
    assert found["difference"] < 2e-3
    assert found["single"]["history"]["loss"][-1] < found["single"]["history"]["loss"][0] - 0.05


def test_xla_is_not_said_to_be_used(found: dict[str, Any]) -> None:
    assert found["double"]["xla"] is False  # though it was timed fastest on one device


def test_the_run_is_of_the_same_kind(found: dict[str, Any]) -> None:
    assert found["same files"]
    assert found["shapes"] == [[8, 1], [8, 1]]


def test_an_interrupted_training_on_two_devices_goes_on(found: dict[str, Any]) -> None:
    assert found["continued"] == [2]  # within the third epoch
    for column, values in found["double"]["history"].items():
        np.testing.assert_allclose(found["resumed"]["history"][column], values, atol=1e-4, err_msg=column)
    assert found["of resumed"] < 1e-4


def test_what_cannot_be_shared_is_refused(found: dict[str, Any]) -> None:
    assert found["none"]
    assert found["one"]
    assert "2 graphics processors are asked for, and TensorFlow sees 0. Leave out --gpus" in found["no GPU"]
    assert "sees 2. Use --gpus 2" in found["too many"]
    assert "batches of 33, which 2 graphics processors cannot share evenly. Use batch_size = 34" in found["uneven"]


@pytest.mark.parametrize(
    ("n", "batch", "replicas", "sizes"), [(10, 4, 2, [4, 4, 2]), (9, 4, 2, [4, 4]), (9, 4, 1, [4, 4, 1])]
)
def test_the_last_batch_is_one_that_can_be_shared(n: int, batch: int, replicas: int, sizes: list[int]) -> None:
    pixels = np.zeros((n, 50, 50, 3), np.uint8)
    feed = TrainingFeed(
        pixels, np.arange(n), np.zeros(n), np.ones(n), augment=Augment(), batch_size=batch, seed=1, replicas=replicas
    )
    assert feed.steps == len(sizes)
    assert [len(labels) for _, labels, _ in feed.dataset()] == sizes
    orders = [np.concatenate([chosen for chosen, _ in epoch_order(1, 0, n, batch, used=used)]) for used in (None, 8)]
    np.testing.assert_array_equal(orders[0][:8], orders[1])

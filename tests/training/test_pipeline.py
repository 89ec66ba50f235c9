"""The training feed: every row once an epoch, in an order that depends on seed and epoch only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_training import small_recipe, stage, train_small

from ductal.data.cohort import Cohort
from ductal.data.splitting import make_split
from ductal.training import callbacks
from ductal.training.pipeline import TrainingFeed, balanced_weights, epoch_order
from ductal.training.recipe import Augment

N = 45
# Patch i is the constant i, so that a batch tells which patches it holds.
PIXELS = np.broadcast_to(np.arange(N, dtype=np.uint8)[:, None, None, None], (N, 50, 50, 3))
ROWS = np.arange(3, N, 2)


def feed(seed: int = 1, augment: Augment | None = None, pixels: np.ndarray = PIXELS) -> TrainingFeed:
    labels = (ROWS % 3 == 0).astype(np.int8)
    weights = ROWS.astype(np.float32)
    settings = augment or Augment(d4=False)
    return TrainingFeed(pixels, ROWS, labels, weights, augment=settings, batch_size=8, seed=seed)


def one_pass(source: TrainingFeed, epoch: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    source.epoch = epoch
    batches = [[part.numpy() for part in batch] for batch in source.dataset()]
    assert len(batches) == source.steps == int(source.dataset().cardinality())
    assert all(len(patches) == 8 for patches, _, _ in batches[:-1])
    patches, labels, weights = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return patches, labels, weights


def test_each_epoch_visits_every_row_once_with_its_own_label_and_weight() -> None:
    orders = []
    for epoch in range(3):
        patches, labels, weights = one_pass(feed(), epoch)
        rows = patches[:, 0, 0, 0].astype(int)
        assert sorted(rows) == ROWS.tolist()
        np.testing.assert_array_equal(labels[:, 0], rows % 3 == 0)
        np.testing.assert_array_equal(weights, rows)
        orders.append(tuple(rows))
    assert len(set(orders)) == 3


def test_types_and_shapes() -> None:
    patches, labels, weights = next(iter(feed().dataset()))
    assert (patches.dtype, patches.shape) == ("uint8", (8, 50, 50, 3))
    assert (labels.dtype, labels.shape) == ("float32", (8, 1))
    assert (weights.dtype, weights.shape) == ("float32", (8,))


def test_same_seed_and_epoch_same_bytes() -> None:
    noise = np.random.default_rng(0).integers(0, 256, PIXELS.shape, dtype=np.uint8)
    everything = Augment(rotation_degrees=15, zoom=0.1, shift=0.06, stain=0.1)
    first, again = (one_pass(feed(augment=everything, pixels=noise), 2)[0] for _ in range(2))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != one_pass(feed(augment=everything, pixels=noise), 3)[0].tobytes()
    assert first.tobytes() != one_pass(feed(2, everything, noise), 2)[0].tobytes()


def test_a_data_set_follows_the_epoch_it_is_told() -> None:
    source = feed()
    data = source.dataset()
    source.epoch = 5
    later = np.concatenate([patches.numpy() for patches, _, _ in data])
    assert later.tobytes() == one_pass(feed(), 5)[0].tobytes()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.integers(2, 70), st.integers(0, 9))
def test_order_is_a_permutation_in_batches(n: int, batch_size: int, epoch: int) -> None:
    batches = list(epoch_order(4, epoch, n, batch_size))
    assert sorted(np.concatenate([chosen for chosen, _ in batches])) == list(range(n))
    assert [len(chosen) for chosen, _ in batches[:-1]] == [batch_size] * (len(batches) - 1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 1), min_size=2, max_size=80).filter(lambda y: 0 < sum(y) < len(y)))
def test_balanced_weights(y: list[int]) -> None:
    labels = np.array(y, np.int8)
    weights = balanced_weights(labels)
    assert weights.mean() == pytest.approx(1.0, rel=1e-5)
    assert weights[labels == 1].sum() == pytest.approx(weights[labels == 0].sum(), rel=1e-5)


def test_balanced_weights_by_hand() -> None:
    np.testing.assert_allclose(balanced_weights(np.array([1, 0, 0, 0], np.int8)), [2.0, 2 / 3, 2 / 3, 2 / 3])


def test_a_training_feeds_a_new_order_each_epoch_and_validation_never(
    tiny_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = make_split(tiny_cohort, "random", seed=1)
    seen_epochs: list[int] = []
    seen_rows: set[int] = set()
    validated: list[bytes] = []
    batches, predict = TrainingFeed._batches, callbacks.predict_in_order

    def spy_batches(self: TrainingFeed, skip: int):
        seen_epochs.append(self.epoch)
        seen_rows.update(self.rows.tolist())
        yield from batches(self, skip)

    def spy_predict(model, inputs, rows=None):
        validated.append(inputs[rows].tobytes())
        return predict(model, inputs, rows)

    monkeypatch.setattr(TrainingFeed, "_batches", spy_batches)
    monkeypatch.setattr(callbacks, "predict_in_order", spy_predict)
    train_small(small_recipe(stage("a", epochs=2), stage("b", "all", 1)), tiny_cohort, split, tmp_path / "run")
    assert seen_epochs == [0, 1, 2]  # running over stages: no order is used twice
    assert len(validated) == 3
    assert set(validated) == {tiny_cohort.pixels[split.rows(tiny_cohort, "val")].tobytes()}
    assert seen_rows == set(split.rows(tiny_cohort, "train").tolist())

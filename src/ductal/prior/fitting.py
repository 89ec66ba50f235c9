"""Training as the usual notebook does it: Adam, a fixed number of epochs, the best one kept; no more than that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import keras
import numpy as np

from ductal.inference.predictor import predict_in_order
from ductal.prior.faults import Training
from ductal.training.fast_layers import make_fast, make_plain

BATCH_SIZE = 32
LEARNING_RATE = 1e-3
FINE_TUNING_RATE = 1e-4  # of all layers of a pretrained network

Progress = Callable[[int, int], None]


class Examples(NamedTuple):
    """Patches or their features (n, ...), and their labels (n,)."""

    inputs: np.ndarray
    labels: np.ndarray


def fit(
    model: keras.Model, train: Examples, val: Examples, training: Training, *,
    epochs: int, seed: int, progress: Progress,
) -> float:  # fmt: skip
    """Train in place and go back to the epoch with the best validation accuracy, the first of equal ones.

    The order of patches depends on (seed, epoch) only. No augmentation, so that frozen layers run once.

    Returns:
        That accuracy, at the threshold 0.5.
    """
    rate = FINE_TUNING_RATE if training.weights == "synthetic" else LEARNING_RATE
    best, weights = -1.0, model.get_weights()
    with _fast(model):
        model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", jit_compile=False)
        for epoch in range(epochs):
            order = np.random.default_rng([seed, epoch]).permutation(len(train.labels))
            targets = train.labels[order].astype(np.float32)[:, None]
            model.fit(train.inputs[order], targets, batch_size=BATCH_SIZE, shuffle=False, verbose=0)
            called = predict_in_order(model, val.inputs) >= 0.5
            accuracy = float((called == (val.labels == 1)).mean())
            if accuracy > best:
                best, weights = accuracy, model.get_weights()
            progress(epoch + 1, epochs)
    model.set_weights(weights)
    return best


@contextmanager
def _fast(model: keras.Model) -> Iterator[None]:
    make_fast(model)
    try:
        yield
    finally:
        make_plain(model)

"""What a network makes of a patch before its last layer: one vector for each patch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ductal.errors import RunError
from ductal.inference.engines import load_keras
from ductal.inference.predictor import MEMBERS, PATCH_SHAPE, check_patches
from ductal.inference.taps import leaf_layers, listening


def embed_run(
    run_folder: str | Path,
    patches: np.ndarray,
    rows: np.ndarray,
    *,
    batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Embeddings of `patches[rows]` by a run's network, or by the networks of an ensemble, side by side.

    Args:
        run_folder: a finished run.
        patches: uint8 RGB (N, 50, 50, 3).
        rows: int64 (n,).
        batch_size: patches at once.
        progress: called with (patches done, patches in all).

    Returns:
        float32 (n, d).

    Raises:
        RunError: a model that cannot be loaded, or has no dense layer at its end.
        DataError: wrong dtype or shape.
    """
    check_patches(patches)
    folder = Path(run_folder)
    files = sorted((folder / MEMBERS).glob("*/model.keras")) or [folder / "model.keras"]
    found = []
    for number, file in enumerate(files):
        network = Embedder(load_keras(file))
        parts = []
        for start in range(0, len(rows), batch_size):
            parts.append(network.run(patches[rows[start : start + batch_size]]))
            if progress:
                progress(number * len(rows) + min(start + batch_size, len(rows)), len(files) * len(rows))
        found.append(np.concatenate(parts))
    return np.concatenate(found, axis=1)


class Embedder:
    """A model of which the input of the last dense layer is wanted: pooled features, for the networks trained here.

    Args:
        model: Keras, uint8 (n, 50, 50, 3) to probability (n, 1).

    Raises:
        RunError: no dense layer with one output is on the way to the probability.
    """

    def __init__(self, model: Any) -> None:
        turns: list[tuple[Any, Any]] = []

        def see(layer: Any, read: Any, gave: Any) -> None:
            if tuple(getattr(gave, "shape", ())) == (1, 1) and getattr(layer, "kernel", None) is not None:
                turns.append((layer, read))

        with listening(list(leaf_layers(model)), see):
            model(np.zeros((1, *PATCH_SHAPE), np.uint8), training=False)
        if not turns or len(turns[-1][1].shape) != 2:
            raise RunError(
                f'The network "{model.name}" does not end in a dense layer with one output, so it has no embeddings. '
                "Fit context on logits alone: --heads smoothing."
            )
        self._model, self._layer = model, turns[-1][0]

    def run(self, patches: np.ndarray) -> np.ndarray:
        """float32 (b, d), of uint8 patches (b, 50, 50, 3)."""
        read: list[Any] = []
        with listening([self._layer], lambda _, first, __: read.append(first)):
            self._model(patches, training=False)
        return np.asarray(read[-1], np.float32)

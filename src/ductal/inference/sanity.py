"""Whether a map depends on what the network learned: weights are destroyed, and the map should change.

Reference:
    Adebayo et al. 2018, Sanity checks for saliency maps, NeurIPS.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pandas as pd

from ductal.inference.explain import Target, agreement, grad_cam
from ductal.inference.taps import Tap, leaf_layers

SHARES = (0.0, 0.25, 0.5, 1.0)


def randomisation(
    model: Any,
    patches: np.ndarray,
    *,
    layer: str | None = None,
    target: Target = "cancer",
    d4: bool = False,
    repeats: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """Grad-CAM with more and more of the layers' weights shuffled, from the last layer down (cascading).

    Within each weight array the values change places, so that their distribution stays. A map that stays as well
    shows edges of the patch, and not what the network learned. The model itself is not changed.

    Args:
        model, patches, layer, target, d4: as for `grad_cam`; a fixed class, since a shuffled network calls others.
        repeats: cascades, each shuffled differently: a single shuffle may by chance leave the order of the channels
            that matter.
        seed: of the shuffling.

    Returns:
        One row for each of `SHARES`: shuffled (how many layers with weights, at least the last), of (how many there
        are), agreement (with the intact network's map, Spearman's correlation, mean over patches and repeats),
        highest (the same of the repeat with most agreement), maps (how many could be compared, of patches x repeats;
        the others are empty).

    Raises:
        DataError, RunError: as `grad_cam`.
    """
    name = Tap(model, layer).name
    intact = grad_cam(model, patches, layer=name, target=target, d4=d4)
    copy = keras.models.clone_model(model)
    weighted = [each for each in leaf_layers(copy) if each.weights]
    counts = [max(1, math.ceil(share * len(weighted))) for share in SHARES]
    rng = np.random.default_rng(seed)
    found = np.full((repeats, len(counts), len(patches)), np.nan)
    for cascade in found:
        copy.set_weights(model.get_weights())
        done = 0
        for row, count in zip(cascade, counts, strict=True):
            for each in weighted[len(weighted) - count : len(weighted) - done]:
                each.set_weights([_shuffled(values, rng) for values in each.get_weights()])
            done = count
            row[:] = agreement(intact, grad_cam(copy, patches, layer=name, target=target, d4=d4))
    by_repeat = pd.DataFrame([[_mean(row) for row in cascade] for cascade in found])
    return pd.DataFrame(
        {
            "shuffled": counts,
            "of": len(weighted),
            "agreement": [_mean(each) for each in found.swapaxes(0, 1)],
            "highest": by_repeat.max(),
            "maps": np.isfinite(found).sum(axis=(0, 2)),
        }
    )


def _shuffled(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(values.ravel()).reshape(values.shape)


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")

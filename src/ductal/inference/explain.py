"""Where in a patch a network finds what it calls: Grad-CAM, and occlusion to check it without gradients.

What the maps mean and do not mean: docs/explanations.md.

References:
    Selvaraju et al. 2017, Grad-CAM: visual explanations from deep networks via gradient-based localization, ICCV.
    Zeiler & Fergus 2014, Visualizing and understanding convolutional networks, ECCV.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from scipy.special import logit
from scipy.stats import rankdata

from ductal.errors import DataError, RunError
from ductal.inference.predictor import PATCH_SHAPE, check_patches, d4_views, turned_back

PATCH_PX = PATCH_SHAPE[0]
TARGETS = ("called", "cancer", "not_cancer")
Target = Literal["called", "cancer", "not_cancer"] | np.ndarray
COLOURS = "viridis"
# A drop of the logit by less is nothing: it moves a probability by at most 0.0025.
SMALLEST_DROP = 0.01
# Probabilities closer to 0 or 1 are taken for this far, as the predictor does: float32 cannot tell them apart.
CLIP = 1e-7

Progress = Callable[[int, int], None]
Predict = Callable[[np.ndarray], np.ndarray]


def grad_cam(
    model: Any,
    patches: np.ndarray,
    *,
    layer: str | None = None,
    target: Target = "called",
    d4: bool = False,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> np.ndarray:
    """Grad-CAM of each patch (Selvaraju et al. 2017).

    With the maps A_k of a layer and z the logit of the target class (for not_cancer, minus that of cancer), the map
    is ReLU(sum over k of a_k A_k), a_k the mean of dz / dA_k over the positions; made larger bilinearly, and divided
    by its maximum (`normalised`). The logit is taken before the sigmoid, whose gradient vanishes near 0 and 1.

    Args:
        model: Keras, uint8 (n, 50, 50, 3) to probability of IDC (n, 1).
        patches: uint8 (n, 50, 50, 3).
        layer: whose maps; by default the last of at least 2 x 2. `ductal.inference.taps.Tap` tells which that is.
        target: the class to explain: "cancer", "not_cancer", or "called", the one the network finds likelier; or
            bool (n,), True where cancer is to be explained.
        d4: average the maps of the 8 rotations and flips, turned back. Where a map is 3 x 3, the average is finer,
            and does not depend on how a patch lies. "called" is then the class by the mean logit.
        batch_size: patches at a time; does not change the maps.
        progress: called with (patches done, patches in all).

    Returns:
        float32 (n, 50, 50) in [0, 1]. All zero where nothing speaks for the class: see `is_empty`.

    Raises:
        DataError: wrong patches or target. RunError: a model or layer that cannot be explained, see `Tap`.
    """
    check_patches(patches)
    _check_target(target, len(patches))
    from ductal.inference.taps import Tap

    tap = Tap(model, layer)
    rows, columns = _bilinear(tap.size[0]), _bilinear(tap.size[1])
    maps = np.empty((len(patches), PATCH_PX, PATCH_PX), np.float32)
    for start in range(0, len(patches), batch_size):
        part = slice(start, min(start + batch_size, len(patches)))
        views = d4_views(patches[part]) if d4 else [patches[part]]
        weighted, logits = zip(*(_weighted_maps(tap, view) for view in views), strict=True)
        signs = _signs(target, part, np.mean(logits, axis=0) >= 0)
        larger = [rows @ np.maximum(signs[:, None, None] * each, 0) @ columns.T for each in weighted]
        maps[part] = np.mean(turned_back(larger) if d4 else larger, axis=0)
        if progress:
            progress(part.stop, len(patches))
    return normalised(maps)


def occlusion(
    predict: Predict,
    patches: np.ndarray,
    *,
    size: int = 10,
    stride: int = 5,
    fill: Literal["mean"] | Sequence[int] = "mean",
    target: Target = "called",
    batch_size: int = 16,
    progress: Progress | None = None,
) -> np.ndarray:
    """How much the logit of a class drops when a part of the patch is hidden (Zeiler & Fergus 2014).

    A square in one colour is put over each place of a grid. A pixel has the mean drop over the squares that
    covered it. Needs nothing of the model but its probabilities.

    Args:
        predict: uint8 (m, 50, 50, 3) to probability of IDC (m,), as `Predictor.predict`; one that computes in
            float32 (`Predictor.from_run(..., exact=True)`), since small differences count here.
        patches: uint8 (n, 50, 50, 3).
        size: side of the square in pixels, 1 to 50.
        stride: pixels from one square to the next, 1 to `size`; the last one always ends at the border.
        fill: "mean", the mean colour of each patch, or one colour (red, green, blue), such as the background's.
        target: as for `grad_cam`; "called" is the class of probability 0.5 or more.
        batch_size: patches at a time; each is predicted about ((50 - size) / stride + 1)² times.
        progress: called with (patches done, patches in all).

    Returns:
        float32 (n, 50, 50), drop of the logit: positive where the part speaks for the class, negative where it
        speaks against. Not scaled; `normalised(maps, floor=SMALLEST_DROP)` is for viewing.

    Raises:
        DataError: wrong patches, target, size, stride or fill. RunError: `predict` does not give (m,) probabilities.
    """
    check_patches(patches)
    _check_target(target, len(patches))
    starts = _starts(size, stride)
    corners = [(y, x) for y in starts for x in starts]
    colours = _fill(fill, patches)
    maps = np.zeros((len(patches), PATCH_PX, PATCH_PX), np.float32)
    covered = np.zeros((PATCH_PX, PATCH_PX), np.float32)
    for y, x in corners:
        covered[y : y + size, x : x + size] += 1
    for start in range(0, len(patches), batch_size):
        part = slice(start, min(start + batch_size, len(patches)))
        whole = _logits(predict, patches[part])
        hidden = np.repeat(patches[part][:, None], len(corners), axis=1)
        for number, (y, x) in enumerate(corners):
            hidden[:, number, y : y + size, x : x + size] = colours[part]
        without = _logits(predict, hidden.reshape(-1, *PATCH_SHAPE)).reshape(len(whole), -1)
        drops = _signs(target, part, whole >= 0)[:, None] * (whole[:, None] - without)
        for number, (y, x) in enumerate(corners):
            maps[part, y : y + size, x : x + size] += drops[:, number, None, None]
        if progress:
            progress(part.stop, len(patches))
    return maps / covered


def normalised(maps: np.ndarray, floor: float = 0.0) -> np.ndarray:
    """Each map without its negative part, divided by its maximum; float32 (n, h, w) in [0, 1].

    A map whose maximum is not above `floor` becomes all zero: there is nothing to show, and dividing would blow up
    rounding errors. Since each map has its own scale, brightness does not compare between patches.
    """
    positive = np.maximum(maps, 0).astype(np.float32)
    highest = positive.max(axis=(1, 2), keepdims=True)
    return np.divide(positive, highest, out=np.zeros_like(positive), where=highest > floor)


def is_empty(maps: np.ndarray) -> np.ndarray:
    """Which maps (n, h, w) are zero everywhere: bool (n,)."""
    return np.asarray([not each.any() for each in maps], np.bool_)


def agreement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of two maps over the pixels of each patch.

    1 when they order the pixels alike, about 0 when they have nothing to do with each other. Neighbouring pixels
    are alike in either map, so this is a description and no test of significance.

    Args:
        first, second: (n, h, w).

    Returns:
        float32 (n,); nan where one of the two is constant.

    Raises:
        DataError: the maps differ in shape.
    """
    if first.shape != second.shape or first.ndim != 3:
        raise DataError(f"Two sets of maps (n, h, w) of one shape are needed. Received: {first.shape} {second.shape}")
    if not first.size:
        return np.full(len(first), np.nan, np.float32)
    ranks = [rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (first, second)]
    one, other = (each - each.mean(axis=1, keepdims=True) for each in ranks)
    scale = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    found = np.divide((one * other).sum(axis=1), scale, out=np.full(len(one), np.nan), where=scale > 0)
    return found.astype(np.float32)


def overlay(patches: np.ndarray, maps: np.ndarray, *, opacity: float = 0.45, scale: int = 1) -> np.ndarray:
    """Maps in colour over their patches.

    Args:
        patches: uint8 (n, 50, 50, 3).
        maps: float (n, 50, 50) in [0, 1]; drawn in Matplotlib's viridis, which is perceptually uniform.
        opacity: of the colour, 0 to 1, the same everywhere, so that a colour means one value.
        scale: how many pixels wide a pixel becomes.

    Returns:
        uint8 (n, 50 scale, 50 scale, 3).

    Raises:
        DataError: wrong patches, maps, opacity or scale.
    """
    check_patches(patches)
    if maps.shape != patches.shape[:3] or not (np.min(maps, initial=0) >= 0 and np.max(maps, initial=0) <= 1):
        raise DataError(
            f"Maps must be of shape {patches.shape[:3]} with values from 0 to 1; use `normalised` on drops. "
            f"Received: {maps.shape} from {np.min(maps, initial=0):.3g} to {np.max(maps, initial=0):.3g}"
        )
    if not 0 <= opacity <= 1 or scale < 1:
        raise DataError(f"Opacity is from 0 to 1, and scale at least 1. Received: {opacity=}, {scale=}")
    colours = colormaps[COLOURS](maps)[..., :3] * 255
    mixed = np.rint((1 - opacity) * patches + opacity * colours).astype(np.uint8)
    return enlarged(mixed, scale)


def enlarged(patches: np.ndarray, scale: int) -> np.ndarray:
    """Patches (n, h, w, 3) whose pixels are `scale` wide."""
    return patches.repeat(scale, axis=1).repeat(scale, axis=2)


def _weighted_maps(tap: Any, patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum over k of a_k A_k for the logit of cancer, float32 (b, h, w), and that logit, (b,)."""
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        maps, logits = tap.run(patches, tape.watch)
    # Patches do not mix at inference, so the gradient of the sum is each patch's own.
    slopes = tape.gradient(logits, maps, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    weights = tf.reduce_mean(tf.cast(slopes, tf.float32), axis=(1, 2), keepdims=True)
    return tf.reduce_sum(weights * tf.cast(maps, tf.float32), axis=-1).numpy(), logits.numpy()


def _bilinear(count: int) -> np.ndarray:
    """Weights float32 (50, count) from `count` cells of an axis to 50 pixels; constant beyond the outer centres."""
    centres = ((np.arange(PATCH_PX) + 0.5) * count / PATCH_PX - 0.5).clip(0, count - 1)
    return np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(count))).astype(np.float32)


def _starts(size: int, stride: int) -> list[int]:
    if not 1 <= size <= PATCH_PX or not 1 <= stride <= size:
        raise DataError(
            f"The square's side is from 1 to {PATCH_PX} pixels and the stride from 1 to that, so that every pixel "
            f"is covered. Received: {size=}, {stride=}"
        )
    return sorted({*range(0, PATCH_PX - size + 1, stride), PATCH_PX - size})


def _fill(fill: Literal["mean"] | Sequence[int], patches: np.ndarray) -> np.ndarray:
    """uint8 (n, 1, 1, 3)."""
    if isinstance(fill, str):
        if fill != "mean":
            raise DataError(f'The fill is "mean" or a colour such as (255, 255, 255). Received: {fill!r}')
        return np.rint(patches.mean(axis=(1, 2), keepdims=True)).astype(np.uint8)
    colour = np.asarray(fill)
    if colour.shape != (3,) or not ((colour >= 0) & (colour <= 255)).all():
        raise DataError(f"A colour is red, green and blue from 0 to 255. Received: {fill}")
    return np.broadcast_to(np.rint(colour).astype(np.uint8), (len(patches), 1, 1, 3))


def _logits(predict: Predict, patches: np.ndarray) -> np.ndarray:
    probs = np.asarray(predict(patches), np.float64)
    if probs.shape != (len(patches),):
        raise RunError(
            f"The function to explain must give one probability for each of {len(patches)} patches, of shape (n,). "
            f"Received: {probs.shape}"
        )
    return logit(probs.clip(CLIP, 1 - CLIP))


def _check_target(target: Target, count: int) -> None:
    if isinstance(target, np.ndarray):
        if target.shape != (count,) or target.dtype != np.bool_:
            raise DataError(
                f"Targets as a bool array have shape ({count},). Received: {target.dtype} {target.shape}"
            )
    elif target not in TARGETS:
        raise DataError(f"The target is one of {', '.join(TARGETS)}, or a bool array. Received: {target!r}")


def _signs(target: Target, part: slice, called: np.ndarray) -> np.ndarray:
    """float32 (b,): 1 where the logit of cancer is explained, -1 where that of not_cancer is."""
    cancer = target[part] if isinstance(target, np.ndarray) else called if target == "called" else target == "cancer"
    return np.where(np.broadcast_to(cancer, called.shape), 1, -1).astype(np.float32)

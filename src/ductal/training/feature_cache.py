"""Frozen layers are computed once: their activations on K augmented views a patch, memory-mapped.

A stage that trains only the top of a network then reads float16 activations instead of running the
frozen layers again in every epoch. One pass fills the caches of all stages of a recipe, since a cut
lies before every layer that any earlier stage trains.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ductal.training.augment import draws, make_augment
from ductal.training.network import Network, set_trainable
from ductal.training.pipeline import epoch_order
from ductal.training.recipe import Recipe

BUDGET_BYTES = 6 * 1024**3
_FIRST_VIEW = 1_000_000  # view numbers share the key space of epochs, far above any epoch


@dataclass(frozen=True)
class CachedFeatures:
    """Activations at one cut: `train` float16 (views, n_train, ...), `val` float16 (n_val, ...)."""

    train: np.ndarray
    val: np.ndarray


def plan_cuts(network: Network, recipe: Recipe) -> list[Any | None]:
    """For each stage the tensor its frozen prefix ends with, or None where nothing worth caching is frozen.

    A cut is used only where all layers before it are untouched by the stages before, and only in
    a backbone that is one chain of layers (VGG), where the prefix ends in a single tensor.
    """
    layers = network.model.layers
    is_chain = all(isinstance(layer.input, keras.KerasTensor) for layer in layers[1:])
    if not recipe.cached_views or not is_chain or recipe.weights == "random":
        return [None] * len(recipe.stages)
    cuts: list[Any | None] = []
    shallowest = len(layers)
    for stage in recipe.stages:
        trained = set(set_trainable(network, stage, recipe))
        head = layers.index(network.base_layers()[-1]) + 1
        first = min((index for index, layer in enumerate(layers) if layer.name in trained), default=head)
        usable = first <= shallowest and layers[first - 1].name in network.base_names
        cuts.append(layers[first].input if usable else None)
        shallowest = min(shallowest, first)
    return cuts


def cache_bytes(cuts: list[Any | None], views: int, n_train: int, n_val: int) -> int:
    """Disk the caches of `cuts` take."""
    sizes = {cut.name: math.prod(cut.shape[1:]) * 2 for cut in cuts if cut is not None}
    return sum(sizes.values()) * (views * n_train + n_val)


def fits(folder: Path, needed: int) -> bool:
    """Whether the caches fit the budget and leave a tenth of the free disk alone."""
    return needed <= min(BUDGET_BYTES, int(shutil.disk_usage(folder).free * 0.9))


def fill_caches(
    network: Network,
    recipe: Recipe,
    cuts: list[Any | None],
    pixels: np.ndarray,
    rows: dict[str, np.ndarray],
    *,
    folder: Path,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, CachedFeatures]:
    """Run the frozen layers over all views of the training rows and once over the validation rows.

    Args:
        pixels: uint8 (N, 50, 50, 3).
        rows: {"train": int64 (n,), "val": int64 (m,)}.
        folder: where the memory maps go; the caller deletes it.
        progress: called with (images done, images in all).

    Returns:
        The features of each distinct cut, by the name of its tensor.
    """
    tensors = {cut.name: cut for cut in cuts if cut is not None}
    prefix = keras.Model(network.model.input, tensors)
    forward = tf.function(lambda x: prefix(x, training=False), reduce_retracing=True)
    augment = make_augment(recipe.augment)
    train, val, views = rows["train"], rows["val"], recipe.cached_views
    maps: dict[str, CachedFeatures] = {}
    for number, (name, tensor) in enumerate(tensors.items()):
        shape = tuple(tensor.shape[1:])
        maps[name] = CachedFeatures(
            _new_map(folder / f"{number}-train.npy", (views, len(train), *shape)),
            _new_map(folder / f"{number}-val.npy", (len(val), *shape)),
        )
    total, done = views * len(train) + len(val), 0
    for view in [*range(views), None]:
        chosen = val if view is None else train
        numbers = None if view is None else draws(seed, _FIRST_VIEW + view, len(train))
        for start in range(0, len(chosen), recipe.batch_size):
            part = slice(start, start + recipe.batch_size)
            patches = tf.constant(pixels[chosen[part]])
            if numbers is not None:
                patches = augment(patches, tf.constant(numbers[part]))
            outputs = forward(patches)
            for name, kept in maps.items():
                target: np.ndarray = kept.val if view is None else kept.train[view, :]
                target[part] = np.asarray(outputs[name])
            done += len(patches)
            if progress:
                progress(done, total)
    return maps


def _new_map(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)


class CachedFeed:
    """The counterpart of `TrainingFeed` on cached features; each epoch draws one view per patch."""

    def __init__(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        weights: np.ndarray,
        *,
        batch_size: int,
        seed: int,
    ) -> None:
        self.features = features
        self.labels = labels.astype(np.float32)[:, None]
        self.weights = weights.astype(np.float32)
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0

    @property
    def steps(self) -> int:
        """Batches in one pass."""
        return math.ceil(len(self.labels) / self.batch_size)

    def _batches(self) -> Iterator[tuple[np.ndarray, ...]]:
        views, n = self.features.shape[:2]
        view = np.random.default_rng([self.seed, self.epoch, views]).integers(0, views, size=(n,))
        for chosen, _ in epoch_order(self.seed, self.epoch, n, self.batch_size):
            features = self.features[view[chosen], chosen].astype(np.float32)
            yield features, self.labels[chosen], self.weights[chosen]

    def dataset(self) -> tf.data.Dataset:
        """A dataset of (features float32, label float32 (b, 1), weight float32 (b,)), re-iterable."""
        raw = tf.data.Dataset.from_generator(
            self._batches,
            output_signature=(
                tf.TensorSpec((None, *self.features.shape[2:]), tf.float32),
                tf.TensorSpec((None, 1), tf.float32),
                tf.TensorSpec((None,), tf.float32),
            ),
        )
        return raw.apply(tf.data.experimental.assert_cardinality(self.steps)).prefetch(2)

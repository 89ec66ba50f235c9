"""Frozen layers are computed once: a stage that trains only the top of a network reads their activations.

`plan_cuts` says where each stage of a recipe can start from stored activations, `feature_store` computes
and keeps them, `CachedFeed` makes batches of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ductal.training.network import Network, set_trainable
from ductal.training.pipeline import epoch_order, prefetched
from ductal.training.recipe import Recipe
from ductal.training.sampling import Expected


@dataclass(frozen=True)
class CachedFeatures:
    """Activations at one cut: `train`, for each view float16 (n_train, ...); `val`, float16 (n_val, ...)."""

    train: tuple[np.ndarray, ...]
    val: np.ndarray


def plan_cuts(network: Network, recipe: Recipe) -> list[Any | None]:
    """For each stage the tensor its frozen prefix ends with, or None where nothing worth caching is frozen.

    A cut is used only where all layers before it are untouched by the stages before, and only in
    a backbone that is one chain of layers (VGG), where the prefix ends in a single tensor. What an ONNX encoder gives
    is always cached, since only the head can train.
    """
    if network.encoder is not None:
        return [network.model.input] * len(recipe.stages)
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


class CachedFeed:
    """The counterpart of `TrainingFeed` on cached features; each epoch draws one view per patch."""

    def __init__(
        self,
        views: tuple[np.ndarray, ...],
        labels: np.ndarray,
        weights: np.ndarray,
        *,
        batch_size: int,
        seed: int,
        expected: Expected | None = None,
        replicas: int = 1,
    ) -> None:
        self.views, self._expected, self.used = views, expected, len(labels) - len(labels) % replicas
        self.labels = labels.astype(np.float32)[:, None]
        self.weights = weights.astype(np.float32)
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0

    @property
    def steps(self) -> int:
        """Batches in one pass."""
        return math.ceil(self.used / self.batch_size)

    def _batches(self, skip: int) -> Iterator[tuple[np.ndarray, ...]]:
        views, n = len(self.views), len(self.labels)
        view = np.random.default_rng([self.seed, self.epoch, views]).integers(0, views, size=(n,))
        for chosen, places in epoch_order(
            self.seed, self.epoch, n, self.batch_size, skip, self._expected, self.used
        ):
            features = np.empty((len(chosen), *self.views[0].shape[1:]), np.float32)
            for number, stored in enumerate(self.views):
                drawn = view[places] == number
                features[drawn] = stored[chosen[drawn]]
            yield features, self.labels[chosen], self.weights[chosen]

    def dataset(self, skip: int = 0) -> tf.data.Dataset:
        """Batches of (features float32, label float32 (b, 1), weight float32 (b,)) from number `skip` on."""
        raw = tf.data.Dataset.from_generator(
            lambda: self._batches(skip),
            output_signature=(
                tf.TensorSpec((None, *self.views[0].shape[1:]), tf.float32),
                tf.TensorSpec((None, 1), tf.float32),
                tf.TensorSpec((None,), tf.float32),
            ),
        )
        return prefetched(raw, self.steps - skip)

"""(c) A small convolutional head over the grid of embeddings and logits, trained with Keras on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ductal.context.embedding_head import LOGIT_SCALE, Compression
from ductal.context.heads import Slide
from ductal.context.neighbourhood import window_means
from ductal.errors import RunError
from ductal.evaluation.arrays import Floats
from ductal.inference.predictor import d4_views, turned_back

CHANNELS = 24
AROUND = (3, 5)  # means of the logits that the network is given beside the patch's own
DROPOUT = 0.2
WEIGHT_DECAY = 1e-3


@dataclass(frozen=True)
class GridHead:
    """Convolutions of 3 x 3 patches over a slide's grid; what they find is added to the patch's own logit.

    Each place holds the compressed embedding, the logit, the means of the logits around it, and whether there is a
    patch. After every convolution places without a patch are set to zero, so that nothing is invented there.
    With three convolutions a patch sees 7 x 7. Grids are turned and flipped at random in training; a prediction is
    the mean over all 8 views. The starting point is the patch model: the last convolution starts at zero.
    """

    name: str = "grid"
    track: str = "slide context"
    says: str = "three 3 x 3 convolutions over the grid of embeddings and logits"
    settings: Sequence[Any] = (None,)
    folds: int | None = 3
    components: int = 16
    steps: int = 150
    rate: float = 3e-3
    seed: int = 0

    def fit(self, slides: Sequence[Slide], setting: Any) -> FittedGrid:  # noqa: ARG002
        """Train on these slides, all at each step; every patient counts the same.

        Raises:
            RunError: slides without embeddings, or of one class.
        """
        if len(np.unique(np.concatenate([slide.labels for slide in slides]))) < 2:
            raise RunError("All patches of these slides are of one class, so no context can be fitted on them.")
        compression = Compression.of(slides, self.components, self.seed)
        side = max(max(slide.grid.shape) for slide in slides)
        inputs = np.stack([_square(_channels(compression, slide), side) for slide in slides])
        labels = [_raster(slide, slide.labels.astype(np.float32)[:, None]) for slide in slides]
        truth = np.stack([_square(each, side) for each in labels])
        model = _network(inputs.shape[-1], self.seed)
        self._train(model, inputs, np.concatenate([truth, inputs[..., -1:]], axis=-1))
        return FittedGrid(compression, model)

    def _train(self, model: Any, inputs: np.ndarray, targets: np.ndarray) -> None:
        rng = np.random.default_rng(self.seed)
        schedule = keras.optimizers.schedules.CosineDecay(self.rate, max(self.steps, 1))
        optimizer = keras.optimizers.AdamW(schedule, weight_decay=WEIGHT_DECAY)
        optimizer.build(model.trainable_variables)

        @tf.function(jit_compile=False)
        def step(grids: Any, wanted: Any) -> None:
            with tf.GradientTape() as tape:
                logits = model(grids, training=True)
                loss = tf.nn.sigmoid_cross_entropy_with_logits(wanted[..., :1], logits) * wanted[..., 1:]
                # The mean over a slide's patches first: every patient counts the same.
                total = tf.reduce_mean(tf.reduce_sum(loss, (1, 2, 3)) / tf.reduce_sum(wanted[..., 1:], (1, 2, 3)))
            gradients = tape.gradient(total, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

        for _ in range(self.steps):
            views = rng.integers(0, 8, len(inputs))
            turned = [
                np.stack([d4_views(each[None])[view][0] for each, view in zip(arrays, views, strict=True)])
                for arrays in (inputs, targets)
            ]
            step(*(tf.constant(each) for each in turned))


@dataclass(frozen=True, eq=False)
class FittedGrid:
    """See `GridHead`."""

    compression: Compression
    model: Any

    def logits(self, slide: Slide) -> Floats:
        """See `ductal.context.heads.Fitted.logits`."""
        grid = _square(_channels(self.compression, slide), max(slide.grid.shape))[None]
        found = [np.asarray(self.model(tf.constant(view), training=False))[..., 0] for view in d4_views(grid)]
        mean = np.mean(turned_back(found), axis=0)[0]
        return mean[slide.grid.rows, slide.grid.columns].astype(np.float64)


def _network(channels: int, seed: int) -> Any:
    """float32 (b, h, w, channels), the own logit last but one and the mask last, to logits (b, h, w, 1)."""

    def convolution(filters: int, size: int, number: int) -> Any:
        start = keras.initializers.HeNormal(seed=seed + number)
        return keras.layers.Conv2D(filters, size, padding="same", activation="relu", kernel_initializer=start)

    inputs = keras.Input((None, None, channels))
    own, mask = inputs[..., -2:-1] * LOGIT_SCALE, inputs[..., -1:]
    x = keras.layers.Dropout(DROPOUT, seed=seed)(inputs[..., :-1])
    x = convolution(CHANNELS, 1, 0)(keras.layers.Concatenate()([x, mask])) * mask
    for number in (1, 2, 3):
        x = keras.layers.Dropout(DROPOUT, seed=seed + number)(x)
        x = convolution(CHANNELS, 3, number)(x) * mask
    change = keras.layers.Conv2D(1, 1, kernel_initializer="zeros")(x)
    return keras.Model(inputs, own + change)


def _channels(compression: Compression, slide: Slide) -> np.ndarray:
    """float32 (height, width, c): components, means around, own logit, mask."""
    own = compression.apply(slide)
    around = [window_means(slide.grid, slide.logits, k)[:, None] / LOGIT_SCALE for k in AROUND]
    there = np.ones((len(own), 1))
    return _raster(slide, np.concatenate([own[:, :-1], *around, own[:, -1:], there], axis=1).astype(np.float32))


def _raster(slide: Slide, values: np.ndarray) -> np.ndarray:
    return slide.grid.raster(values, 0.0).astype(np.float32)


def _square(grid: np.ndarray, side: int) -> np.ndarray:
    height, width = grid.shape[:2]
    return np.pad(grid, ((0, side - height), (0, side - width), (0, 0)))

"""From a recipe to a Keras model whose input is uint8 RGB and whose preprocessing is part of its graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ductal.errors import RecipeError
from ductal.inference.encoder import OnnxEncoder
from ductal.training.backbones import IMAGENET_STD, build_base, family_of
from ductal.training.recipe import Recipe, Stage
from ductal.training.weights import load_encoder, load_imagenet

PATCH_PX = 50


@dataclass(frozen=True)
class Normalisation:
    """Channel means and standard deviations (RGB, 0-255) of the training patches."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def of(cls, pixels: np.ndarray, rows: np.ndarray, limit: int = 5000) -> Normalisation:
        """Measure `pixels[rows]` (uint8, (n, 50, 50, 3)) on an even sample of at most `limit` patches."""
        sample = rows[np.linspace(0, len(rows) - 1, min(limit, len(rows))).astype(int)]
        values = pixels[sample].reshape(-1, 3).astype(np.float64)
        mean, std = values.mean(axis=0), values.std(axis=0).clip(min=1.0)
        return cls((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


@dataclass(frozen=True)
class Network:
    """A model with the names of the layers that belong to its backbone, in the order of the graph.

    With an `encoder` the model is the head alone, on its features.
    """

    model: keras.Model
    base_names: list[str]
    weights_origin: str
    encoder: OnnxEncoder | None = None

    def base_layers(self) -> list[Any]:
        """The backbone's layers, first to last."""
        return [self.model.get_layer(name) for name in self.base_names]


def build_network(recipe: Recipe, normalisation: Normalisation, weights_file: Path | None = None) -> Network:
    """Build the model of `recipe`.

    Input: uint8 RGB 0-255, shape (n, 50, 50, 3); of a head on an encoder, its features, float32 (n, d). Output:
    probability of IDC, float32, shape (n, 1).

    Args:
        recipe: the settings; the trainer has settled the precision ("auto" is float32 here).
        normalisation: channel statistics of the training patches, used where the backbone starts from
            random weights; ImageNet weights keep the preprocessing they were trained with.
        weights_file: a weights file to use instead of those the resolver finds.

    Raises:
        WeightsError: the ImageNet weights are not to be had, or the encoder is not one.
    """
    if recipe.encoder is not None:
        return _on_encoder(recipe)
    with layers_in("float32" if recipe.precision == "auto" else recipe.precision):
        return _build(recipe, normalisation, weights_file)


def _on_encoder(recipe: Recipe) -> Network:
    encoder, origin = load_encoder(recipe)
    features = keras.Input((encoder.width,), dtype="float32", name="features")
    return Network(keras.Model(features, _head(recipe, features), name="ductal"), [], origin, encoder)


@contextmanager
def layers_in(precision: str) -> Iterator[None]:
    """Layers made in the block compute in `precision`, a Keras dtype policy; the caller's policy comes back after."""
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_global_policy(precision)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


def _build(recipe: Recipe, normalisation: Normalisation, weights_file: Path | None) -> Network:
    inputs = keras.Input((PATCH_PX, PATCH_PX, 3), dtype="uint8", name="patches")
    x = keras.layers.Rescaling(1.0, dtype="float32", name="to_float")(inputs)
    if recipe.input_px != PATCH_PX:
        x = keras.layers.Resizing(recipe.input_px, recipe.input_px, dtype="float32", name="resize")(x)
    family = family_of(recipe.backbone)
    if not family.normalises_itself:
        mean, std = (family.mean, family.std) if recipe.weights == "imagenet" else astuple(normalisation)
        variance = [value**2 for value in std]
        x = keras.layers.Normalization(mean=list(mean), variance=variance, dtype="float32", name="normalise")(x)
    before = {layer.name for layer in keras.Model(inputs, x).layers}
    base = build_base(recipe.backbone, input_tensor=x)
    base_names = [layer.name for layer in base.layers if layer.name not in before]
    origin = _initialise(base, recipe, normalisation, weights_file)
    pool = {"avg": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}
    pooled = pool[recipe.head.pooling](name="head_pool")(base.output)
    model = keras.Model(inputs, _head(recipe, pooled), name="ductal")
    return Network(model, base_names, origin)


def _initialise(base: Any, recipe: Recipe, normalisation: Normalisation, weights_file: Path | None) -> str:
    family = family_of(recipe.backbone)
    if recipe.weights == "imagenet":
        origin = load_imagenet(base, recipe.backbone, weights_file)
        if family.expects_bgr:
            # Turning the first kernel round is the same network on RGB.
            first = next(layer for layer in base.layers if isinstance(layer, keras.layers.Conv2D))
            kernel, bias = first.get_weights()
            first.set_weights([kernel[:, :, ::-1, :].copy(), bias])
        if family.normalises_itself:
            # The file keeps standard deviations where the layer reads variances. With weights="imagenet" Keras makes
            # up for it by a second Rescaling, which weights=None has not; here it is part of the variance.
            mean, variance, _ = _own_normalisation(base).get_weights()
            _set_own_normalisation(base, mean, variance * np.array(IMAGENET_STD) / 255.0)
        return origin
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # Keras' 0.99 lags by hundreds of steps, which are several epochs here
    if family.normalises_itself:
        _set_own_normalisation(base, np.array(normalisation.mean) / 255.0, (np.array(normalisation.std) / 255.0) ** 2)
    return "random"


def _own_normalisation(base: Any) -> Any:
    """The layer with which Keras' EfficientNet normalises what it has scaled to 0-1; nobody adapts it."""
    return next(
        layer
        for layer in base.layers
        if isinstance(layer, keras.layers.Normalization) and layer.name.startswith("normalization")
    )


def _set_own_normalisation(base: Any, mean: np.ndarray, variance: np.ndarray) -> None:
    layer = _own_normalisation(base)
    layer.set_weights([mean.astype("float32"), variance.astype("float32"), np.array(1)])
    layer.finalize_state()


def _head(recipe: Recipe, features: Any) -> Any:
    x = features
    if recipe.head.batch_norm:
        x = keras.layers.BatchNormalization(momentum=0.9, name="head_norm")(x)
    for number, units in enumerate(recipe.head.units, start=1):
        x = keras.layers.Dense(units, activation="relu", name=f"head_dense{number}")(x)
    if recipe.head.dropout:
        x = keras.layers.Dropout(recipe.head.dropout, name="head_dropout")(x)
    # The last step is float32 whatever the precision, so that probabilities near 0 and 1 keep their digits.
    logit = keras.layers.Dense(1, dtype="float32", name="logit")(x)
    return keras.layers.Activation("sigmoid", dtype="float32", name="probability")(logit)


def to_float32(network: Network) -> keras.Model:
    """After training: the model as it is saved, computing in float32, so that it runs well on any machine.

    Weights are float32 in all mixed precisions and stay what they are. It is not compiled: the optimizer's state
    would triple the file.
    """
    for layer in _with_inner(network.model.layers):
        layer.dtype_policy = "float32"
    return keras.Model(network.model.input, network.model.output)


def _with_inner(layers: list[Any]) -> Iterator[Any]:
    """Layers, and those inside them: ConvNeXt has models as layers, which do not hand their policy on."""
    for layer in layers:
        yield layer
        yield from _with_inner(getattr(layer, "layers", []))


def set_trainable(network: Network, stage: Stage, recipe: Recipe) -> list[str]:
    """Freeze and unfreeze layers for `stage`; returns the names of the trainable base layers.

    BatchNorm layers of a pretrained base stay frozen, and so in inference mode: their statistics
    would collapse on small batches of another domain. Compile again after this call.

    Raises:
        RecipeError: a block name fits no layer, or nothing in a random backbone would train.
    """
    chosen = _chosen_names(network, stage, recipe)
    for layer in network.base_layers():
        is_norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = layer.name in chosen and not (is_norm and recipe.weights != "random")
    trained = [layer.name for layer in network.base_layers() if layer.trainable_weights]
    if recipe.weights == "random" and not trained:
        raise RecipeError(f'Stage "{stage.name}" would train no layer of a random {recipe.backbone}.')
    return trained


def check_stages(network: Network, recipe: Recipe) -> None:
    """Raises RecipeError where any stage names layers that the network does not have: before the first one trains."""
    for stage in recipe.stages:
        _chosen_names(network, stage, recipe)


def _chosen_names(network: Network, stage: Stage, recipe: Recipe) -> set[str]:
    names = network.base_names
    if stage.unfreeze == "all":
        return set(names)
    if stage.unfreeze == "none":
        return set()
    if isinstance(stage.unfreeze, int):
        if stage.unfreeze > len(names):
            raise RecipeError(
                f'Stage "{stage.name}": unfreeze = {stage.unfreeze}, but the base has {len(names)} layers.'
            )
        return set(names[-stage.unfreeze :])
    family = family_of(recipe.backbone)
    weighted = [layer.name for layer in network.base_layers() if layer.weights]
    chosen: set[str] = set()
    for part in stage.unfreeze:
        found = family.layers_of(part, names)
        if not set(weighted).intersection(found):  # or it would have no effect
            blocks = dict.fromkeys(map(family.block_of, weighted))
            raise RecipeError(
                f'Stage "{stage.name}": no layer of {recipe.backbone} with weights starts with "{part}". '
                f"Blocks: {', '.join(block for block in blocks if block)}."
            )
        chosen.update(found)
    return chosen

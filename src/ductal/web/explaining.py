"""Grad-CAM for the page: a transparent picture of the map alone, so that its opacity is the page's to choose."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib import colormaps
from PIL import Image

from ductal.errors import RunError
from ductal.inference.engines import load_keras
from ductal.inference.explain import COLOURS, grad_cam, is_empty, normalised
from ductal.inference.predictor import MEMBERS
from ductal.web.problems import ApiError

MAP_PX = 400


class Explained(NamedTuple):
    """A map as PNG, of which class, of which layer, and whether there is nothing on it."""

    png: bytes
    target: Literal["cancer", "not_cancer"]
    layer: str
    empty: bool


class Explainer:
    """Grad-CAM of a run's networks, which TensorFlow loads when they are first needed.

    The map of an ensemble is the mean of its networks' maps.

    Args:
        run_folder: a finished run.
        d4: average over the 8 rotations and flips, as the run's answers are.
    """

    def __init__(self, run_folder: Path, *, d4: bool) -> None:
        self._folder, self._d4 = run_folder, d4
        self._lock = threading.Lock()  # loading takes seconds, and one patch at a time keeps the processor free
        self._networks: list[tuple[Any, str]] | None = None

    def explain(self, patch: np.ndarray, cancer: bool) -> Explained:
        """The map of one patch, uint8 (50, 50, 3), for the class that it is called.

        Raises:
            ApiError: "no_explanation" where the run's network cannot be explained.
        """
        with self._lock:
            try:
                self._networks = self._networks or self._load()
                target = np.array([cancer])
                maps = [
                    grad_cam(model, patch[None], layer=layer, target=target, d4=self._d4)
                    for model, layer in self._networks
                ]
            except RunError as error:
                raise ApiError("no_explanation", f"{error}".replace(str(self._folder), "The run")) from error
        found = normalised(np.mean(maps, axis=0))
        layers = ", ".join(dict.fromkeys(layer for _, layer in self._networks))
        target_name: Literal["cancer", "not_cancer"] = "cancer" if cancer else "not_cancer"
        return Explained(draw_map(found[0]), target_name, layers, bool(is_empty(found)[0]))

    def _load(self) -> list[tuple[Any, str]]:
        paths = sorted((self._folder / MEMBERS).glob("*/model.keras")) or [self._folder / "model.keras"]
        models = [load_keras(path) for path in paths]
        from ductal.inference.taps import Tap

        return [(model, Tap(model, None).name) for model in models]


def patch_png(patch: np.ndarray) -> bytes:
    """A patch, uint8 (50, 50, 3), as PNG: browsers cannot show every format that patches come in."""
    buffer = io.BytesIO()
    Image.fromarray(patch).save(buffer, "PNG")
    return buffer.getvalue()


def draw_map(found: np.ndarray) -> bytes:
    """A map in colour, as opaque as it is high.

    Args:
        found: float (50, 50) in [0, 1].

    Returns:
        An RGBA PNG of `MAP_PX` pixels a side.
    """
    size = (MAP_PX, MAP_PX)
    larger = np.asarray(Image.fromarray(found.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)).clip(0, 1)
    colours = np.rint(colormaps[COLOURS](larger) * 255).astype(np.uint8)
    colours[..., 3] = np.rint(larger * 255)
    buffer = io.BytesIO()
    Image.fromarray(colours, "RGBA").save(buffer, "PNG")
    return buffer.getvalue()

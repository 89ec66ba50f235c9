"""The one way from uint8 patches to probabilities of IDC."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ductal.errors import DataError, RunError
from ductal.inference.engines import Engine, EngineName, TensorFlowEngine, Where, open_engine

PATCH_SHAPE = (50, 50, 3)


def predict_in_order(
    model: Any,
    inputs: np.ndarray,
    rows: np.ndarray | None = None,
    *,
    batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Run a Keras model over `inputs[rows]` in the order of `rows`, nothing shuffled or augmented.

    Args:
        model: output float32 (n, 1).
        inputs: uint8 (N, 50, 50, 3) patches, or the cached features a top model takes.
        rows: int64 (n,); all of `inputs` when None.

    Returns:
        float32 (n,).
    """
    chosen = np.arange(len(inputs)) if rows is None else rows
    result = np.empty(len(chosen), np.float32)
    for start in range(0, len(chosen), batch_size):
        batch = inputs[chosen[start : start + batch_size]]
        result[start : start + len(batch)] = np.asarray(model.predict_on_batch(batch))[:, 0]
        if progress:
            progress(start + len(batch), len(chosen))
    return result


def d4_views(patches: np.ndarray) -> list[np.ndarray]:
    """The 8 rotations and flips of square patches (n, h, h, c)."""
    turned = [np.rot90(patches, k, axes=(1, 2)) for k in range(4)]
    return [*turned, *(view[:, :, ::-1] for view in turned)]


def turned_back(views: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Maps (n, h, h) of the 8 views of `d4_views`, each as the patch itself lies."""
    unflipped = [*views[:4], *(view[:, :, ::-1] for view in views[4:])]
    return [np.rot90(view, -k % 4, axes=(1, 2)) for k, view in enumerate(unflipped)]


def check_patches(patches: np.ndarray) -> None:
    """Raises DataError for anything but uint8 RGB patches (n, 50, 50, 3)."""
    if patches.dtype != np.uint8 or patches.ndim != 4 or patches.shape[1:] != PATCH_SHAPE:
        raise DataError(
            "Patches must be uint8 RGB of shape (n, 50, 50, 3) with values 0-255; do not rescale them. "
            f"Received: {patches.dtype} {patches.shape}"
        )


class Predictor:
    """Probabilities of IDC from a finished run.

    Example:
        >>> predictor = Predictor.from_run("ductal-out/runs/vgg16-full")  # doctest: +SKIP
        >>> predictor.predict(patches_u8)  # doctest: +SKIP

    Args:
        model: a Keras model, uint8 (n, 50, 50, 3) to float32 (n, 1), or an engine that runs one.
        threshold: probability at and above which a patch is called cancer.
        temperature: divides the logit (Guo et al. 2017); 1.0 leaves probabilities as they are.
        d4: average the logits over the 8 rotations and flips of each patch.
    """

    def __init__(self, model: Any, *, threshold: float = 0.5, temperature: float = 1.0, d4: bool = False) -> None:
        self.engine: Engine = model if hasattr(model, "run") else TensorFlowEngine(model)
        self.threshold, self.temperature, self.d4 = threshold, temperature, d4

    @classmethod
    def from_run(
        cls, folder: str | Path, *, d4: bool = False, engine: EngineName = "auto", exact: bool = False
    ) -> Predictor:
        """Load the model and its settings.

        Args:
            folder: a finished run.
            d4: see above.
            engine: "openvino", "tensorflow", or "auto": OpenVINO on a CPU where it is installed.
            exact: compute in float32 also where the run was trained in 16 bits, as the final evaluation does.

        Raises:
            RunError: the folder is not a finished run, or the engine is not installed.
        """
        folder = Path(folder)
        if not (folder / "model.keras").is_file() or not (folder / "calibration.json").is_file():
            raise RunError(
                f"{folder} is not a finished run: model.keras or calibration.json is missing. "
                "Name a folder under runs/, or train the recipe again."
            )
        try:
            settings = json.loads((folder / "calibration.json").read_text(encoding="utf-8"))
            threshold, temperature = float(settings["threshold"]), float(settings["temperature"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{folder / 'calibration.json'} cannot be read ({error!r}). Train the recipe again."
            ) from error
        return cls(open_engine(folder, engine, exact=exact), threshold=threshold, temperature=temperature, d4=d4)

    def predict(
        self,
        patches: np.ndarray,
        rows: np.ndarray | None = None,
        *,
        batch_size: int = 256,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Probability of IDC, float32 (n,), of uint8 RGB patches (n, 50, 50, 3), or of `patches[rows]`.

        Raises:
            DataError: wrong dtype or shape.
        """
        check_patches(patches)
        chosen = np.arange(len(patches)) if rows is None else rows
        probs = np.empty((8 if self.d4 else 1, len(chosen)), np.float32)

        def batches() -> Iterator[tuple[Where, np.ndarray]]:
            for start in range(0, len(chosen), batch_size):
                part = slice(start, min(start + batch_size, len(chosen)))
                batch = patches[chosen[part]]
                for number, view in enumerate(d4_views(batch) if self.d4 else [batch]):
                    yield (number, part), view
                if progress:
                    progress(part.stop, len(chosen))

        self.engine.run(batches(), probs)
        if not self.d4 and self.temperature == 1.0:
            return probs[0]
        return _sigmoid(_logit(probs).mean(axis=0) / self.temperature)


def _logit(probs: np.ndarray) -> np.ndarray:
    clipped = np.clip(probs.astype(np.float64), 1e-7, 1.0 - 1e-7)
    return np.log(clipped / (1.0 - clipped)).astype(np.float32)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return (1.0 / (1.0 + np.exp(-logits.astype(np.float64)))).astype(np.float32)

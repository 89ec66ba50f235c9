"""The one way from uint8 patches to probabilities of IDC."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ductal.errors import DataError, RunError
from ductal.evaluation.arrays import expit, logit
from ductal.inference.engines import Engine, EngineName, TensorFlowEngine, Where, open_engine
from ductal.loading.links import refuse_links
from ductal.loading.records import read_json

PATCH_SHAPE = (50, 50, 3)
MEMBERS = "members"  # folder of an ensemble's networks
MAX_MEMBERS = 100
Progress = Callable[[int, int], None]


def predict_in_order(
    model: Any,
    inputs: np.ndarray,
    rows: np.ndarray | None = None,
    *,
    batch_size: int = 256,
    progress: Progress | None = None,
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


@dataclass(frozen=True)
class Member:
    """A network of a predictor, and its own calibration."""

    engine: Engine
    temperature: float = 1.0
    bias: float = 0.0


class Predictor:
    """Probabilities of IDC from a finished run, which may be an ensemble of several networks.

    Example:
        >>> predictor = Predictor.from_run("ductal-out/runs/vgg16-full")  # doctest: +SKIP
        >>> predictor.predict(patches_u8)  # doctest: +SKIP

    Args:
        model: a Keras model, uint8 (n, 50, 50, 3) to float32 (n, 1); an engine that runs one; or a list of `Member`,
            whose calibrated logits are averaged.
        threshold: probability at and above which a patch is called cancer.
        temperature: divides the (mean) logit (Guo et al. 2017); 1.0 leaves probabilities as they are.
        bias: is added to the divided logit (Platt 1999).
        d4: average the logits over the 8 rotations and flips of each patch.
    """

    def __init__(
        self, model: Any, *, threshold: float = 0.5, temperature: float = 1.0, bias: float = 0.0, d4: bool = False
    ) -> None:
        if isinstance(model, list):
            self.members: list[Member] = model
        else:
            self.members = [Member(model if hasattr(model, "run") else TensorFlowEngine(model))]
        self.threshold, self.temperature, self.bias, self.d4 = threshold, temperature, bias, d4

    @classmethod
    def from_run(
        cls, folder: str | Path, *, d4: bool = False, engine: EngineName = "auto", exact: bool = False
    ) -> Predictor:
        """Load the model, or the models of an ensemble, and the settings.

        Args:
            folder: a finished run.
            d4: see above; a run that was calibrated with it (`ductal ensemble --d4`) always has it.
            engine: "openvino", "tensorflow", or "auto": OpenVINO on a CPU where it is installed.
            exact: compute in float32 also where the run was trained in 16 bits, as the final evaluation does.

        Raises:
            RunError: the folder is not a finished run, or the engine is not installed.
        """
        folder = Path(folder)
        settings = read_settings(folder)
        inside = sorted(path.parent for path in (folder / MEMBERS).glob("*/model.keras"))
        if inside or settings["members"]:
            if len(inside) != settings["members"]:
                raise RunError(
                    f"{folder} is an ensemble of {settings['members']} networks and {len(inside)} are there. "
                    "Copy the whole folder again, or make it anew: ductal ensemble."
                )
            members = []
            for member in inside:
                own = read_settings(member)
                members.append(Member(open_engine(member, engine, exact=exact), own["temperature"], own["bias"]))
        else:
            members = [Member(open_engine(folder, engine, exact=exact))]
        return cls(
            members, threshold=settings["threshold"], temperature=settings["temperature"], bias=settings["bias"],
            d4=d4 or settings["d4"],
        )  # fmt: skip

    def called(self, probs: np.ndarray) -> np.ndarray:
        """bool (n,): which of these probabilities are called cancer, compared in float64 as all metrics are."""
        return np.asarray(probs, np.float64) >= self.threshold

    @property
    def engine(self) -> Engine:
        """What runs the (first) network."""
        return self.members[0].engine

    @property
    def streams(self) -> int:
        """How many calls of `predict` are computed side by side; further ones would only wait for each other."""
        return min(member.engine.streams for member in self.members)

    def predict(
        self,
        patches: np.ndarray,
        rows: np.ndarray | None = None,
        *,
        batch_size: int = 256,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Probability of IDC, float32 (n,), of uint8 RGB patches (n, 50, 50, 3), or of `patches[rows]`.

        Raises:
            DataError: wrong dtype or shape.
        """
        found = self._raw(patches, rows, self.d4, batch_size, progress)
        only = self.members[0]
        if found.shape[:2] == (1, 1) and (self.temperature, self.bias, only.temperature, only.bias) == (1, 0, 1, 0):
            return found[0, 0]
        return expit(self._calibrated(found).mean(axis=0)).astype(np.float32)

    def logits(
        self,
        patches: np.ndarray,
        rows: np.ndarray | None = None,
        *,
        batch_size: int = 256,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Calibrated logit of IDC, float64 (n,), of what `predict` takes. Raises DataError as it does."""
        return np.asarray(self._calibrated(self._raw(patches, rows, self.d4, batch_size, progress)).mean(axis=0))

    def predict_views(self, patches: np.ndarray, *, batch_size: int = 256) -> np.ndarray:
        """Probability of IDC of each of the 8 rotations and flips of a patch, calibrated like the answer.

        The first view is the patch as it is. The answer of a run that averages over the views is the sigmoid of the
        mean of their logits; of another run it is the first view's.

        Args:
            patches: uint8 RGB (n, 50, 50, 3).
            batch_size: patches of one view that the network is given at once.

        Returns:
            float32 (n, 8), in the order of `d4_views`.

        Raises:
            DataError: wrong dtype or shape.
        """
        return expit(self._calibrated(self._raw(patches, None, True, batch_size, None))).T.astype(np.float32)

    def _raw(
        self,
        patches: np.ndarray,
        rows: np.ndarray | None,
        d4: bool,
        batch_size: int,
        progress: Progress | None,
    ) -> np.ndarray:
        """What each network says of each view, float32 (members, views, n)."""
        check_patches(patches)
        chosen = np.arange(len(patches)) if rows is None else rows
        count = len(self.members)
        found = np.empty((count, 8 if d4 else 1, len(chosen)), np.float32)

        def batches(before: int) -> Iterator[tuple[Where, np.ndarray]]:
            for start in range(0, len(chosen), batch_size):
                part = slice(start, min(start + batch_size, len(chosen)))
                batch = patches[chosen[part]]
                for number, view in enumerate(d4_views(batch) if d4 else [batch]):
                    yield (number, part), view
                if progress:
                    progress(before + part.stop, count * len(chosen))

        for number, member in enumerate(self.members):
            member.engine.run(batches(number * len(chosen)), found[number])
        return found

    def _calibrated(self, found: np.ndarray) -> np.ndarray:
        """Calibrated logits of the views, float64 (views, n), of what `_raw` found."""
        logits = [
            logit(probs) / member.temperature + member.bias
            for probs, member in zip(found, self.members, strict=True)
        ]
        return np.asarray(np.mean(logits, axis=0) / self.temperature + self.bias)


def read_settings(folder: Path) -> dict[str, Any]:
    """threshold, temperature, bias, d4 and number of members of a run's `calibration.json`. Raises RunError."""
    refuse_links(folder)
    has_model = (folder / "model.keras").is_file() or (folder / MEMBERS).is_dir()
    if not has_model or not (folder / "calibration.json").is_file():
        raise RunError(
            f"{folder} is not a finished run: model.keras or calibration.json is missing. "
            "Name a folder under runs/, or train the recipe again."
        )
    try:
        settings = read_json(folder / "calibration.json")
        found = {
            "threshold": float(settings["threshold"]), "temperature": float(settings["temperature"]),
            "bias": float(settings.get("bias", 0.0)), "d4": bool(settings.get("d4", False)),
            "members": int(settings.get("members", 0)),
        }  # fmt: skip
        if not np.isfinite([found["threshold"], found["temperature"], found["bias"]]).all():
            raise ValueError("a number is not finite")
        if not found["temperature"] > 0 or not 0 <= found["members"] <= MAX_MEMBERS:
            raise ValueError("the temperature is not above 0, or the number of members is not possible")
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise RunError(
            f"{folder / 'calibration.json'} cannot be read ({error!r}). Train the recipe again."
        ) from error
    return found

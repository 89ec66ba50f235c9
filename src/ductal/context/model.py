"""The context model of a run: smoothing of logits on the grid, kept as numbers in `context.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ductal.context.neighbourhood import window_means
from ductal.errors import DataError, RunError
from ductal.evaluation.arrays import Floats
from ductal.files import write_text
from ductal.loading.records import read_json
from ductal.record import model_digest
from ductal.slides.grid import TileGrid

FILE = "context.json"
FORMAT = 1
TRACK = "slide context"
LARGEST_WINDOW = 99
_NUMBERS = ("intercept", "own", "neighbourhood", "temperature", "bias", "threshold")


@dataclass(frozen=True)
class ContextModel:
    """A calibrated logit from a patch's own logit z and the mean m of the logits in the window around it.

    ``(intercept + own * z + neighbourhood * m) / temperature + bias``. The window holds the patch itself and those
    of its neighbours that are there (`ductal.context.neighbourhood.window_means`), so that a patch without any is
    refined by itself alone.

    Attributes:
        window: side of the window in patches, odd.
        intercept, own, neighbourhood: coefficients of the logistic regression.
        temperature, bias: calibration, fitted on slides that the coefficients were not fitted on.
        threshold: probability from which on a patch is called IDC.
        patients: whose slides it was fitted on; scores on these would flatter it.
        d4: whether the logits it was fitted on were averaged over flips and turns.
        model: SHA-256 of the network(s) it belongs to, "" where unknown.
    """

    window: int
    intercept: float
    own: float
    neighbourhood: float
    temperature: float = 1.0
    bias: float = 0.0
    threshold: float = 0.5
    patients: tuple[str, ...] = ()
    d4: bool = False
    model: str = ""

    def refine(self, grid: TileGrid, logits: np.ndarray) -> Floats:
        """Calibrated logits of one slide's patches, given what lies around them.

        Args:
            grid: places of the slide's n patches; of one slide only, since neighbours never cross patients.
            logits: the run's own calibrated logits, shape (n,); nan where a tile was not looked at, which is
                then missing for its neighbours and stays nan.

        Returns:
            float64 (n,).

        Raises:
            DataError: there is not one logit for each place, or one is infinite.
        """
        z = np.asarray(logits, np.float64)
        if z.ndim != 1 or np.isinf(z).any():
            raise DataError(
                "Context takes one finite logit for each patch, or nan where there is none. "
                f"Received: shape {z.shape}, {int(np.isinf(z).sum())} infinite."
            )
        around = window_means(grid, z, self.window)
        linear = self.intercept + self.own * z + self.neighbourhood * around
        return linear / self.temperature + self.bias

    def numbers(self) -> dict[str, float]:
        """What determines the result of `refine`, and the threshold."""
        return {"window": self.window} | {name: getattr(self, name) for name in _NUMBERS}

    def save(self, run_folder: str | Path) -> Path:
        """Write `context.json` into a run, whole or not at all. Raises StorageError when the disk refuses."""
        path = Path(run_folder) / FILE
        content = {"format": FORMAT, "track": TRACK, **asdict(self), "patients": list(self.patients)}
        write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
        return path

    @classmethod
    def load(cls, run_folder: str | Path) -> ContextModel:
        """Read a run's `context.json`: numbers and ids, nothing that could run.

        Raises:
            RunError: the run has none, or it cannot be used; the message says how to make it.
        """
        path = Path(run_folder) / FILE
        try:
            return cls._read(read_json(path))
        except FileNotFoundError as error:
            raise RunError(
                f"{run_folder} has no {FILE}: no context was fitted for this run. Fit it: ductal context RUN."
            ) from error
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise RunError(f"{path} cannot be used ({error}). Fit it again: ductal context RUN.") from error

    @classmethod
    def of_run(cls, run_folder: str | Path, *, d4: bool) -> ContextModel:
        """As `load`, for logits that the run gives now.

        Args:
            run_folder: a finished run.
            d4: whether these logits are averaged over flips and turns.

        Raises:
            RunError: as `load`; or it was fitted for another network, or for logits made otherwise.
        """
        model = cls.load(run_folder)
        if model.d4 != d4 or model.model not in ("", model_digest(Path(run_folder))):
            raise RunError(
                f"{Path(run_folder) / FILE} was fitted for another network, or {'with' if model.d4 else 'without'} "
                "D4 averaging. Fit it again: ductal context RUN, or leave it out: --patch-only."
            )
        return model

    @classmethod
    def _read(cls, content: dict[str, Any]) -> ContextModel:
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, and this version knows {FORMAT}")
        window = content["window"]
        if type(window) is not int or window % 2 != 1 or not 1 <= window <= LARGEST_WINDOW:
            raise ValueError(f"window {window}")
        numbers = {name: float(content[name]) for name in _NUMBERS}
        if not np.isfinite(list(numbers.values())).all() or not numbers["temperature"] > 0:
            raise ValueError("a number is not finite, or the temperature not above 0")
        patients = tuple(str(patient) for patient in content["patients"])
        return cls(window, **numbers, patients=patients, d4=bool(content["d4"]), model=str(content["model"]))

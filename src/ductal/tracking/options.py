"""Who is told of a training, as the user asks for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ductal.errors import TrackingError

KINDS = ("tensorboard", "mlflow")


@dataclass(frozen=True)
class Tracking:
    """Which trackers, and where they are.

    Attributes:
        kinds: of `KINDS`.
        folder: where TensorBoard's files are, a folder for each run.
        uri: address of the MLflow server, http or https.
        experiment: MLflow's name for what the runs belong to.
    """

    kinds: tuple[str, ...] = ()
    folder: Path = Path("tensorboard")
    uri: str = ""
    experiment: str = "ductal"

    @classmethod
    def parse(cls, names: Sequence[str], folder: Path, uri: str | None = None) -> Tracking:
        """Check what the user asked for; MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME count where nothing is said.

        Raises:
            TrackingError: an unknown tracker, or no server that can be asked.
        """
        unknown = [name for name in names if name not in KINDS]
        if unknown:
            raise TrackingError(f"There is no tracker {unknown[0]!r}. Name one or both of {','.join(KINDS)}.")
        if uri and "mlflow" not in names:
            raise TrackingError("A tracking address is given, and nobody uses it. Add --track mlflow.")
        address = uri or os.environ.get("MLFLOW_TRACKING_URI", "")
        if "mlflow" in names and not _is_server(address):
            raise TrackingError(
                "MLflow needs the address of a server, such as http://localhost:5000, in --tracking-uri or "
                "MLFLOW_TRACKING_URI. For a folder or database of yours, start one on it: "
                f"mlflow server --backend-store-uri sqlite:///mlflow.db. Received: {shown_address(address)!r}"
            )
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or cls.experiment
        return cls(tuple(dict.fromkeys(names)), folder, address.rstrip("/"), experiment)


def shown_address(address: str) -> str:
    """An address without the name and password that may be in it."""
    return address.rpartition("@")[2] if "@" in address else address


def _is_server(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False

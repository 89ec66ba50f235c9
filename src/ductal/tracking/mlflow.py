"""A run on an MLflow server, by its REST interface, with the HTTP client that this package has anyway.

MLflow's own client would add twenty packages, retry for minutes while a training waits, and send its user's name.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from ductal.files import write_text

SECONDS_TO_ANSWER = 5.0  # of the server
SECONDS_TO_STOP = 2.0  # the same, where the training was told to end
SECONDS_BETWEEN = 60.0  # after a failure, before the server is asked again
_PARAMS, _METRICS = 100, 1000  # of one request, as MLflow allows


class RunFile:
    """Which MLflow run belongs to a training that may be interrupted.

    Args:
        path: of the file.
        key: of the training; the run of another is not found.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key = path, key

    def read(self) -> str | None:
        """The run's id; None where there is none yet."""
        found = self._known().get("run")
        return None if found is None else str(found)

    def has_settings(self) -> bool:
        """Whether the server has all settings of the run."""
        return self._known().get("has_settings") is True

    def write(self, run_id: str, *, has_settings: bool) -> None:
        """Remember it. Raises StorageError."""
        write_text(self._path, json.dumps({"key": self._key, "run": run_id, "has_settings": has_settings}))

    def _known(self) -> dict[str, Any]:
        with suppress(OSError, ValueError, KeyError, TypeError):
            known: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
            return known if known["key"] == self._key else {}
        return {}


class MLflow:
    """One run on a server. What could not be delivered is kept and sent when the server answers again.

    Args:
        uri: http(s) address of the server. MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and _PASSWORD, count.
        experiment: made where there is none of the name.
        file: where the run of a training is remembered; None for one that is over.
        run_id: the run, where it is known.
    """

    name = "mlflow"

    def __init__(self, uri: str, experiment: str, file: RunFile | None = None, run_id: str | None = None) -> None:
        self._client = httpx.Client(
            base_url=f"{uri}/api/2.0/mlflow/", timeout=SECONDS_TO_ANSWER, **_credentials()
        )
        self._experiment, self._file, self._run = experiment, file, run_id
        self._title = ""
        self._params: list[dict[str, str]] = []
        self._metrics: list[dict[str, Any]] = []
        self._reopen = False
        self._failed: float | None = None

    def begin(self, title: str, params: Mapping[str, str], *, resumed: bool) -> None:  # noqa: ARG002
        """See `Tracker.begin`. A run that is remembered goes on, with the settings it has, if it has them all."""
        self._title = title
        self._run = self._file.read() if self._file else self._run
        self._reopen = self._run is not None
        if self._file is None or not self._file.has_settings():
            self._params = [{"key": key, "value": value} for key, value in params.items()]
        self._deliver()

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """See `Tracker.log`."""
        now = _milliseconds()
        self._metrics += [
            {"key": key, "value": value, "timestamp": now, "step": step} for key, value in figures.items()
        ]
        if self._failed is None or time.monotonic() - self._failed >= SECONDS_BETWEEN:
            self._deliver()

    def close(self, outcome: str) -> None:
        """See `Tracker.close`."""
        if outcome != "FINISHED":
            self._client.timeout = httpx.Timeout(SECONDS_TO_STOP)
        try:
            self._deliver()
            self._post("runs/update", run_id=self._run, status=outcome, end_time=_milliseconds())
        finally:
            self._client.close()

    def record(self) -> str | None:
        """See `Tracker.record`. A server that is back has one at last, before the record is written."""
        if self._run is None:
            with suppress(Exception):  # `close` tries again, and its failure is told
                self._deliver()
        return self._run

    def _deliver(self) -> None:
        self._failed = time.monotonic()  # unless it comes to the end
        if self._run is None:
            self._run = self._create()
            if self._file:
                self._file.write(self._run, has_settings=False)
        if self._reopen:
            self._post("runs/update", run_id=self._run, status="RUNNING")
            self._reopen = False
        while self._params:
            self._post("runs/log-batch", run_id=self._run, params=self._params[:_PARAMS])
            del self._params[:_PARAMS]
            if self._file and not self._params:
                self._file.write(self._run, has_settings=True)
        while self._metrics:
            self._post("runs/log-batch", run_id=self._run, metrics=self._metrics[:_METRICS])
            del self._metrics[:_METRICS]
        self._failed = None

    def _create(self) -> str:
        answer = self._client.get("experiments/get-by-name", params={"experiment_name": self._experiment})
        if answer.status_code == httpx.codes.NOT_FOUND:
            experiment = self._post("experiments/create", name=self._experiment)["experiment_id"]
        else:
            answer.raise_for_status()
            experiment = answer.json()["experiment"]["experiment_id"]
        made = self._post(
            "runs/create", experiment_id=experiment, run_name=self._title, start_time=_milliseconds(), tags=[]
        )
        return str(made["run"]["info"]["run_id"])

    def _post(self, what: str, **content: Any) -> dict[str, Any]:
        answer = self._client.post(what, json=content)
        if answer.is_error:
            raise httpx.HTTPError(f"{what}: {answer.status_code} {answer.text[:150]}")
        found: dict[str, Any] = answer.json()
        return found


def _credentials() -> dict[str, Any]:
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"headers": {"Authorization": f"Bearer {token}"}}
    name, password = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
    return {"auth": (name, password or "")} if name else {}


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000

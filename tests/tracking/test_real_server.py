"""A real MLflow server, where one is installed, is told everything."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pandas as pd
import pytest
from small_training import quiet, train_small
from told_trainings import EXPERIMENT, RECIPE, Interrupted, output, stopping, told

from ductal.data.cohort import Cohort
from ductal.data.split import Split
from ductal.evaluation.evaluate import evaluate
from ductal.tracking.trackers import track_evaluation


@pytest.fixture(scope="module")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server of this machine, on a database of its own."""
    command = os.environ.get("DUCTAL_MLFLOW") or shutil.which("mlflow")
    if command is None:
        pytest.skip("no MLflow server: install mlflow in an environment of its own; DUCTAL_MLFLOW names its command")
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    settings.pop("PYTHONPATH", None)
    process = subprocess.Popen(
        [command, "server", "--backend-store-uri", f"sqlite:///{folder}/store.db", "--port", str(port),
         "--workers", "1", "--default-artifact-root", str(folder / "artifacts")],
        cwd=folder, env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    uri = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            time.sleep(0.5)
            try:
                if httpx.get(f"{uri}/health").is_success:
                    break
            except httpx.HTTPError:
                assert process.poll() is None, "the server has ended"
        else:
            pytest.fail("the MLflow server has not begun within two minutes")
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def test_a_real_server_has_it_all(real_server: str, cohort: Cohort, split: Split, tmp_path: Path) -> None:
    tracking = told(tmp_path, "mlflow", uri=real_server)
    with pytest.raises(Interrupted):
        train_small(RECIPE, cohort, split, tmp_path / "run", tracking=tracking, progress=stopping(2))
    progress = quiet()
    run = train_small(RECIPE, cohort, split, tmp_path / "run", tracking=tracking, progress=progress)
    evaluate(run, cohort, split)
    track_evaluation(tracking, run, lambda text: pytest.fail(text))
    assert "Warning" not in output(progress)
    api = f"{real_server}/api/2.0/mlflow"
    run_id = json.loads((run / "run.json").read_text())["tracking"]["mlflow"]
    kept = httpx.get(f"{api}/runs/get", params={"run_id": run_id}).json()["run"]
    assert kept["info"]["status"] == "FINISHED"
    params = {item["key"]: item["value"] for item in kept["data"]["params"]}
    assert params["stages.0.name"] == "head"
    final = {item["key"]: item["value"] for item in kept["data"]["metrics"]}
    metrics = json.loads((run / "metrics.json").read_text())
    assert final["final_test_roc_auc"] == pytest.approx(metrics["test"]["at_threshold"]["roc_auc"])
    asked = {"run_id": run_id, "metric_key": "val_loss"}
    points = httpx.get(f"{api}/metrics/get-history", params=asked).json()["metrics"]
    history = pd.read_csv(run / "history.csv")
    found = {point["step"]: point["value"] for point in points}
    assert found == pytest.approx(dict(zip(history["epoch"], history["val_loss"], strict=True)))
    experiment = httpx.get(f"{api}/experiments/get-by-name", params={"experiment_name": EXPERIMENT}).json()
    search = {"experiment_ids": [experiment["experiment"]["experiment_id"]]}
    assert len(httpx.post(f"{api}/runs/search", json=search).json()["runs"]) == 1

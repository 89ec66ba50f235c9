"""Trackers are told of trainings, never stop one, and learn of no patient; a real MLflow server where one is."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from rich.console import Console
from small_training import easy, quiet, small_recipe, stage, train_small

from ductal.data.cohort import Cohort
from ductal.data.split import Split
from ductal.data.splitting import make_split
from ductal.errors import TrackingError
from ductal.evaluation.evaluate import evaluate
from ductal.tracking import mlflow
from ductal.tracking.options import Tracking
from ductal.tracking.trackers import open_trackers, track_evaluation
from ductal.training.progress import TrainingProgress

RECIPE = small_recipe(stage("head", epochs=3))
EXPERIMENT = "patches"


class FakeServer(ThreadingHTTPServer):
    """What MLflow's interface answers, as far as it is used; `mode` spoils it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.mode = "fine"
        self.seen: list[tuple[str, bytes]] = []
        self.runs: list[dict[str, Any]] = []
        self.statuses: list[str] = []
        self.release = threading.Event()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def steps(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for what, body in self.seen:
            for metric in json.loads(body).get("metrics", []) if what == "runs/log-batch" else []:
                found.setdefault(metric["key"], []).append(metric["step"])
        return found


class _Answers(BaseHTTPRequestHandler):
    server: FakeServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(404 if not self.server.runs else 200, {"experiment": {"experiment_id": "1"}})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        what = self.path.removeprefix("/api/2.0/mlflow/")
        full = self.server.mode == "no batches" and what == "runs/log-batch"
        if self.server.mode in ("fine", "no batches") and not full:
            self.server.seen.append((what, body))
            content = json.loads(body)
            if what == "runs/create":
                self.server.runs.append(content)
            if what == "runs/update":
                self.server.statuses.append(content["status"])
        run = {"run": {"info": {"run_id": f"run{len(self.server.runs)}"}}}
        self._answer(503 if full else 200, {"experiment_id": "1"} | run)

    def _answer(self, code: int, content: dict[str, Any]) -> None:
        if self.server.mode == "hang":
            self.server.release.wait(20)
        code = 503 if self.server.mode == "broken" else code
        text = b"<html>" if self.server.mode == "no json" else json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield found
        found.release.set()
        found.shutdown()


@pytest.fixture(scope="module")
def cohort(tiny_cohort: Cohort) -> Cohort:
    return easy(tiny_cohort)


@pytest.fixture(scope="module")
def split(cohort: Cohort) -> Split:
    return make_split(cohort, "random", seed=1)


@pytest.fixture(scope="module")
def untold(cohort: Cohort, split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody is told of."""
    return train_small(RECIPE, cohort, split, tmp_path_factory.mktemp("untold") / "run")


def told(tmp_path: Path, *kinds: str, uri: str = "http://127.0.0.1:9") -> Tracking:
    return Tracking(kinds, tmp_path / "tensorboard", uri, EXPERIMENT)


def same_run(one: Path, two: Path) -> bool:
    """Whether two runs have the same history, but for the clock, and the same predictions."""
    clock = ["seconds", "images_per_second"]
    histories = [pd.read_csv(run / "history.csv").drop(columns=clock) for run in (one, two)]
    probs = [pd.read_parquet(run / "predictions" / "val.parquet")["prob"] for run in (one, two)]
    return histories[0].equals(histories[1]) and probs[0].equals(probs[1])


class Interrupted(KeyboardInterrupt):
    pass


def stopping(after: int) -> TrainingProgress:
    """Progress that interrupts the training after that epoch."""

    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == after:
            raise Interrupted

    return TrainingProgress("small", Console(file=io.StringIO(), width=300), stop)


def output(progress: TrainingProgress) -> str:
    assert isinstance(progress.console.file, io.StringIO)
    return progress.console.file.getvalue()


def test_mlflow_is_told_of_settings_epochs_and_the_end_and_of_nothing_private(
    server: FakeServer, cohort: Cohort, split: Split, untold: Path, tmp_path: Path
) -> None:
    private = tmp_path / "ward-7"
    tracking = told(private, "mlflow", "tensorboard", uri=server.uri)
    run = train_small(RECIPE, cohort, split, private / "run", tracking=tracking)
    assert same_run(run, untold)
    assert json.loads((run / "run.json").read_text())["tracking"] == {"tensorboard": "run", "mlflow": "run1"}
    assert "tracking" not in json.loads((untold / "run.json").read_text())
    assert [what for what, _ in server.seen][:2] == ["experiments/create", "runs/create"]
    assert server.runs[0]["run_name"] == "small"
    params = {}
    for what, body in server.seen:
        batch = json.loads(body).get("params", []) if what == "runs/log-batch" else []
        assert len(batch) <= 100
        params |= {item["key"]: item["value"] for item in batch}
    assert params["stages.0.learning_rate"] == "0.01"
    assert params["head.units"] == "[]"
    assert params["cohort.fingerprint"] == cohort.info.fingerprint
    assert params["seed"] == "3"
    assert server.steps["val_auc"] == server.steps["loss"] == [1, 2, 3]
    assert server.statuses == ["FINISHED"]
    evaluate(run, cohort, split)
    track_evaluation(tracking, run, lambda text: pytest.fail(text))
    assert server.steps["final_val_roc_auc"] == server.steps["final_test_roc_auc"] == [0]
    assert len(server.runs) == 1
    check_nothing_private(server, private / "tensorboard" / "run", cohort)


def check_nothing_private(server: FakeServer, curves: Path, cohort: Cohort) -> None:
    """No patient, patch, folder, user or machine is in any text that was sent or written."""
    texts = [text for _, body in server.seen for text in texts_in(json.loads(body))]
    for event in events_of(curves):
        for value in event.summary.value:
            texts += [value.tag, *map(bytes.decode, value.tensor.string_val)]
    assert {"val_auc", "val/auc", "cohort.fingerprint"} <= set(texts)
    secrets = {*cohort.groups.astype(str), *cohort.table["patch_id"], "ward-7", str(cohort.folder)}
    secrets |= {os.environ.get("USER", "nobody-of-this-name"), socket.gethostname()}
    assert [secret for secret in secrets if any(secret in text for text in texts)] == []


def texts_in(value: Any) -> list[str]:
    """All texts in a JSON value, keys included."""
    if isinstance(value, dict):
        return [text for key, inner in value.items() for text in [key, *texts_in(inner)]]
    if isinstance(value, list):
        return [text for inner in value for text in texts_in(inner)]
    return [value] if isinstance(value, str) else []


def test_a_resumed_training_goes_on_in_the_same_run(
    server: FakeServer, cohort: Cohort, split: Split, untold: Path, tmp_path: Path
) -> None:
    tracking = told(tmp_path, "mlflow", "tensorboard", uri=server.uri)
    with pytest.raises(Interrupted):
        train_small(RECIPE, cohort, split, tmp_path / "run", tracking=tracking, progress=stopping(2))
    run = train_small(RECIPE, cohort, split, tmp_path / "run", tracking=tracking)
    assert same_run(run, untold)
    assert len(server.runs) == 1
    assert server.statuses == ["KILLED", "RUNNING", "FINISHED"]
    assert server.steps["val_auc"] == [1, 2, 3]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert len(list((tmp_path / "tensorboard" / "run").iterdir())) == 2


def test_the_run_of_another_training_is_not_gone_on_in(server: FakeServer, tmp_path: Path) -> None:
    tracking = told(tmp_path, "mlflow", uri=server.uri)
    for key, runs in (("a", 1), ("a", 1), ("b", 2)):
        with open_trackers(tracking, "run", tmp_path, key, lambda text: pytest.fail(text)) as trackers:
            trackers.begin("small", {"seed": "1"}, resumed=False)
        assert len(server.runs) == runs


def test_settings_that_a_server_refused_are_sent_to_the_run_that_goes_on(server: FakeServer, tmp_path: Path) -> None:
    tracking = told(tmp_path, "mlflow", uri=server.uri)
    params = {f"setting{number}": "1" for number in range(150)}
    warnings: list[str] = []
    for mode, resumed, sent in (("no batches", False, 0), ("fine", True, 150), ("fine", True, 150)):
        server.mode = mode
        with open_trackers(tracking, "run", tmp_path, "key", warnings.append) as trackers:
            trackers.begin("small", params, resumed=resumed)
        batches = [json.loads(body).get("params", []) for what, body in server.seen if what == "runs/log-batch"]
        assert sum(map(len, batches)) == sent
    assert len(server.runs) == len(warnings) == 1
    assert server.statuses == ["RUNNING", "FINISHED"] * 2


def tell(
    tracking: Tracking, folder: Path, between: Callable[[], None] = lambda: None
) -> tuple[list[str], dict[str, Any]]:
    """Tell of three epochs without a training; `between` comes before the last. Returns warnings and record."""
    warnings: list[str] = []
    with open_trackers(tracking, "run", folder, "key", warnings.append) as trackers:
        trackers.begin("small", {f"setting{number}": "1" for number in range(150)}, resumed=False)
        for epoch in (1, 2, 3):
            if epoch == 3:
                between()
            trackers.epoch({"epoch": epoch, "stage": "head", "val_loss": 0.5, "val_auc": float("nan"), "best": True})
        record = trackers.record()
    return warnings, record


@pytest.mark.parametrize("mode", ["broken", "hang", "no json"])
def test_a_server_that_fails_is_one_warning(
    mode: str, server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow, "SECONDS_TO_ANSWER", 0.3)
    server.mode = mode
    began = time.monotonic()
    warnings, record = tell(told(tmp_path, "mlflow", uri=server.uri), tmp_path)
    assert record == {"mlflow": None}
    assert time.monotonic() - began < 10
    assert len(warnings) == 1
    assert "mlflow is not told of this training for now" in warnings[0]


def test_a_training_does_not_mind_a_server_that_is_away(
    cohort: Cohort, split: Split, untold: Path, tmp_path: Path
) -> None:
    (tmp_path / "tensorboard").write_text("a file is in the way")
    tracking = told(tmp_path, "mlflow", "tensorboard", uri="http://user:secret@127.0.0.1:9")
    progress = quiet()
    assert same_run(
        train_small(RECIPE, cohort, split, tmp_path / "run", tracking=tracking, progress=progress), untold
    )
    said = output(progress)
    assert said.count("mlflow is not told of this training for now") == 1
    assert said.count("tensorboard is not told of this training for now") == 1
    assert "secret" not in said


def test_what_a_server_missed_is_sent_when_it_is_back(server: FakeServer, tmp_path: Path) -> None:
    server.mode = "broken"
    tracking = told(tmp_path, "mlflow", uri=server.uri)
    warnings, record = tell(tracking, tmp_path, lambda: setattr(server, "mode", "fine"))
    assert len(warnings) == 1
    assert record == {"mlflow": "run1"}  # in time for the run's record, where its evaluation looks for it
    assert len(server.runs) == 1
    assert server.steps == {"val_loss": [1, 2, 3]}
    assert server.statuses == ["FINISHED"]


def events_of(folder: Path) -> list[Any]:
    """All events of TensorBoard's files in `folder`, oldest file first."""
    files = sorted(folder.glob("*tfevents*"))
    return [
        tf.compat.v1.Event.FromString(record.numpy())
        for file in files for record in tf.data.TFRecordDataset(str(file))
    ]


def test_tensorboards_files_hold_the_history(cohort: Cohort, split: Split, untold: Path, tmp_path: Path) -> None:
    tracking = told(tmp_path, "tensorboard")
    run = train_small(RECIPE, cohort, split, tmp_path / "run", tracking=tracking)
    assert same_run(run, untold)
    events = events_of(tmp_path / "tensorboard" / "run")
    assert events[0].file_version == "brain.Event:2"
    text = tf.make_ndarray(events[1].summary.value[0].tensor)[0].decode()
    assert "| augment.stain | 0.1 |" in text
    points = {
        (value.tag, event.step): value.simple_value
        for event in events[2:] for value in event.summary.value
    }  # fmt: skip
    history = pd.read_csv(run / "history.csv")
    for column, tag in {"val_auc": "val/auc", "loss": "training/loss", "seconds": "training/seconds"}.items():
        np.testing.assert_allclose([points[tag, epoch] for epoch in (1, 2, 3)], history[column], rtol=1e-6)
    tell(tracking, tmp_path)  # a training of this name that begins anew
    assert len(list((tmp_path / "tensorboard" / "run").iterdir())) == 1


@pytest.mark.parametrize(
    ("names", "uri", "message"),
    [
        (["wandb"], None, "There is no tracker 'wandb'. Name one or both of tensorboard,mlflow"),
        (["mlflow"], None, "MLflow needs the address of a server"),
        (["mlflow"], "sqlite:///mlflow.db", "MLflow needs the address of a server"),
        (["mlflow"], "http://[", "MLflow needs the address of a server"),
        (["mlflow"], "ftp://u:pass@host", "Received: 'host'"),
        (["tensorboard"], "http://localhost:5000", "nobody uses it"),
    ],
)
def test_options_that_cannot_be(
    names: list[str], uri: str | None, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(TrackingError, match=message):
        Tracking.parse(names, tmp_path, uri)


def test_the_environment_names_server_and_experiment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://one/")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    assert Tracking.parse(["mlflow"], tmp_path) == Tracking(("mlflow",), tmp_path, "https://one", "mine")
    assert Tracking.parse(["mlflow"], tmp_path, "http://two").uri == "http://two"


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

"""Trackers are told of trainings, never stop one, and learn of no patient; a real MLflow server where one is."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from fake_server import FakeServer
from small_training import quiet, train_small
from told_trainings import RECIPE, Interrupted, output, same_run, stopping, told

from ductal.data.cohort import Cohort
from ductal.data.split import Split
from ductal.errors import TrackingError
from ductal.evaluation.evaluate import evaluate
from ductal.tracking import mlflow
from ductal.tracking.options import Tracking
from ductal.tracking.trackers import open_trackers, params_of, track_evaluation


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield found
        found.release.set()
        found.shutdown()


@pytest.fixture(scope="module")
def untold(cohort: Cohort, split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody is told of."""
    return train_small(RECIPE, cohort, split, tmp_path_factory.mktemp("untold") / "run")


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


def test_an_encoder_is_told_by_its_digest_and_not_by_its_name() -> None:
    encoder = {"file": "/home/ward-7/anna.onnx", "output": "tokens"}
    record = {
        "recipe": {"name": "mine", "encoder": encoder}, "weights": "ONNX file anna.onnx, SHA-256 abc def",
        "cohort": {"name": "ward-7"}, "split": {"id": "x", "name": "own"},
    }  # fmt: skip
    told_of = {"name": "mine", "encoder.output": "tokens", "encoder.sha256": "abc def"}
    assert params_of(record) == told_of | {"split.id": "x", "split.name": "own"}


def test_the_environment_names_server_and_experiment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://one/")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    assert Tracking.parse(["mlflow"], tmp_path) == Tracking(("mlflow",), tmp_path, "https://one", "mine")
    assert Tracking.parse(["mlflow"], tmp_path, "http://two").uri == "http://two"

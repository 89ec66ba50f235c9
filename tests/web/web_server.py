"""A real server in a process of its own, runs with a known answer, and images to send."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

START_SECONDS = 60.0
KERAS = Path(__file__).with_name("dark_is_tumour.keras")  # made by `make_network`


def png(pixels: np.ndarray, kind: str = "PNG", **settings: Any) -> bytes:
    """An image file of uint8 pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **settings)
    return buffer.getvalue()


def tissue(strength: float, side: int = 50, seed: int = 0) -> np.ndarray:
    """Texture in the colours of H&E, uint8 (side, side, 3); dark from a strength of 1.5 on."""
    noise = np.random.default_rng(seed).uniform(0.6, 1.4, (side, side, 1))
    return np.clip(243 * np.exp(-strength * noise * [0.5, 1.0, 0.6]), 0, 255).astype(np.uint8)


def probability(pixels: np.ndarray) -> float:
    """What the run of `make_run` says of a patch."""
    return float(1 / (1 + np.exp(20 * pixels.mean() / 255 - 11)))


def make_network(path: Path) -> None:
    """A network that calls dark patches tumour; it is kept in a file, since TensorFlow takes long to load."""
    import keras

    inputs = keras.Input((50, 50, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(inputs)
    conv = keras.layers.Conv2D(1, 5, strides=5, activation="relu", name="darkness")
    x = keras.layers.GlobalAveragePooling2D()(conv(x))
    dense = keras.layers.Dense(1, activation="sigmoid", name="probability")
    model = keras.Model(inputs, dense(x))
    conv.set_weights([np.full((5, 5, 3, 1), -1 / 75, np.float32), np.ones(1, np.float32)])
    dense.set_weights([np.full((1, 1), 20, np.float32), np.full(1, -9, np.float32)])
    model.save(path)


def make_run(folder: Path, **calibration: Any) -> Path:
    """A run that calls dark patches tumour; with its OpenVINO form, so that TensorFlow is needed for maps only."""
    import openvino
    from fake_runs import make_run as make_record
    from openvino import opset13 as ops

    make_record(folder)
    tiles = ops.parameter([-1, 50, 50, 3], np.uint8)
    mean = ops.reduce_mean(ops.convert(tiles, "f32"), np.array([1, 2, 3]), keep_dims=False)
    logit = ops.add(ops.multiply(mean, np.float32(-20 / 255)), np.float32(11))
    probs = ops.unsqueeze(ops.sigmoid(logit), np.array(1))
    (folder / "openvino").mkdir()
    openvino.save_model(openvino.Model([probs], [tiles]), folder / "openvino" / "model.xml", compress_to_fp16=False)
    shutil.copyfile(KERAS, folder / "model.keras")
    digest = hashlib.sha256((folder / "model.keras").read_bytes()).hexdigest()
    (folder / "openvino" / "model.keras.sha256").write_text(digest)
    settings = {
        "threshold": 0.5, "temperature": 1.0, "threshold_rule": "set by hand",
        "abstention": {"low": 0.3, "high": 0.7, "max_error": 0.05},
    }  # fmt: skip
    (folder / "calibration.json").write_text(json.dumps(settings | calibration))
    (folder / "figures").mkdir(exist_ok=True)
    (folder / "figures" / "roc_pr.png").write_bytes(png(tissue(1.0)))
    return folder


class Server:
    """`ductal serve` as a user starts it; use as a context manager."""

    def __init__(self, run: Path, *options: str, **environment: str) -> None:
        self.temporary = tempfile.TemporaryDirectory(prefix="server-")
        settings = os.environ | {"TMPDIR": self.temporary.name} | environment
        command = [sys.executable, "-m", "ductal", "serve", str(run), "--port", "0", *options]
        self.process = subprocess.Popen(
            command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert "http://" in said, said + "".join(self.log)
        self.url = said.split()[1].rstrip("/")
        self.address = (self.url.split("//")[1].rpartition(":")[0].strip("[]"), int(self.url.rpartition(":")[2]))
        self.client = httpx.Client(base_url=self.url, timeout=60)
        self.at_first: dict[str, httpx.Response] = {}  # answers before the model was loaded

    def __enter__(self) -> Server:
        self.at_first = {path: self.client.get(f"/api/v1/{path}") for path in ("health", "ready", "model")}
        deadline = time.monotonic() + START_SECONDS
        while self.client.get("/api/v1/ready").status_code != 200:
            assert time.monotonic() < deadline, "".join(self.log)
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
            self.temporary.cleanup()

    def post(self, path: str, content: bytes, name: str = "patch.png", **data: Any) -> httpx.Response:
        """Send a file as browsers do."""
        return self.client.post(f"/api/v1/{path}", files={"file": (name, content)}, data=data)

    def finished(self, job: dict[str, Any], within: float = 180.0) -> dict[str, Any]:
        """A job, once it has ended."""
        deadline = time.monotonic() + within
        while job["status"] in ("queued", "running"):
            assert time.monotonic() < deadline, job
            time.sleep(0.1)
            job = self.client.get(f"/api/v1/slides/{job['id']}").json()
        return job

    def files(self) -> list[str]:
        """Everything in the server's temporary folder."""
        folder = Path(self.temporary.name)
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        self.log.extend(self.process.stderr)


def send_until_cut(connection: socket.socket, pieces: Iterable[bytes]) -> None:
    """Send what the server should not hear to its end."""
    for piece in pieces:
        connection.sendall(piece)


def problem(response: httpx.Response) -> str:
    """The code of a problem, which every error must be."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    content = response.json()
    assert content["status"] == response.status_code
    assert content["detail"]
    assert content["title"]
    return str(content["code"])

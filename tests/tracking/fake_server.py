"""A server that answers as MLflow does, as far as it is used, or badly."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


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

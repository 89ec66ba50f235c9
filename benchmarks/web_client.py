"""Clients of the web application that cost little: prepared bytes over plain sockets, all of them in one process.

    python benchmarks/web_client.py PORT FILE CLIENTS SECONDS

FILE is a NumPy archive of `web_load.py`: whole requests, and the probability that each must be answered with. Prints
one JSON object: how many were answered with which status, seconds of each, the worst difference of a probability, and
the processor seconds of this process.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import sys
import time
from pathlib import Path

import numpy as np

LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
PROBABILITY = re.compile(rb'"probability":([0-9.e-]+)')


class Client:
    """One connection, which sends a request as soon as the last is answered."""

    def __init__(self, port: int, number: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.at, self.started, self.answer = number, 0.0, b""

    def send(self, requests: list[bytes]) -> None:
        """The next request."""
        self.at = (self.at + 37) % len(requests)
        self.answer, self.started = b"", time.perf_counter()
        self.socket.sendall(requests[self.at])

    def receive(self) -> bytes | None:
        """The body once all of it is there; what came before it is in `answer`."""
        part = self.socket.recv(65536)
        if not part:
            raise ConnectionError("the server has closed a connection")
        self.answer += part
        head, _, body = self.answer.partition(b"\r\n\r\n")
        found = LENGTH.search(head)
        return body if found and len(body) == int(found[1]) else None


def run(port: int, requests: list[bytes], probs: np.ndarray, clients: int, seconds: float) -> dict[str, object]:
    """Figures of one pass."""
    waiting = selectors.EpollSelector()
    for number in range(clients):
        client = Client(port, number * 7)
        waiting.register(client.socket, selectors.EVENT_READ, client)
        client.send(requests)
    statuses: dict[str, int] = {}
    took: list[float] = []
    worst, busy, began = 0.0, time.process_time(), time.perf_counter()
    while (now := time.perf_counter()) < began + seconds:
        for key, _ in waiting.select(began + seconds - now):
            client = key.data
            body = client.receive()
            if body is None:
                continue
            took.append(time.perf_counter() - client.started)
            status = client.answer[9:12].decode()
            statuses[status] = statuses.get(status, 0) + 1
            if status == "200" and (found := PROBABILITY.search(body)):
                worst = max(worst, abs(float(found[1]) - float(probs[client.at])))
            client.send(requests)
    return {
        "statuses": statuses, "took": took, "worst_difference": worst, "wall": time.perf_counter() - began,
        "cpu": time.process_time() - busy,
    }  # fmt: skip


def main() -> None:
    """Command line."""
    port, path, clients, seconds = sys.argv[1:]
    prepared = np.load(Path(path))
    parts = np.split(prepared["bytes"], np.cumsum(prepared["sizes"])[:-1])
    requests = [part.tobytes() for part in parts]
    json.dump(run(int(port), requests, prepared["probs"], int(clients), float(seconds)), sys.stdout)


if __name__ == "__main__":
    main()

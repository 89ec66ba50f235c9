"""The web application under load, against the Predictor alone on the same patches in the same run.

    python benchmarks/web_load.py RUN [--clients C] [--seconds S] [--rounds R] [--hostile H] [--form] [--d4]

RUN is a run folder. A server is started for it, and C clients on the loopback interface send one patch after the
other, each in a request of its own, for S seconds, R times; then once more with H hostile uploads in between, no
answer of which may be anything but an error, and none of the patches' anything but right. The patches are drawn, as
PNG; they are sent as the body itself, or with --form as a browser does. The Predictor is timed
before and after each round.

Prints one JSON object: requests/s and their share of the Predictor's patches/s; latencies; processor seconds for each
request of the server and of the clients (`web_client.py`), and for each patch of the Predictor, whose share does not
depend on what else the machine does; and the server's resident memory before, between and after.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from ductal.data.synthetic_tissue import draw_slide
from ductal.inference.predictor import Predictor
from ductal.machine import cpu

CLIENT = Path(__file__).with_name("web_client.py")
BATCH = 64
SETTLE_SECONDS = 12.0
BOUNDARY = "frontier"
HOSTILE = (
    b"", b"no image " * 1000, b"\x89PNG\r\n\x1a\n" + bytes(200), b"II*\0" + b"\xff" * 4000, b"<svg/>", bytes(3 << 20),
)  # fmt: skip


def drawn_patches(count: int) -> np.ndarray:
    """Tissue, uint8 (n, 50, 50, 3)."""
    slide = draw_slide(np.random.default_rng(0), count, 0.4)
    return np.stack([slide.pixels[y * 50 : y * 50 + 50, x * 50 : x * 50 + 50] for x, y in slide.tiles.tolist()])


def request(content: bytes, form: bool = True) -> bytes:
    """A whole HTTP request that uploads a file, as a form or as it is."""
    kind, body = "image/png", content
    if form:
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        start = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        body = start.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
    head = (
        "POST /api/v1/predict HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def hostile(port: int, count: int, seconds: float) -> dict[int, int]:
    """Statuses of hostile uploads, evenly over the time, each on a connection of its own; 0 where it was cut off."""
    found: dict[int, int] = {}
    for number in range(count):
        time.sleep(seconds / count)
        status = 0
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                connection.sendall(request(HOSTILE[number % len(HOSTILE)]))
                status = int(connection.recv(65536).split()[1])
        except (OSError, IndexError):
            pass
        found[status] = found.get(status, 0) + 1
    return found


def load(server: Server, prepared: Path, clients: int, seconds: float, hostiles: int = 0) -> dict[str, Any]:
    """Figures of one pass."""
    command = [sys.executable, CLIENT, str(server.port), prepared, str(clients), str(seconds)]
    before = server.cpu_seconds()
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    refused = hostile(server.port, hostiles, 0.9 * seconds) if hostiles else {}
    found = json.loads(running.communicate()[0])
    count = len(found["took"])
    p50, p99 = np.quantile(found["took"], (0.5, 0.99)) * 1000
    return {
        "requests": count, "per_second": round(count / found["wall"], 1), "statuses": found["statuses"],
        "p50_ms": round(float(p50), 1), "p99_ms": round(float(p99), 1),
        "worst_difference": round(found["worst_difference"], 4),
        "server_cpu_ms": round((server.cpu_seconds() - before) / count * 1000, 3),
        "client_cpu_ms": round(found["cpu"] / count * 1000, 3),
        "resident_mb": server.resident_mb(), "hostile_statuses": refused,
    }  # fmt: skip


def predictor_figures(predictor: Predictor, patches: np.ndarray, seconds: float = 6.0) -> tuple[float, float]:
    """Patches per second, and processor milliseconds for each."""
    predictor.predict(patches[:BATCH], batch_size=BATCH)
    started, cpu_started, done = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - started < seconds:
        predictor.predict(patches, batch_size=BATCH)
        done += len(patches)
    return done / (time.perf_counter() - started), (time.process_time() - cpu_started) / done * 1000


class Server:
    """`ductal serve`, once it is ready."""

    def __init__(self, run: Path, d4: bool) -> None:
        command = [sys.executable, "-m", "ductal", "serve", str(run), "--port", "0", *(["--d4"] if d4 else [])]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        url = self._process.stdout.readline().split()[1]
        self.port = int(url.rstrip("/").rpartition(":")[2])
        while httpx.get(f"{url}api/v1/ready").status_code != 200:
            time.sleep(0.2)

    def resident_mb(self) -> float:
        """Its memory that is in use."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmRSS:"):
                return round(int(line.split()[1]) / 1024, 1)
        raise RuntimeError("the server has no resident memory")

    def cpu_seconds(self) -> float:
        """Its processor time, user and system."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(30)


def png(patch: np.ndarray) -> bytes:
    """As an image file."""
    buffer = io.BytesIO()
    Image.fromarray(patch).save(buffer, "PNG")
    return buffer.getvalue()


def measured(
    options: argparse.Namespace, predictor: Predictor, patches: np.ndarray, prepared: Path
) -> dict[str, object]:
    """All passes."""
    alone = [predictor_figures(predictor, patches)]
    server = Server(options.run, options.d4)
    try:
        load(server, prepared, options.clients, 3.0)  # to warm up
        warm, rounds = server.resident_mb(), []
        for _ in range(options.rounds):
            rounds.append(load(server, prepared, options.clients, options.seconds))
            alone.append(predictor_figures(predictor, patches))
        mixed = load(server, prepared, options.clients, options.seconds, options.hostile)
        time.sleep(SETTLE_SECONDS)
        settled = server.resident_mb()
    finally:
        server.stop()
    rate, cpu_ms = np.mean(alone, axis=0).tolist()
    served, served_cpu_ms = (
        np.mean([sum(one[name] for name in names) for one in rounds])
        for names in (("per_second",), ("server_cpu_ms", "client_cpu_ms"))
    )
    return {
        "predictor_patches_per_second": [round(one, 1) for one, _ in alone],
        "predictor_cpu_ms": [round(one, 3) for _, one in alone],
        "share": round(served / rate, 3), "share_by_processor_time": round(cpu_ms / served_cpu_ms, 3),
        "good_only": rounds, "with_hostile": mixed, "resident_mb_warm": warm, "resident_mb_settled": settled,
    }  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hostile", type=int, default=200)
    parser.add_argument("--patches", type=int, default=512)
    parser.add_argument("--form", action="store_true")
    parser.add_argument("--d4", action="store_true")
    options = parser.parse_args()
    load_before = os.getloadavg()[0]
    patches = drawn_patches(options.patches)
    requests = [request(png(patch), options.form) for patch in patches]
    predictor = Predictor.from_run(options.run, d4=options.d4)
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "requests.npz"
        np.savez(
            prepared, bytes=np.frombuffer(b"".join(requests), np.uint8), sizes=[len(one) for one in requests],
            probs=predictor.predict(patches),
        )  # fmt: skip
        result = measured(options, predictor, patches, prepared)
    about = {
        "machine": str(cpu()), "python": platform.python_version(), "load_before": round(load_before, 2),
        "run": options.run.name, "d4": predictor.d4, "members": len(predictor.members), "clients": options.clients,
        "body": "form" if options.form else "image",
    }  # fmt: skip
    print(json.dumps(about | result, indent=1))


if __name__ == "__main__":
    main()

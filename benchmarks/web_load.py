"""The web application under load, against the Predictor alone on the same patches in the same run.

    python benchmarks/web_load.py RUN [--clients C] [--seconds S] [--hostile H] [--d4]

RUN is a run folder. A server is started for it, and C clients on the loopback interface send one patch after the
other, each in a request of its own, for S seconds; then once more with H hostile uploads in between, no answer of
which may be anything but an error, and none of the patches' anything but right. The patches are drawn, as PNG. The
Predictor is timed before and after, and its mean counts. Prints one JSON object: requests/s and the share of the
Predictor's patches/s, latencies, and the server's resident memory before, between and after.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from ductal.data.synthetic_tissue import draw_slide
from ductal.inference.predictor import Predictor
from ductal.machine import cpu

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


def request(content: bytes) -> bytes:
    """A whole HTTP request that uploads a file."""
    body = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'.encode()
        + content + f"\r\n--{BOUNDARY}--\r\n".encode()
    )  # fmt: skip
    head = (
        "POST /api/v1/predict HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@dataclass
class Found:
    """What clients saw."""

    seconds: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    worst_difference: float = 0.0

    def add(self, status: int) -> None:
        """Count an answer."""
        self.statuses[status] = self.statuses.get(status, 0) + 1


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, content: bytes) -> tuple[int, bytes]:
    """Send a request and read the answer."""
    writer.write(content)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(length)


async def good_client(
    port: int, requests: list[bytes], probs: np.ndarray, start: int, end: float, found: Found
) -> None:
    """One patch after the other until `end`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    number = start
    while time.perf_counter() < end:
        at = number % len(requests)
        before = time.perf_counter()
        status, body = await exchange(reader, writer, requests[at])
        found.seconds.append(time.perf_counter() - before)
        found.add(status)
        if status == 200:
            difference = abs(json.loads(body)["probability"] - float(probs[at]))
            found.worst_difference = max(found.worst_difference, difference)
        number += 37
    writer.close()


async def hostile_client(port: int, count: int, seconds: float, found: Found) -> None:
    """Hostile uploads, evenly over the time, each on a connection of its own."""
    for number in range(count):
        await asyncio.sleep(seconds / count)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            status, _ = await exchange(reader, writer, request(HOSTILE[number % len(HOSTILE)]))
            found.add(status)
        except (OSError, asyncio.IncompleteReadError):
            found.add(0)  # cut off
        writer.close()


async def load(
    port: int, requests: list[bytes], probs: np.ndarray, clients: int, seconds: float, hostile: int
) -> tuple[dict[str, object], float]:
    """Figures of one pass, and its requests/s."""
    good, bad = Found(), Found()
    started = time.perf_counter()
    hostiles = asyncio.create_task(hostile_client(port, hostile, 0.9 * seconds, bad))
    end = started + seconds
    await asyncio.gather(*(good_client(port, requests, probs, i * 7, end, good) for i in range(clients)))
    took = time.perf_counter() - started
    await hostiles
    p50, p99 = np.quantile(good.seconds, (0.5, 0.99)) * 1000
    rate = len(good.seconds) / took
    figures = {
        "requests": len(good.seconds), "requests_per_second": round(rate, 1), "p50_ms": round(float(p50), 1),
        "p99_ms": round(float(p99), 1), "longest_ms": round(max(good.seconds) * 1000, 1), "statuses": good.statuses,
        "worst_difference": round(good.worst_difference, 4), "hostile_statuses": bad.statuses,
    }  # fmt: skip
    return figures, rate


def predictor_rate(predictor: Predictor, patches: np.ndarray, seconds: float = 6.0) -> float:
    """Patches per second."""
    predictor.predict(patches[:BATCH], batch_size=BATCH)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        predictor.predict(patches, batch_size=BATCH)
        done += len(patches)
    return done / (time.perf_counter() - started)


def resident_mb(process: int) -> float:
    """Memory of a process that is in use."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return round(int(line.split()[1]) / 1024, 1)
    raise RuntimeError(f"process {process} has no resident memory")


def start(run: Path, d4: bool) -> tuple[subprocess.Popen[str], int]:
    """A server that is ready, and its port."""
    command = [sys.executable, "-m", "ductal", "serve", str(run), "--port", "0", *(["--d4"] if d4 else [])]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    url = server.stdout.readline().split()[1]
    while httpx.get(f"{url}api/v1/ready").status_code != 200:
        time.sleep(0.2)
    return server, int(url.rstrip("/").rpartition(":")[2])


def png(patch: np.ndarray) -> bytes:
    """As an image file."""
    buffer = io.BytesIO()
    Image.fromarray(patch).save(buffer, "PNG")
    return buffer.getvalue()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--hostile", type=int, default=200)
    parser.add_argument("--patches", type=int, default=512)
    parser.add_argument("--d4", action="store_true")
    options = parser.parse_args()
    load_before = os.getloadavg()[0]
    patches = drawn_patches(options.patches)
    requests = [request(png(patch)) for patch in patches]
    predictor = Predictor.from_run(options.run, d4=options.d4)
    probs = predictor.predict(patches)
    alone = [predictor_rate(predictor, patches)]
    server, port = start(options.run, options.d4)
    try:
        asyncio.run(load(port, requests, probs, options.clients, 3.0, 0))  # to warm up
        memory = [resident_mb(server.pid)]
        plain, rate = asyncio.run(load(port, requests, probs, options.clients, options.seconds, 0))
        memory.append(resident_mb(server.pid))
        mixed, _ = asyncio.run(load(port, requests, probs, options.clients, options.seconds, options.hostile))
        memory.append(resident_mb(server.pid))
        time.sleep(SETTLE_SECONDS)
        memory.append(resident_mb(server.pid))
    finally:
        server.terminate()
        server.wait(30)
    alone.append(predictor_rate(predictor, patches))
    own = float(np.mean(alone))
    result = {
        "machine": str(cpu()), "python": platform.python_version(), "load_before": round(load_before, 2),
        "run": options.run.name, "d4": predictor.d4, "members": len(predictor.members), "clients": options.clients,
        "predictor_patches_per_second": [round(one, 1) for one in alone], "share": round(rate / own, 3),
        "good_only": plain, "with_hostile": mixed,
        "resident_mb": dict(zip(("warm", "after_load", "after_hostile", "settled"), memory, strict=True)),
    }  # fmt: skip
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

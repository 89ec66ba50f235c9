"""What a server is started with: who may reach it, which run it serves, and every limit in one place."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ductal.inference.engines import EngineName

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True)
class Limits:
    """How much a server takes from its clients.

    Attributes:
        patch_bytes: body of a request with one patch; 50 x 50 px are 7.5 kB without any compression.
        batch_bytes: body of a request with many.
        files: patches in one request.
        slide_bytes: body of a request with a slide.
        slide_pixels: of an image that must be decoded whole; scans with tiles are read piece by piece.
        other_bytes: body of any other request.
        pause_seconds: longest pause of a client within a request.
        body_seconds: for a whole body, and a second more for each `slowest_bytes` of it.
        slowest_bytes: a second, below which a client holds a connection for too long.
        requests: at a time, being worked on.
        batches: requests with many patches at a time; each is held in memory.
        slide_uploads: at a time; each takes room on the disk.
        connections: open at a time.
        waiting_patches: that wait for the network.
        explanations: that wait for Grad-CAM.
        answer_seconds: until a patch must be answered.
        batch: patches that each stream of the network is given at once; few, so that some wait while others compute.
        wait_seconds: longest time that a patch waits for others to share its batch.
        jobs_waiting: slides that wait for their turn.
        jobs_kept: finished ones whose results are kept.
        job_seconds: until a slide's analysis is stopped.
        kept_seconds: until a finished slide is deleted.
    """

    patch_bytes: int = 1 * MIB
    batch_bytes: int = 32 * MIB
    files: int = 500
    slide_bytes: int = 1 * GIB
    slide_pixels: int = 100_000_000
    other_bytes: int = 16 * KIB
    pause_seconds: float = 10.0
    body_seconds: float = 30.0
    slowest_bytes: int = 64 * KIB
    requests: int = 256
    batches: int = 16
    slide_uploads: int = 4
    connections: int = 512
    waiting_patches: int = 2048
    explanations: int = 8
    answer_seconds: float = 60.0
    batch: int = 6
    wait_seconds: float = 0.002
    jobs_waiting: int = 8
    jobs_kept: int = 16
    job_seconds: float = 1800.0
    kept_seconds: float = 3600.0


@dataclass(frozen=True)
class Settings:
    """Everything else about a server.

    Attributes:
        token: that clients must send as `Authorization: Bearer`; "" when none is needed.
        hosts: names by which the server may be called, besides those of the loopback interface.
        samples: a prepared cohort to take sample patches from; None draws synthetic ones.
        engine: see `Predictor.from_run`.
        d4: see `Predictor.from_run`.
        access_log: a line in the log for each request; names of files are never in it.
        limits: see `Limits`.
    """

    token: str = ""
    hosts: tuple[str, ...] = ()
    samples: Path | None = None
    engine: EngineName = "auto"
    d4: bool = False
    access_log: bool = False
    limits: Limits = field(default_factory=Limits)

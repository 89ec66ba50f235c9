"""Slides one after the other: a queue, a child process for each, and nothing left behind.

Everything of a job lies in a folder of its own with a random name, below one that the server makes when it starts and
removes when it ends. The upload goes as soon as the job ends; the results when they are deleted, expire, or have to
make room.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import secrets
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

from ductal.data.workers import main_left_out
from ductal.web.job_child import Task, analyse_in_child, told
from ductal.web.problems import CODES, ApiError, Problem
from ductal.web.settings import Limits

log = logging.getLogger("ductal.web")
JobStatus = Literal["queued", "running", "done", "failed"]
RESULTS = "results"
_LOOK_SECONDS = 5.0  # between looks for what has expired


@dataclass
class Job:
    """A slide on its way.

    Attributes:
        id: random, not to be guessed.
        name: the client's name of the file, for showing only.
        folder: of everything it has on the disk.
        task: for the child.
        status, progress (done, total, seconds since the start), problem, summary, warnings: how far it is.
        ended: when, by `time.monotonic`; None before.
    """

    id: str
    name: str
    folder: Path
    task: Task
    status: JobStatus = "queued"
    progress: tuple[int, int, float] | None = None
    problem: Problem | None = None
    summary: dict[str, Any] | None = None
    warnings: list[dict[str, str]] = field(default_factory=list)
    ended: float | None = None
    process: BaseProcess | None = None
    deleted: bool = False

    @property
    def results(self) -> Path:
        """Folder of its results."""
        return self.folder / RESULTS


class Jobs:
    """All jobs of a server.

    Args:
        folder: where their folders are made; private.
        limits: of number and time.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        self._jobs: dict[str, Job] = {}  # oldest first
        self._news = asyncio.Event()
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._expire())]

    def make_folder(self) -> Path:
        """An empty folder with a random name, for a job to come."""
        folder = self._folder / secrets.token_urlsafe(16)
        folder.mkdir(mode=0o700)
        return folder

    def check_room(self) -> None:
        """Raises ApiError "busy" where the queue is full."""
        waiting = sum(job.status == "queued" for job in self._jobs.values())
        if waiting >= self._limits.jobs_waiting:
            raise ApiError(
                "busy", f"{waiting} slides are waiting, which is as many as the server takes. Try again later.",
                {"Retry-After": "60"},
            )  # fmt: skip

    def submit(self, name: str, task: Task) -> Job:
        """Queue a job, whose folder is that of its image. Raises ApiError "busy" where the queue is full."""
        self.check_room()
        folder = task.image.parent
        job = Job(folder.name, name, folder, task)
        self._jobs[job.id] = job
        self._news.set()
        return job

    def get(self, job_id: str) -> Job:
        """A job by its id. Raises ApiError "not_found"."""
        job = self._jobs.get(job_id)
        if job is None:
            raise ApiError("not_found", "There is no such job; it was deleted or has expired. Send the slide again.")
        return job

    def position(self, job: Job) -> int | None:
        """How many wait before it, from 0; None when it does not wait."""
        if job.status != "queued":
            return None
        waiting = [one.id for one in self._jobs.values() if one.status == "queued"]
        return waiting.index(job.id)

    async def delete(self, job: Job) -> None:
        """Stop a job wherever it is, and remove everything of it."""
        self._jobs.pop(job.id, None)
        job.deleted = True
        if job.process is not None:
            await asyncio.to_thread(_stop, job.process)
        await asyncio.to_thread(shutil.rmtree, job.folder, ignore_errors=True)

    async def close(self) -> None:
        """Stop and remove all."""
        for task in self._tasks:
            task.cancel()
        for job in list(self._jobs.values()):
            await self.delete(job)

    async def _run(self) -> None:
        while True:
            job = next((one for one in self._jobs.values() if one.status == "queued"), None)
            if job is None:
                self._news.clear()
                await self._news.wait()
                continue
            await self._run_one(job)

    async def _run_one(self, job: Job) -> None:
        job.status, started = "running", time.monotonic()
        try:
            outcome = await asyncio.to_thread(self._watch, job, started)
        except Exception:  # no process to be had, for instance; the queue must go on
            log.exception("job %s could not be run", job.id)
            outcome = ("crashed", "")
        if job.deleted:
            await asyncio.to_thread(shutil.rmtree, job.folder, ignore_errors=True)  # what the child wrote at last
            return
        job.task.image.unlink(missing_ok=True)
        job.ended = time.monotonic()
        self._conclude(job, outcome)
        log.info("job %s %s, %.1f s", job.id, job.status, job.ended - started)
        for old in [one for one in self._jobs.values() if one.ended is not None][: -self._limits.jobs_kept]:
            await self.delete(old)

    def _watch(self, job: Job, started: float) -> tuple[Any, ...]:
        """Start the child and listen until it ends; returns its last word."""
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=analyse_in_child, args=(sender, job.task), daemon=True)
        with main_left_out():
            process.start()
        job.process = process
        sender.close()
        try:
            with receiver:
                while True:
                    left = started + self._limits.job_seconds - time.monotonic()
                    if job.deleted or left <= 0 or not receiver.poll(left):
                        return ("timeout",)
                    message = told(receiver)
                    if message[0] != "progress":
                        return message
                    job.progress = (message[1], message[2], time.monotonic() - started)
        except EOFError:
            process.join(1.0)
            return ("died", process.exitcode)
        finally:
            _stop(process)
            job.process = None

    def _conclude(self, job: Job, outcome: tuple[Any, ...]) -> None:
        if outcome[0] == "done":
            job.summary, job.warnings = outcome[1:]
            job.status = "done"
            return
        job.status = "failed"
        shutil.rmtree(job.results, ignore_errors=True)
        if outcome[0] == "refused":
            job.problem = _problem(outcome[1] if outcome[1] in CODES else "not_usable", outcome[2])
        elif outcome[0] == "timeout":
            text = f"The analysis took more than {self._limits.job_seconds:g} seconds and was stopped. Send less."
            job.problem = _problem("timeout", text)
        elif outcome[0] == "died":
            log.warning("job %s: its process ended with exit code %s", job.id, outcome[1])
            text = f"The analysis broke off ({_how(outcome[1])}). The file may be damaged, or need too much memory."
            job.problem = _problem("not_usable", text)
        else:
            log.error("job %s crashed:\n%s", job.id, outcome[1])
            job.problem = _problem("internal", "The analysis met something unforeseen; it is in the server's log.")

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(min(_LOOK_SECONDS, self._limits.kept_seconds))
            now = time.monotonic()
            for job in list(self._jobs.values()):
                if job.ended is not None and now - job.ended > self._limits.kept_seconds:
                    await self.delete(job)


def _stop(process: BaseProcess) -> None:
    with suppress(ValueError):  # it was closed already
        process.kill()  # nothing needs an orderly end: its folder is removed
        process.join()


def _problem(code: str, detail: str) -> Problem:
    return Problem(title=CODES[code][1], status=CODES[code][0], detail=detail, code=code)


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"

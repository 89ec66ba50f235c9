"""Jobs that take too long, and results that nobody fetches; with real child processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path

import pytest
from taken_over import taken_over
from test_slides_api import region, slow
from web_server import png

from ductal.web.job_child import UPLOAD, Task, told
from ductal.web.jobs import RESULTS, Job, Jobs
from ductal.web.problems import ApiError
from ductal.web.settings import Limits


def submit(jobs: Jobs, run: Path, content: bytes) -> Job:
    """As the route does."""
    folder = jobs.make_folder()
    image = folder / f"{UPLOAD}.png"
    image.write_bytes(content)
    return jobs.submit("x.png", Task(run, image, folder / RESULTS, None, None, None, False, "openvino", 100_000_000))


async def until(condition: Callable[[], bool], seconds: float = 180.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def test_a_child_that_was_taken_over_has_no_say(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ductal.web.jobs.analyse_in_child", taken_over)

    async def check() -> None:
        jobs = Jobs(tmp_path, Limits())
        for said, code in ((b"", "internal"), (b'["done", 5]', "internal"), (b'["refused", "?", "x"]', "not_usable")):
            job = submit(jobs, run, said)
            await until(lambda job=job: job.status == "failed")  # and the next one still has its turn
            assert job.problem is not None
            assert job.problem.code == code
        await jobs.close()
        assert list(tmp_path.iterdir()) == []

    asyncio.run(check())


@pytest.mark.parametrize("said", [b"{}", b"[]", b'[["done"], {}, []]', b'["progress", 1, "2"]', b"\xff", b"[" * 9999])
def test_what_a_child_says_is_of_a_known_form_or_an_error(said: bytes) -> None:
    receiver, sender = Pipe(duplex=False)
    sender.send_bytes(said)
    with receiver, sender, pytest.raises(ValueError, match=r"child|utf"):
        told(receiver)


def test_a_job_that_takes_too_long_is_stopped(run: Path, tmp_path: Path) -> None:
    async def check() -> None:
        jobs = Jobs(tmp_path, replace(Limits(), job_seconds=0.7))
        job = submit(jobs, run, slow())
        await until(lambda: job.process is not None)
        process = job.process
        await until(lambda: job.status == "failed")
        assert job.problem is not None
        assert (job.problem.code, job.problem.status) == ("timeout", 503)
        assert "0.7 seconds" in job.problem.detail
        assert process is not None
        assert process.exitcode is not None
        assert list(job.folder.iterdir()) == []
        await jobs.close()
        assert list(tmp_path.iterdir()) == []

    asyncio.run(check())


def test_results_expire_and_the_oldest_make_room(run: Path, tmp_path: Path) -> None:
    async def check() -> None:
        jobs = Jobs(tmp_path, replace(Limits(), kept_seconds=4.0, jobs_kept=1))
        first, second = (submit(jobs, run, png(region())) for _ in range(2))
        assert jobs.position(second) in (0, 1)
        await until(lambda: second.ended is not None)
        await until(lambda: not first.folder.exists())  # only one is kept
        assert first.summary is not None
        with pytest.raises(ApiError, match="expired"):
            jobs.get(first.id)
        assert (jobs.get(second.id).results / "summary.json").is_file()
        await until(lambda: not second.folder.exists())
        with pytest.raises(ApiError, match="expired"):
            jobs.get(second.id)
        await jobs.close()

    asyncio.run(check())

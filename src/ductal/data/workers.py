"""Map a function over jobs in worker processes: in order, in bounded memory, and gone on Ctrl-C."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import ModuleType
from typing import TypeVar

from ductal.errors import DataError

Job = TypeVar("Job")
Result = TypeVar("Result")

# Jobs under way per worker: one being done, one waiting, so that no worker idles and memory stays small.
_WINDOW = 2


def ordered_map(
    function: Callable[[Job], Result], jobs: Iterable[Job], workers: int
) -> Generator[Result, None, None]:
    """Yield ``function(job)`` for each job, in the order of the jobs.

    With one worker everything runs in this process. Otherwise processes are spawned, never forked:
    a fork of a process that has loaded TensorFlow can hang. Close the generator (or leave it by an
    exception, Ctrl-C included) and the workers end.

    Raises:
        DataError: a worker process died, for instance for want of memory.
    """
    if workers <= 1:
        yield from map(function, jobs)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), start_worker)
    pending: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            with main_left_out():
                pending.append(pool.submit(function, job))
            if len(pending) >= _WINDOW * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(
            "A worker process ended unexpectedly, most often for want of memory. Nothing was written. "
            "Close other programs, or use one worker, and run it again."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def main_left_out() -> Iterator[None]:
    """Keep spawned workers from importing the caller's script again.

    They do not need it, it may import TensorFlow, and a script without an
    ``if __name__ == "__main__"`` guard would start itself over in each worker.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def start_worker() -> None:
    """Leave Ctrl-C to the parent, which ends the workers; and do not outlive a parent that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

"""Two pieces of work in turn, a moment each, so that both meet the same fast and slow minutes of a machine.

The processor of a virtual machine can lose half its speed for minutes when its neighbours are busy. Two trainings
one after the other then differ by what the neighbours did. Here each runs in a process of its own, one of which is
always stopped (SIGSTOP); `time.perf_counter` of a process stands still while it is stopped.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

Work = tuple[Callable[..., Any], tuple[Any, ...]]


def _keep_own_time(stopped: Any) -> None:
    """In the process: its clock leaves out the seconds in which it was stopped."""
    running_on = time.perf_counter
    time.perf_counter = lambda: running_on() - stopped.value


def in_turn(works: Sequence[Work], turns: Sequence[float]) -> tuple[list[Any], list[float]]:
    """Run each function in its own process, in turns of so many seconds, until all have ended.

    Returns:
        What they returned, and of each the share of its time in which another was still in turn with it.
    """
    alone = multiprocessing.get_context("spawn")
    with ExitStack() as opened:
        clocks = [alone.Value("d", 0.0, lock=False) for _ in works]  # a lock could be held by a stopped process
        pools = [opened.enter_context(alone.Pool(1, _keep_own_time, (clock,))) for clock in clocks]
        pids = [pool.apply(os.getpid) for pool in pools]
        since = [time.perf_counter()] * len(works)
        for pid in pids:
            opened.callback(os.kill, pid, signal.SIGCONT)  # stopped processes do not hear that they shall end
            os.kill(pid, signal.SIGSTOP)
        answers = [pool.apply_async(*work) for pool, work in zip(pools, works, strict=True)]
        ran, shared = [0.0] * len(works), [0.0] * len(works)
        while left := [at for at, answer in enumerate(answers) if not answer.ready()]:
            for at in left:
                began = time.perf_counter()
                clocks[at].value += began - since[at]
                os.kill(pids[at], signal.SIGCONT)
                answers[at].wait(turns[at])
                os.kill(pids[at], signal.SIGSTOP)
                since[at] = time.perf_counter()
                ran[at] += since[at] - began
                shared[at] += (since[at] - began) * (len(left) > 1)
        return [answer.get() for answer in answers], [part / whole for part, whole in zip(shared, ran, strict=True)]

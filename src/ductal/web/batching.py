"""Micro-batching: patches of requests that come at the same time go through the network together.

A network on a CPU does 16 patches in far less than 16 times the time of one. A thread for each stream of the engine
takes what is waiting, waits a moment for more where there is less than a batch, and answers all of it at once. No
stream waits for another, and under load none waits at all: the next batch gathers while this one is computed.

Batches have one of a few sizes (`sizes_up_to`), since an engine keeps memory, 8 MB for a DenseNet121, and spends time
for each size that it meets. What is over waits for the next batch, which begins at once.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ductal.inference.predictor import Predictor
from ductal.web.problems import ApiError

log = logging.getLogger("ductal.web")
Codes = list[str]  # of the rules that find a patch unlike what the model knows


class Found(NamedTuple):
    """Probabilities of IDC, float32 (n,), or (n, 8) with views, and what the rules say of each patch."""

    probs: np.ndarray
    codes: list[Codes]


@dataclass(eq=False)
class _Request:
    patches: np.ndarray  # uint8 (n, 50, 50, 3)
    views: bool
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Found]
    probs: np.ndarray = field(init=False)
    codes: list[Codes] = field(init=False)
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = len(self.patches)
        self.probs = np.empty((self.left, 8) if self.views else self.left, np.float32)
        self.codes = [[] for _ in range(self.left)]


class _Entry(NamedTuple):
    """One patch of a request."""

    request: _Request
    number: int


class Batcher:
    """The one way from requests to the predictor.

    Args:
        predictor: of the run; only this object's threads use it.
        rules: what to say of uint8 patches (n, 50, 50, 3) besides their probability.
        batch: patches that each stream is given at once.
        wait_seconds: longest time that a lone patch waits for others.
        waiting: patches that may wait; beyond it requests are refused.
        streams: batches that the predictor's engine computes side by side.
    """

    def __init__(
        self, predictor: Predictor, rules: Callable[[np.ndarray], list[Codes]], *, batch: int, wait_seconds: float,
        waiting: int, streams: int = 1,
    ) -> None:  # fmt: skip
        self._predictor, self._rules, self._wait, self._limit = predictor, rules, wait_seconds, waiting
        self.sizes = sizes_up_to(batch)
        self._queue: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._waiting = 0  # patches; touched by the event loop only
        self._turn = threading.Lock()  # of the one thread that gathers, and for the next three
        self._ready: deque[_Entry] = deque()  # out of the queue, and not in a batch
        self._busy = [False] * streams
        self._ended = False
        self._threads = [
            threading.Thread(target=self._work, args=(number,), name=f"network {number}", daemon=True)
            for number in range(streams)
        ]
        for thread in self._threads:
            thread.start()

    async def predict(self, patches: np.ndarray, *, views: bool = False) -> Found:
        """What the predictor and the rules say.

        Args:
            patches: uint8 (n, 50, 50, 3), n at least 1.
            views: of the 8 rotations and flips: see `Predictor.predict_views`.

        Raises:
            ApiError: "busy" where too much is waiting.
        """
        count = len(patches)
        if self._waiting + count > self._limit:
            raise ApiError(
                "busy", f"{self._waiting:,} patches are waiting, and the server takes {self._limit:,}. Try again "
                "in a second, or send fewer at a time.", {"Retry-After": "1"},
            )  # fmt: skip
        loop = asyncio.get_running_loop()
        request = _Request(patches, views, loop, loop.create_future())
        self._waiting += count
        try:
            for number in range(count):
                self._queue.put(_Entry(request, number))
            return await request.answer
        finally:
            self._waiting -= count

    def close(self) -> None:
        """Answer what is waiting, and end the threads."""
        self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self, number: int) -> None:
        while True:
            with self._turn:
                entries = self._take()
                self._busy[number] = True
            if not entries:
                return
            self._answer(entries)
            self._busy[number] = False

    def _take(self) -> list[_Entry]:
        """The next batch, of patches that are asked for in the same way; none at the end."""
        while True:
            self._gather()
            self._ready = deque(entry for entry in self._ready if not entry.request.answer.cancelled())
            if self._ready:
                break
            if self._ended:
                return []
        views = self._ready[0].request.views
        alike = sum(entry.request.views == views for entry in self._ready)
        wanted = -(-alike // self._busy.count(False))  # the others that are idle get theirs
        size = max(size for size in self.sizes if size <= wanted)
        chosen: list[_Entry] = []
        rest: deque[_Entry] = deque()
        for entry in self._ready:
            (chosen if entry.request.views == views and len(chosen) < size else rest).append(entry)
        self._ready = rest
        return chosen

    def _gather(self) -> None:
        """Wait for something, then for a moment for more; what was left over has waited already."""
        deadline = 0.0 if self._ready else None
        most = self.sizes[-1] * self._busy.count(False)
        while not self._ended and len(self._ready) < most:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                entry = self._queue.get(timeout=left) if left != 0 else self._queue.get_nowait()
            except queue.Empty:
                return
            if entry is None:
                self._ended = True
                return
            self._ready.append(entry)
            deadline = time.monotonic() + self._wait if deadline is None else deadline

    def _answer(self, entries: list[_Entry]) -> None:
        outcome: Found | Exception
        try:
            outcome = self._found(entries)
        except Exception as error:  # whatever the engine raises must reach those who wait, and not end the thread
            log.exception("a batch of %d patches failed", len(entries))
            outcome = error
        with suppress(RuntimeError):  # the event loop has ended, so that nobody waits
            entries[0].request.loop.call_soon_threadsafe(_tell, entries, outcome)

    def _found(self, entries: list[_Entry]) -> Found:
        patches = np.stack([request.patches[number] for request, number in entries])
        predict = self._predictor.predict_views if entries[0].request.views else self._predictor.predict
        return Found(predict(patches, batch_size=len(patches)), self._rules(patches))


def _tell(entries: list[_Entry], outcome: Found | Exception) -> None:
    """In the event loop: give the requests their answers, where they are complete and somebody still waits."""
    for at, (request, number) in enumerate(entries):
        if request.answer.done():
            continue
        if isinstance(outcome, Exception):
            request.answer.set_exception(outcome)
            continue
        request.probs[number], request.codes[number] = outcome.probs[at], outcome.codes[at]
        request.left -= 1
        if request.left == 0:
            request.answer.set_result(Found(request.probs, request.codes))


def sizes_up_to(largest: int) -> list[int]:
    """Sizes of batches: 1, 2, 3, 4, 6, 8, 12, 16, 24 and so on, and the largest."""
    doubled = [1 << power for power in range(largest.bit_length())]
    return sorted({size for one in doubled for size in (one, one * 3 // 2) if size < largest} | {largest})

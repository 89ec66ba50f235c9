"""Micro-batching: patches of requests that come at the same time go through the network together.

A network on a CPU does 64 patches in far less than 64 times the time of one. One thread takes what is waiting, waits
a moment for more where there is less than a batch, and answers all of it at once. The first patch never waits longer
than that moment, and under load there is nothing to wait for: the next batch gathers while this one is computed.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from dataclasses import dataclass

import numpy as np

from ductal.inference.predictor import Predictor
from ductal.web.problems import ApiError

log = logging.getLogger("ductal.web")


@dataclass(frozen=True)
class _Item:
    patches: np.ndarray  # uint8 (n, 50, 50, 3)
    views: bool
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[np.ndarray]


class Batcher:
    """The one way from requests to the predictor.

    Args:
        predictor: of the run; only this object's thread uses it.
        batch: patches that are given to the network at once.
        wait_seconds: longest time that a lone patch waits for others.
        waiting: patches that may wait; beyond it requests are refused.
        streams: parts into which a batch is cut, so that an engine that runs several at a time is busy.
    """

    def __init__(
        self, predictor: Predictor, *, batch: int, wait_seconds: float, waiting: int, streams: int = 1
    ) -> None:
        self._predictor, self._batch, self._wait, self._limit = predictor, batch, wait_seconds, waiting
        self._streams = streams
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._waiting = 0  # patches; touched by the event loop only
        self._thread = threading.Thread(target=self._work, name="network", daemon=True)
        self._thread.start()

    async def predict(self, patches: np.ndarray, *, views: bool = False) -> np.ndarray:
        """Probabilities of IDC, float32 (n,), or (n, 8) with `views`: see `Predictor.predict_views`.

        Args:
            patches: uint8 (n, 50, 50, 3).
            views: of the 8 rotations and flips.

        Raises:
            ApiError: "busy" where too much is waiting.
        """
        if self._waiting + len(patches) > self._limit:
            raise ApiError(
                "busy", f"{self._waiting:,} patches are waiting, and the server takes {self._limit:,}. Try again "
                "in a second, or send fewer at a time.", {"Retry-After": "1"},
            )  # fmt: skip
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[np.ndarray] = loop.create_future()
        self._waiting += len(patches)
        try:
            self._queue.put(_Item(patches, views, loop, answer))
            return await answer
        finally:
            self._waiting -= len(patches)

    def close(self) -> None:
        """Answer what is waiting, and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            items, last = self._gather(item)
            for views in (False, True):
                group = [one for one in items if one.views == views and not one.answer.cancelled()]
                if group:
                    self._answer(group, views)
            if last:
                return

    def _gather(self, first: _Item) -> tuple[list[_Item], bool]:
        """Up to a batch of what is waiting, and whether the end is among it."""
        items, count = [first], len(first.patches)
        deadline = time.monotonic() + self._wait
        while count < self._batch:
            try:
                left = deadline - time.monotonic()
                item = self._queue.get(timeout=left) if left > 0 else self._queue.get_nowait()
            except queue.Empty:
                break
            if item is None:
                return items, True
            items.append(item)
            count += len(item.patches)
        return items, False

    def _answer(self, items: list[_Item], views: bool) -> None:
        try:
            patches = np.concatenate([item.patches for item in items])
            size = -(-len(patches) // self._streams)
            if views:
                found = self._predictor.predict_views(patches, batch_size=size)
            else:
                found = self._predictor.predict(patches, batch_size=size)
        except Exception as error:  # whatever the engine raises must reach those who wait, and not end the thread
            log.exception("a batch of %d requests failed", len(items))
            for item in items:
                _tell(item, error)
            return
        start = 0
        for item in items:
            _tell(item, found[start : start + len(item.patches)])
            start += len(item.patches)


def _tell(item: _Item, outcome: np.ndarray | Exception) -> None:
    def tell() -> None:
        if item.answer.done():  # its client has left
            return
        if isinstance(outcome, Exception):
            item.answer.set_exception(outcome)
        else:
            item.answer.set_result(outcome)

    item.loop.call_soon_threadsafe(tell)

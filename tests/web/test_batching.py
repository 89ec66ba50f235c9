"""Micro-batching: each gets its own answer, batches are shared and bounded, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest

from ductal.errors import RunError
from ductal.web.batching import Batcher, sizes_up_to
from ductal.web.problems import ApiError


class Counting:
    """Stands for a predictor: says how bright a patch is, and remembers how it was asked."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.sizes: list[int] = []
        self.seconds = seconds
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def predict(self, patches: np.ndarray, *, batch_size: int) -> np.ndarray:
        with self._lock:
            self.sizes.append(len(patches))
            assert batch_size == len(patches)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(self.seconds)
        with self._lock:
            self.at_once -= 1
        if (patches == 255).all(axis=(1, 2, 3)).any():
            raise RunError("the engine broke")
        return patches.mean(axis=(1, 2, 3)).astype(np.float32) / 255

    def predict_views(self, patches: np.ndarray, *, batch_size: int) -> np.ndarray:
        return np.repeat(self.predict(patches, batch_size=batch_size)[:, None], 8, axis=1)


def rules(patches: np.ndarray) -> list[list[str]]:
    return [["dark"] if patch.mean() < 20 else [] for patch in patches]


def patches(*values: int) -> np.ndarray:
    return np.stack([np.full((50, 50, 3), value, np.uint8) for value in values])


def batcher(predictor: Counting, **settings: float) -> Batcher:
    chosen = {"batch": 8, "wait_seconds": 0.0, "waiting": 1000, "streams": 2} | settings
    return Batcher(predictor, rules, **chosen)  # type: ignore[arg-type]


def ask(queue: Batcher, *values: int, views: bool = False) -> np.ndarray:
    return asyncio.run(queue.predict(patches(*values), views=views)).probs


@pytest.mark.parametrize("streams", [1, 2, 3])
def test_each_gets_its_own_answer_and_batches_are_shared(streams: int) -> None:
    predictor = Counting(0.01)
    queue = batcher(predictor, streams=streams)

    async def one(value: int) -> float:
        found = await queue.predict(patches(value), views=value % 3 == 0)
        assert found.probs.shape == ((1, 8) if value % 3 == 0 else (1,))
        assert found.codes == [["dark"] if value < 20 else []]
        return float(found.probs.ravel()[0])

    async def all_of_them() -> list[float]:
        return await asyncio.gather(*(one(value) for value in range(100)))

    np.testing.assert_allclose(asyncio.run(all_of_them()), np.arange(100) / 255, atol=1e-6)
    queue.close()
    assert sum(predictor.sizes) == 100
    assert len(predictor.sizes) < 50
    assert set(predictor.sizes) <= set(queue.sizes)
    assert queue.sizes[-1] == 8  # of each stream, however many there are
    assert predictor.most_at_once == streams


def test_many_patches_of_one_request_are_divided_and_put_together_again() -> None:
    predictor = Counting(0.01)
    queue = batcher(predictor)
    np.testing.assert_allclose(ask(queue, *range(53)), np.arange(53) / 255, atol=1e-6)
    np.testing.assert_allclose(ask(queue, *range(21), views=True)[:, 7], np.arange(21) / 255, atol=1e-6)
    queue.close()
    assert predictor.most_at_once == 2
    assert set(predictor.sizes) <= {1, 2, 3, 4, 6, 8}


@pytest.mark.parametrize(("largest", "sizes"), [(1, [1]), (2, [1, 2]), (8, [1, 2, 3, 4, 6, 8]), (5, [1, 2, 3, 4, 5])])
def test_sizes(largest: int, sizes: list[int]) -> None:
    assert sizes_up_to(largest) == sizes


def test_a_lone_patch_waits_no_longer_than_it_must() -> None:
    queue = batcher(Counting(), wait_seconds=0.05)
    took = []
    for value in range(5):
        started = time.monotonic()
        ask(queue, value)
        took.append(time.monotonic() - started)
    assert 0.04 < min(took) < 0.5  # of five, since waking up takes a while where other processes have the cores
    queue.close()


def test_a_full_batch_does_not_wait() -> None:
    queue = batcher(Counting(), wait_seconds=30.0)
    started = time.monotonic()
    ask(queue, *range(16))
    assert time.monotonic() - started < 15
    queue.close()


def test_too_much_is_refused_and_room_comes_back() -> None:
    queue = batcher(Counting(0.05), waiting=20)

    async def three() -> list[object]:
        asked = [queue.predict(patches(*range(10))) for _ in range(3)]
        return await asyncio.gather(*asked, return_exceptions=True)

    outcomes = asyncio.run(three())
    refused = [one for one in outcomes if isinstance(one, ApiError)]
    assert [one.code for one in refused] == ["busy"]
    assert (refused[0].headers or {})["Retry-After"]
    assert len(ask(queue, 1)) == 1
    queue.close()


def test_an_error_reaches_those_of_its_batch_and_the_next_are_served() -> None:
    queue = batcher(Counting())
    with pytest.raises(RunError, match="broke"):
        ask(queue, 255)
    with pytest.raises(RunError, match="broke"):
        ask(queue, *range(30), 255)
    assert ask(queue, 51)[0] == pytest.approx(0.2)
    queue.close()


def test_a_client_that_leaves_does_not_matter() -> None:
    predictor = Counting(0.1)
    queue = batcher(predictor, streams=1)

    async def leave() -> float:
        first = asyncio.create_task(queue.predict(patches(1)))
        await asyncio.sleep(0.02)
        second = asyncio.create_task(queue.predict(patches(2)))
        await asyncio.sleep(0)
        first.cancel()
        second.cancel()
        return float((await queue.predict(patches(51))).probs[0])

    assert asyncio.run(leave()) == pytest.approx(0.2)
    assert predictor.sizes == [1, 1]  # the second was not computed
    queue.close()


def test_closing_answers_what_waits_and_ends_the_threads() -> None:
    queue = batcher(Counting(0.02), wait_seconds=0.05)

    async def ask_and_close() -> np.ndarray:
        asked = [asyncio.create_task(queue.predict(patches(value))) for value in range(40)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(queue.close))
        found = await asyncio.gather(*asked)
        await closing
        return np.concatenate([one.probs for one in found])

    np.testing.assert_allclose(asyncio.run(ask_and_close()), np.arange(40) / 255, atol=1e-6)
    assert not [thread for thread in queue._threads if thread.is_alive()]

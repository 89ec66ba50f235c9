"""Micro-batching: each gets its own answer, batches are shared and bounded, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest

from ductal.errors import RunError
from ductal.web.batching import Batcher
from ductal.web.problems import ApiError


class Counting:
    """Stands for a predictor: says how bright a patch is, and remembers how it was asked."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.sizes: list[int] = []
        self.parts: list[int] = []
        self.seconds = seconds

    def predict(self, patches: np.ndarray, *, batch_size: int) -> np.ndarray:
        self.sizes.append(len(patches))
        self.parts.append(batch_size)
        time.sleep(self.seconds)
        if (patches == 255).all(axis=(1, 2, 3)).any():
            raise RunError("the engine broke")
        return patches.mean(axis=(1, 2, 3)).astype(np.float32) / 255

    def predict_views(self, patches: np.ndarray, *, batch_size: int) -> np.ndarray:
        return np.repeat(self.predict(patches, batch_size=batch_size)[:, None], 8, axis=1)


def patches(*values: int) -> np.ndarray:
    return np.stack([np.full((50, 50, 3), value, np.uint8) for value in values])


def batcher(predictor: Counting, **settings: float) -> Batcher:
    chosen = {"batch": 16, "wait_seconds": 0.0, "waiting": 1000, "streams": 2} | settings
    return Batcher(predictor, **chosen)  # type: ignore[arg-type]


def test_each_gets_its_own_answer_and_batches_are_shared() -> None:
    predictor = Counting(0.01)
    queue = batcher(predictor)

    async def ask(value: int) -> float:
        found = await queue.predict(patches(value), views=value % 3 == 0)
        assert found.shape == ((1, 8) if value % 3 == 0 else (1,))
        return float(found.ravel()[0])

    async def all_of_them() -> list[float]:
        return await asyncio.gather(*(ask(value) for value in range(100)))

    np.testing.assert_allclose(asyncio.run(all_of_them()), np.arange(100) / 255, atol=1e-6)
    queue.close()
    assert sum(predictor.sizes) == 100
    assert len(predictor.sizes) < 20
    assert max(predictor.sizes) <= 16
    assert all(part == -(-size // 2) for part, size in zip(predictor.parts, predictor.sizes, strict=True))


def test_a_lone_patch_waits_no_longer_than_it_must() -> None:
    queue = batcher(Counting(), wait_seconds=0.05)
    started = time.monotonic()
    asyncio.run(queue.predict(patches(7)))
    assert 0.04 < time.monotonic() - started < 0.5
    queue.close()


def test_a_full_batch_does_not_wait() -> None:
    queue = batcher(Counting(), wait_seconds=5.0)
    started = time.monotonic()
    asyncio.run(queue.predict(patches(*range(16))))
    assert time.monotonic() - started < 2
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
    assert len(asyncio.run(queue.predict(patches(1)))) == 1
    queue.close()


def test_an_error_reaches_those_of_its_batch_and_the_next_are_served() -> None:
    queue = batcher(Counting())
    with pytest.raises(RunError, match="broke"):
        asyncio.run(queue.predict(patches(255)))
    assert asyncio.run(queue.predict(patches(51)))[0] == pytest.approx(0.2)
    queue.close()


def test_a_client_that_leaves_does_not_matter() -> None:
    queue = batcher(Counting(0.1))

    async def leave() -> float:
        first = asyncio.create_task(queue.predict(patches(1)))
        await asyncio.sleep(0.02)
        second = asyncio.create_task(queue.predict(patches(2)))
        await asyncio.sleep(0)
        first.cancel()
        second.cancel()
        return float((await queue.predict(patches(51)))[0])

    assert asyncio.run(leave()) == pytest.approx(0.2)
    queue.close()


def test_closing_answers_what_waits_and_ends_the_thread() -> None:
    queue = batcher(Counting(0.02), wait_seconds=1.0)

    async def ask_and_close() -> np.ndarray:
        asked = [asyncio.create_task(queue.predict(patches(value))) for value in range(40)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(queue.close))
        found = await asyncio.gather(*asked)
        await closing
        return np.concatenate(found)

    np.testing.assert_allclose(asyncio.run(ask_and_close()), np.arange(40) / 255, atol=1e-6)
    assert not [thread for thread in threading.enumerate() if thread.name == "network" and thread is queue._thread]

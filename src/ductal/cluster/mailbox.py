"""What workers tell the driver while they work, and what it answers."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any


def open_mailbox(ray: Any) -> Any:
    """A `Mailbox` on the driver's node, as a Ray actor: it lives and dies with the driver."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=here, max_concurrency=10_000).remote()


class Mailbox:
    """Of every task, told by a key: its words in their order, each of which waits for an answer."""

    def __init__(self) -> None:
        self._words: dict[str, asyncio.Queue[tuple[Any, ...] | None]] = defaultdict(asyncio.Queue)
        self._answers: dict[str, asyncio.Queue[bool]] = defaultdict(asyncio.Queue)

    async def say(self, key: str, *words: Any) -> bool:
        """By the task: tell, and get the answer."""
        await self._words[key].put(words)
        return await self._answers[key].get()

    async def hear(self, key: str) -> tuple[Any, ...] | None:
        """By the driver: the next words; None when the task is forgotten."""
        return await self._words[key].get()

    async def answer(self, key: str, go_on: bool) -> None:
        """By the driver: whether the task shall go on."""
        await self._answers[key].put(go_on)

    async def forget(self, key: str) -> None:
        """By the driver, when the task has ended."""
        await self._words.pop(key).put(None)
        self._answers.pop(key, None)

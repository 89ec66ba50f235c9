"""Tasks on a cluster until all have ended: those of a lost worker are repeated, and Ctrl-C ends all."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ductal.errors import ClusterError

ATTEMPTS = 4  # of a task whose worker is lost; then the task itself is to blame
BUSY_SECONDS = 900.0  # for which a task is tried again that another writer keeps from its work
PAUSE_SECONDS = 5.0  # before it is
_SECONDS_TO_END = 10.0
_GLANCE_SECONDS = 1.0  # Ctrl-C is seen between glances


@dataclass(frozen=True)
class Gone:
    """In place of a result: the worker ended at each attempt."""

    reason: str


def run_tasks(
    ray: Any,
    start: Callable[[int], Any],
    count: int,
    *,
    busy: Callable[[Any], bool] = lambda _: False,
    lost: Callable[[int], None] = lambda _: None,
) -> Generator[tuple[int, Any], None, None]:
    """Yield (number, result or `Gone`) of `count` tasks as they end; closing the generator cancels those left.

    Ray is not left to repeat tasks by itself, so that what was repeated can be told.

    Args:
        ray: the connected module.
        start: submits the task of a number, with `max_retries=0`; returns its reference.
        count: of tasks.
        busy: whether a result says that another writer kept the task from its work. It is tried again, which does
            not count as an attempt, until `BUSY_SECONDS` have gone by; then that result is its result.
        lost: told the number of a task that is started again because its worker was lost.

    Raises:
        ClusterError: Ray cannot run the tasks, or a task met something unforeseen.
    """
    waiting = {start(number): number for number in range(count)}
    losses: Counter[int] = Counter()
    busy_since: dict[int, float] = {}
    resting: dict[int, float] = {}  # number: when it is tried again
    try:
        while waiting or resting:
            for number in [number for number, end in resting.items() if end <= time.monotonic()]:
                del resting[number]
                waiting[start(number)] = number
            for reference in _ended(ray, list(waiting)):
                number = waiting.pop(reference)
                result, now = outcome_of(ray, reference), time.monotonic()
                if isinstance(result, Gone):
                    losses[number] += 1
                    if losses[number] < ATTEMPTS:
                        lost(number)
                        waiting[start(number)] = number
                        continue
                elif busy(result) and now - busy_since.setdefault(number, now) < BUSY_SECONDS:
                    resting[number] = now + PAUSE_SECONDS
                    continue
                yield number, result
    finally:
        cancel(ray, list(waiting))


def _ended(ray: Any, references: list[Any]) -> list[Any]:
    """Those that end within a glance."""
    if not references:
        time.sleep(_GLANCE_SECONDS)
        return []
    done: list[Any] = ray.wait(references, timeout=_GLANCE_SECONDS)[0]
    return done


def outcome_of(ray: Any, reference: Any) -> Any:
    """What a finished task returned, or `Gone` where its worker or node was lost. Raises ClusterError."""
    errors = ray.exceptions
    try:
        return ray.get(reference)
    except errors.NodeDiedError:
        return Gone("its node was lost")
    except errors.OutOfMemoryError:
        return Gone("Ray ended its process for want of memory")
    except (errors.WorkerCrashedError, errors.LocalRayletDiedError, errors.ObjectLostError):
        return Gone("its process ended, most often for want of memory")
    except errors.RayError as error:
        raise ClusterError(
            "A task on the cluster met something unforeseen. What was finished is kept. "
            f"Please report this text:\n{error}"
        ) from error


def cancel(ray: Any, references: list[Any]) -> None:
    """End tasks: those that wait at once, those that run by KeyboardInterrupt, for which a few seconds are allowed.

    What runs longer than that is killed when the driver leaves the cluster.
    """
    if not references:
        return
    for reference in references:
        with suppress(ray.exceptions.RayError):
            ray.cancel(reference)
    ray.wait(references, num_returns=len(references), timeout=_SECONDS_TO_END)

"""Live progress of a training: a bar where there is a terminal, plain lines (an epoch, half a minute) where not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ductal.console import SECONDS_A_LINE, say


class TrainingProgress:
    """What a trainer tells, shown on `console`. Use as a context manager.

    Args:
        name: the recipe.
        console: where to show it.
        on_epoch: called with the row of every finished epoch.
    """

    def __init__(
        self, name: str, console: Console, on_epoch: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        self.name, self.console, self._on_epoch = name, console, on_epoch
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task: TaskID | None = None
        self._what, self._total = "", 0
        self._started = self._last_line = 0.0
        self._batch_size = 1

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, what: str, total: int, batch_size: int = 1) -> None:
        """A new pass of `total` ticks, each of `batch_size` images."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(what, total=total, rate="")
        self._what, self._total, self._batch_size = what, total, batch_size
        self._started = self._last_line = time.perf_counter()

    def tick(self, done: int, loss: float | None = None) -> None:
        """`done` ticks of the pass are finished."""
        if self._task is None:
            return
        now = time.perf_counter()
        speed = done * self._batch_size / max(now - self._started, 1e-6)
        rate = f"{speed:.0f} images/s" + (f"  loss {loss:.3f}" if loss is not None else "")
        self._bar.update(self._task, completed=done, rate=rate)
        if not self.console.is_terminal and now - self._last_line >= SECONDS_A_LINE:
            self._last_line = now
            say(self.console, f"  {self._what}  {done:,}/{self._total:,}  {rate}")

    def passing(self, what: str) -> Callable[[int, int], None]:
        """A callback (done, total) that shows a pass of its own, begun when it is first called."""
        last = 0

        def report(done: int, total: int) -> None:
            nonlocal last
            if done <= last or last == 0:
                self.begin(what, total)
            last = done
            self.tick(done)

        return report

    def epoch(self, row: dict[str, Any], epochs: int) -> None:
        """A finished epoch, as a line that stays."""
        self.console.print(
            f"  {row['stage']:<12} epoch {row['epoch']}/{epochs}  loss {row['loss']:.3f}  "
            f"val AUC {row['val_auc']:.4f}  val bal.acc {row['val_balanced_accuracy']:.4f}  "
            f"{row['images_per_second']:.0f} images/s  {row['seconds']:.0f} s",
            highlight=False,
            soft_wrap=True,
        )
        if self._on_epoch:
            self._on_epoch(row)

    def note(self, text: str) -> None:
        """A line that stays."""
        say(self.console, f"  {text}")

    def warn(self, text: str) -> None:
        """A warning that stays."""
        self.console.print(f"  [yellow]Warning:[/] {escape(text)}", highlight=False, soft_wrap=True)

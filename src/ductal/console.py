"""The terminal: one kind of console and progress bar for all commands; plain lines where there is none."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from ductal.machine import thread_limit

_WIDTH_OF_A_LOG = 140
SECONDS_A_LINE = 30.0


def make_console() -> Console:
    """A console for standard output; wide enough for tables where that is a file or a pipe."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=_WIDTH_OF_A_LOG)
    return console


def say(console: Console, text: str) -> None:
    """Print `text` as it is: not wrapped, no markup (names of files may hold brackets), not coloured."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def bar(console: Console, what: str, unit: str = "patches") -> Iterator[Callable[[int, int | None], None]]:
    """Progress with rate and ETA; yields the callback (done, total).

    Without a terminal, a plain line every half a minute, so that a log shows life and a quick job
    leaves no lines.
    """
    if not console.is_terminal:
        yield _plain_lines(console, what, unit)
        return
    counts = (DownloadColumn(), TransferSpeedColumn()) if unit == "bytes" else (MofNCompleteColumn(), _Rate(unit))
    columns = (TextColumn("{task.description}"), BarColumn(), *counts, TextColumn("ETA"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _plain_lines(console: Console, what: str, unit: str) -> Callable[[int, int | None], None]:
    last = started = time.monotonic()

    def report(done: int, total: int | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SECONDS_A_LINE:
            last = now
            of_all = f" of {total:,}" if total else ""
            left = f", {(total - done) / done * (now - started):,.0f} s left" if total and done else ""
            say(console, f"{what}: {done:,}{of_all} {unit}, {done / (now - started):,.0f} a second{left}")

    return report


class _Rate(ProgressColumn):
    """Units a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """See rich."""
        return Text(f"{task.speed:,.0f} {self._unit}/s" if task.speed else "", style="progress.data.speed")


def quiet_tensorflow() -> None:
    """Import TensorFlow, with oneDNN, as many threads as are worth it, and its start-up messages off the terminal.

    Some of them are written straight to the file descriptor, before any setting is read. What goes wrong is
    also raised as an exception, which is not affected.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # TensorFlow's default on some CPUs only
    limit = thread_limit()
    if limit is not None:
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(limit))
        os.environ.setdefault("TF_NUM_INTEROP_THREADS", str(limit))
    terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import tensorflow as tf

        tf.config.list_physical_devices()  # looks for CUDA, and says so
        tf.get_logger().setLevel("ERROR")  # retracing, which each new stage means, is no news to a user
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(nowhere)

"""What a process would do that a hostile image has made its own; a module that the process can import."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ductal.web.job_child import Task


class Attack:
    """Unpickled, it makes a folder."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.mkdir, (self.canary,)


def taken_over(sender: Connection, task: Task) -> None:
    """In place of `analyse_in_child`: send what is in the image, or where it is empty, a pickled attack."""
    said = task.image.read_bytes()
    sender.send_bytes(said) if said else sender.send(Attack(task.image.parent.parent / "canary"))

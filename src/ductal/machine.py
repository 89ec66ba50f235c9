"""What this machine is, as far as speed depends on it; nothing here needs TensorFlow."""

from __future__ import annotations

import math
import os
import platform
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# Instructions that neural networks gain from, weakest first, by their names in /proc/cpuinfo; "bf16" is ARM's.
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "bf16")
THREADS = "DUCTAL_THREADS"  # in the environment: at most so many, here and in the processes started from here


@dataclass(frozen=True)
class Cpu:
    """A processor: its name, the cores this process may use, and which of `INSTRUCTIONS` it has."""

    name: str
    cores: int
    instructions: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}, {self.cores} cores ({', '.join(self.instructions) or 'no wide instructions'})"

    @property
    def has_bfloat16(self) -> bool:
        """Whether it multiplies matrices in bfloat16, and not only emulates that."""
        return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(self.instructions))


def cache_folder() -> Path:
    """What this user's commands keep between calls. Raises RuntimeError where the user has no home."""
    folder = os.environ.get("DUCTAL_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "ductal"
    return Path(folder).expanduser()


def cpu() -> Cpu:
    """This machine's processor. A name alone would not do: virtual machines hide instructions."""
    fields: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            fields[key.strip()] = value.strip()
    except OSError:  # not Linux
        pass
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    name = fields.get("model name") or platform.processor() or platform.machine()
    return Cpu(name, available_cores(), tuple(item for item in INSTRUCTIONS if item in flags))


def available_cores() -> int:
    """Cores this process may use, which on a shared machine or in a container are fewer than there are."""
    visible = visible_cores()
    return min(visible, thread_limit() or visible)


def visible_cores() -> int:
    """Cores that libraries count, and make as many threads for."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_limit() -> int | None:
    """How many threads this process's share of processor time is good for; None where there is no such limit.

    Libraries count the cores that they see: in a container that may use two of 64, 64 threads wait for each other.
    A process that shares the machine with others of its kind has its share in `DUCTAL_THREADS`.
    """
    limits = []
    with suppress(KeyError, ValueError):
        limits.append(max(1, int(os.environ[THREADS])))
    with suppress(OSError, ValueError):  # no such file, or "max"
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        limits.append(max(1, math.ceil(int(quota) / int(period))))
    return min(limits, default=None)


def memory_bytes() -> int | None:
    """Main memory this process may use (a container's limit counts), or None where the system does not tell."""
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no such file, or "max"
        return physical
    return min(physical, limit)

"""A short run of `benchmarks/fuzz.py`: no damaged file crashes, hangs, fills the memory, or ends in a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
INPUTS = 180


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured by Linux's /proc")
def test_damaged_files_are_read_or_refused() -> None:
    pytest.importorskip("tifffile")
    command = [sys.executable, BENCHMARKS / "fuzz.py", "--inputs", INPUTS, "--seed", 2]
    ended = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300, env=os.environ)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    all_of_them = ended.stdout.splitlines()[-2].split("|")
    assert int(all_of_them[2]) == INPUTS
    assert int(all_of_them[3]) > 30  # some survive, or nothing behind the first check was tried
    assert int(all_of_them[4]) > 100

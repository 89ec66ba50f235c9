"""Benchmarks that run two things in turn: each has its own time, and an error of one stops neither."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
WORK = """
import json, time
from in_turn import in_turn

def busy(seconds):
    began, used = time.perf_counter(), time.process_time()
    while time.process_time() - used < seconds:
        pass
    return time.perf_counter() - began

if __name__ == "__main__":
    began = time.perf_counter()
    took, shares = in_turn([(busy, (1.0,)), (busy, (0.5,))], [0.1, 0.1])
    wall = time.perf_counter() - began
    try:
        in_turn([(busy, ("long",)), (busy, (0.1,))], [0.1, 0.1])
        told = ""
    except TypeError as error:
        told = str(error)
    print(json.dumps({"took": took, "shares": shares, "wall": wall, "told": told}))
"""


def test_each_has_its_own_time_and_errors_come_through(tmp_path: Path) -> None:
    script = tmp_path / "work.py"
    script.write_text(WORK, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(BENCHMARKS)}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["took"][0] > 1.0
    assert found["took"][1] > 0.5
    assert sum(found["took"]) < found["wall"]  # more if they ran at once or their clocks went on
    assert 0 < found["shares"][0] < found["shares"][1] == 1
    assert "str" in found["told"]

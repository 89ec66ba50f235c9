"""Lets the tests of this folder import `small_training`, `killed_training` and `run_digest`."""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "training"), str(TESTS / "reliability"), str(TESTS.parent / "benchmarks")]

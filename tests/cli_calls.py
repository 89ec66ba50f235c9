"""The command, with and without a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

from typer.testing import CliRunner

from ductal.cli import app

DUCTAL = (sys.executable, "-m", "ductal")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def ductal(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DUCTAL, *map(str, arguments)], env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )


def invoke(*arguments: object) -> tuple[int, str]:
    """Exit code and all output, without a process of its own."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output

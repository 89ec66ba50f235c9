"""Damaged files for every reader: how many are read, refused with a typed error, or do harm.

    python benchmarks/fuzz.py [--inputs N] [--seed S] [--readers archive,image,...] [--seconds 20] [--memory-mb 2048]

Each input is an honest file with changes drawn from (seed, number), so that it can be made again. It is read in a
process of its own kind, which may not take more than the memory named beyond what the libraries need (the system
refuses it), nor longer than the seconds named (it is killed). Prints a table and what went wrong, and ends with exit
code 1 when an input was not read or refused but ended in another exception, a crash, a hang or a want of memory.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

OUTCOMES = ("read", "refused", "untyped", "crash", "hang", "memory")
GOOD = {"read", "refused"}
LARGEST_GROWTH_MB = 1024  # of resident memory by one input
FRESH_AFTER = 2000  # inputs


def status_mb(field: str) -> float:
    """A figure of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


class Worker:
    """A process that reads inputs one after another; replaced when one of them ends it."""

    def __init__(self, arguments: argparse.Namespace, seeds: Path) -> None:
        self._command = [
            sys.executable, __file__, "--seeds-folder", str(seeds), "--seed", str(arguments.seed),
            "--memory-mb", str(arguments.memory_mb), "--readers", arguments.readers, "--work",
        ]  # fmt: skip
        self._seconds = arguments.seconds
        self._process: subprocess.Popen[str] | None = None

    def outcome(self, reader: str, number: int) -> tuple[str, str]:
        """What became of one input, and details."""
        if number % FRESH_AFTER == 0:  # what libraries keep of earlier inputs must not count as this one's
            self.end()
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{reader} {number}\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], self._seconds)[0]:
            self.end()
            return "hang", f"over {self._seconds} s"
        answer = process.stdout.readline()
        if not answer:
            code = process.wait()
            self._process = None
            return "crash", signal.Signals(-code).name if code < 0 else f"exit code {code}"
        kind, _, detail = answer.rstrip("\n").partition(" ")
        return kind, detail

    def _start(self) -> subprocess.Popen[str]:
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=environment,
        )  # fmt: skip
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise SystemExit("The worker did not start: run it with --work to see why.")
        return self._process

    def end(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def work(arguments: argparse.Namespace) -> None:
    """The worker: reads lines of (reader, number), and answers each with a line."""
    # What libraries print must not be taken for answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    from fuzz_readers import READERS

    for name in arguments.readers.split(","):  # the libraries are loaded by honest files, before memory is limited
        for file in sorted((arguments.seeds_folder / name).rglob("*"))[:1]:
            one_input(arguments, READERS, name, None, file)
    limit = int(status_mb("VmSize") + arguments.memory_mb) << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    print("ready", file=answers)
    for line in sys.stdin:
        reader, number = line.split()
        print(*one_input(arguments, READERS, reader, int(number)), file=answers)


def one_input(
    arguments: argparse.Namespace, readers: dict[str, Any], reader: str, number: int | None, only: Path | None = None
) -> tuple[str, str]:
    """Make an input, read it, and say what came of it; number None is the honest file `only`."""
    from fuzz_damage import damage

    from ductal.errors import DuctalError

    honest = arguments.seeds_folder / reader
    with tempfile.TemporaryDirectory(dir=arguments.seeds_folder.parent) as scratch:
        folder = Path(shutil.copytree(honest, Path(scratch) / "input"))
        rng = random.Random(f"{arguments.seed} {reader} {number}")
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        name = only.relative_to(honest).as_posix() if only and only.is_file() else rng.choice(files)
        if number is not None:
            damage(folder / name, rng)
        Path("/proc/self/clear_refs").write_text("5")  # the peak of resident memory begins anew
        before = status_mb("VmRSS")
        try:
            readers[reader](folder, name)
            kind, detail = "read", ""
        except DuctalError:
            kind, detail = "refused", ""
        except MemoryError:
            kind, detail = "memory", f"{name}: asked for more than allowed"
        except BaseException as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{name}: {error!r}"[:200].replace("\n", " ")
            kind, detail = "untyped", f"{said} at {where.name}:{where.lineno}"
        grown = status_mb("VmHWM") - before
    if grown > LARGEST_GROWTH_MB:
        return "memory", f"{name}: {grown:.0f} MB"
    return kind, f"{grown:.0f} {detail}"


def main() -> None:
    """See the module."""
    from fuzz_readers import READERS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1000, help="in all, spread over the readers")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--readers", help="names with commas; all by default", default=",".join(READERS))
    parser.add_argument("--seconds", type=float, default=20.0, help="an input may take")
    parser.add_argument("--memory-mb", type=int, default=2048, help="an input may take")
    parser.add_argument("--seeds-folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments)
        return
    from fuzz_inputs import make_seeds

    readers = arguments.readers.split(",")
    if set(readers) - set(READERS):
        parser.error(f"readers are {', '.join(READERS)}")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        seeds = Path(scratch) / "seeds"
        make_seeds(seeds)
        found, bad = run(arguments, readers, Worker(arguments, seeds))
    print(table(found))
    seconds = time.monotonic() - started
    print(f"{arguments.inputs:,} inputs, seed {arguments.seed}, {len(bad)} bad, {seconds:.0f} s")
    raise SystemExit(1 if bad else 0)


def run(
    arguments: argparse.Namespace, readers: list[str], worker: Worker
) -> tuple[dict[str, tuple[Counter[str], float]], list[str]]:
    """Outcomes and largest growth of memory by reader, and a line for each bad input."""
    counts = {reader: Counter[str]() for reader in readers}
    growth = dict.fromkeys(readers, 0.0)
    bad: list[str] = []
    try:
        for number in range(arguments.inputs):
            reader = readers[number % len(readers)]
            kind, detail = worker.outcome(reader, number)
            counts[reader][kind] += 1
            if kind in GOOD:
                growth[reader] = max(growth[reader], float(detail.split(" ")[0]))
            else:
                bad.append(f"{reader} {number}: {kind} {detail}")
                print(bad[-1], flush=True)
    finally:
        worker.end()
    return {reader: (counts[reader], growth[reader]) for reader in readers}, bad


def table(found: dict[str, tuple[Counter[str], float]]) -> str:
    """Markdown."""
    lines = [
        "| reader | inputs | " + " | ".join(OUTCOMES) + " | largest growth, MB |",
        "|---|" + "---:|" * (len(OUTCOMES) + 2),
    ]
    total: Counter[str] = Counter()
    for reader, (counts, growth) in found.items():
        total += counts
        cells = [str(counts[outcome]) for outcome in OUTCOMES]
        lines.append(f"| {reader} | {counts.total()} | {' | '.join(cells)} | {growth:.0f} |")
    cells = [str(total[outcome]) for outcome in OUTCOMES]
    peak = max(growth for _, growth in found.values())
    return "\n".join([*lines, f"| all | {total.total()} | {' | '.join(cells)} | {peak:.0f} |"])


if __name__ == "__main__":
    main()

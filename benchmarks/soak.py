"""Kills commands at random moments, runs each again, and compares with the one that was left alone.

    python benchmarks/soak.py [--kills 50] [--only NAME ...] [--jobs 2] [--seed S] [--record FILE] [--work FOLDER]

Of each operation in `soak_operations.OPERATIONS` one command runs undisturbed first: its time and the digest of its
result are the reference. Then, in turn, the same command is started on an empty folder, killed with SIGKILL after a
random share (5 to 100 %) of that time, half of the time with all its processes at once (power), half of the time the
main process alone (an out-of-memory killer), and started again until its end. Counted are

- identical: the second call ended well and its result is the reference, bit for bit where training is concerned;
- visible: a result that was visible after the kill and was neither complete nor the reference (must be 0);
- left: temporary files, checkpoints or locks that are there after the second call (must be 0);
- in_time: kills that met the command alive; one that had been quicker than the reference is begun again, and killed
  sooner;
- continued: trainings that went on from a checkpoint.

Data and commands are small, and --jobs of them run at a time, since most of each is the start of Python and
TensorFlow, on one core. Prints JSON, writes it also to --record, and ends with exit code 1 when anything is not as it
must be. The random moments follow from --seed and the machine's speed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from soak_operations import OPERATIONS, make_inputs

ATTEMPTS, SOONER = 4, 0.7  # to kill a command before it has ended; each at this share of the time before
COUNTS = ("kills", "in_time", "identical", "visible", "left", "continued")


class Kill(NamedTuple):
    """One of the kills, decided beforehand, so that the order in which they come about does not matter."""

    number: int
    name: str
    share: float  # of the undisturbed command's time
    everything: bool  # all of its processes, or the first alone


class Soak:
    """The inputs, the references, and the counts."""

    def __init__(self, work: Path, limit: float) -> None:
        self.work, self.limit = work, limit
        self.environment = os.environ | {"DUCTAL_CACHE": str(work / "cache"), "PYTHONWARNINGS": "ignore"}
        self.inputs = work / "inputs"
        self.inputs.mkdir(parents=True)
        make_inputs(self.inputs, self.environment)
        self.references: dict[str, tuple[float, dict[str, str]]] = {}
        self.counts: dict[str, Counter[str]] = {}
        self.faults: list[str] = []
        self._lock = threading.Lock()

    def start(self, name: str, out: Path) -> subprocess.Popen[str]:
        """The command of an operation, in a process group of its own."""
        line = [sys.executable, "-m", "ductal", *OPERATIONS[name].arguments(self.inputs, out)]
        return subprocess.Popen(
            line, env=self.environment, start_new_session=True, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def finish(self, name: str, out: Path) -> tuple[int, str]:
        """Exit code and output of the command."""
        process = self.start(name, out)
        try:
            told, _ = process.communicate(timeout=self.limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            told, _ = process.communicate()
            told += f"\nNo end within {self.limit:.0f} s."
        return process.returncode, told

    def measure(self, name: str) -> None:
        """Seconds and digest of the undisturbed command: of its second call, which finds caches as the killed do."""
        found = []
        for call in ("first", "second"):
            out = self.work / f"{name} undisturbed, {call}"
            started = time.monotonic()
            code, told = self.finish(name, out)
            if code:
                raise SystemExit(f"{name} failed without any kill:\n{told}")
            found.append((time.monotonic() - started, OPERATIONS[name].digest(out / OPERATIONS[name].result)))
        if found[0][1] != found[1][1]:
            raise SystemExit(f"{name} gives other results without any kill.")
        self.references[name] = found[1]

    def killed(self, kill: Kill) -> tuple[Path, float, bool]:
        """A command that was killed: its folder, the second, and whether it was alive then.

        Where it was not, another one begins, and dies sooner.
        """
        seconds = self.references[kill.name][0]
        for attempt in range(ATTEMPTS):
            out = self.work / f"{kill.name} {kill.number}.{attempt}"
            out.mkdir()
            moment = kill.share * seconds * SOONER**attempt
            process = self.start(kill.name, out)
            time.sleep(moment)
            in_time = process.poll() is None
            _kill(process, kill.everything)
            if in_time:
                break
        return out, moment, in_time

    def kill_once(self, kill: Kill) -> None:
        """One kill, one second call, one comparison."""
        name, expected = kill.name, self.references[kill.name][1]
        out, moment, in_time = self.killed(kill)
        found, faults = Counter(kills=1, in_time=int(in_time)), []
        when = f"{name} {kill.number}: killed at {moment:.1f} s"
        result = out / OPERATIONS[name].result
        there = result.exists()
        if there and self._digest(name, result) != expected:
            found["visible"] = 1
            faults.append(f"{when}, the result is visible and not whole")
        code, told = self.finish(name, out)
        complete_before = there and "already there" in told  # an export is not made twice
        found["continued"] = int("continues " in told)
        if (code == 0 or complete_before) and self._digest(name, result) == expected:
            found["identical"] = 1
        else:
            faults.append(f"{when}, then exit code {code}: {told[-1500:]}")
        left = [path for path in out.rglob(".*") if not path.name.startswith(".ductal")]
        if left:
            found["left"] = 1
            faults.append(f"{when}, left {', '.join(str(path.relative_to(out)) for path in left)}")
        with self._lock:
            self.counts.setdefault(name, Counter(dict.fromkeys(COUNTS, 0))).update(found)
            self.faults += faults
            done = sum(count["kills"] for count in self.counts.values())
            print(f"{done} killed; {name} {dict(self.counts[name])}", file=sys.stderr, flush=True)

    def _digest(self, name: str, result: Path) -> dict[str, str] | str:
        try:
            return OPERATIONS[name].digest(result)
        except (OSError, ValueError, KeyError) as error:
            return repr(error)


def _kill(process: subprocess.Popen[str], everything: bool) -> None:
    """SIGKILL to all processes of the command, or to its first alone, whose helpers must then end by themselves."""
    try:
        if everything:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    except ProcessLookupError:
        pass
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def soak(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """All kills; the record."""
    started, draw = time.monotonic(), random.Random(options.seed)
    names = [options.only[number % len(options.only)] for number in range(options.kills)]
    kills = [Kill(number, name, draw.uniform(0.05, 1.0), draw.random() < 0.5) for number, name in enumerate(names)]
    one = Soak(work, options.limit)
    with ThreadPoolExecutor(options.jobs) as pool:
        for _ in pool.map(one.measure, dict.fromkeys(names)):  # as disturbed by each other as the killed ones
            pass
        for _ in pool.map(one.kill_once, kills):
            pass
    total: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
    for count in one.counts.values():
        total.update(count)
    return {
        "seed": options.seed,
        "jobs": options.jobs,
        "minutes": round((time.monotonic() - started) / 60, 1),
        "total": dict(total),
        "operations": {name: dict(one.counts[name]) for name in OPERATIONS if name in one.counts},
        "seconds_undisturbed": {name: round(seconds, 1) for name, (seconds, _) in sorted(one.references.items())},
        "faults": one.faults,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--only", nargs="+", choices=tuple(OPERATIONS), default=list(OPERATIONS))
    parser.add_argument("--jobs", type=int, default=2, help="commands at a time; one a core is good")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds after which a command counts as hanging")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--record", type=Path, help="file for the JSON")
    parser.add_argument("--work", type=Path, help="an existing folder to work in, which is not emptied afterwards")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = soak(options, (options.work or Path(temporary)) / f"soak-{os.getpid()}")
    text = json.dumps(found, indent=1)
    print(text)
    if options.record:
        options.record.write_text(text + "\n", encoding="utf-8")
    total = found["total"]
    sys.exit(bool(found["faults"]) or not total["kills"] == total["identical"] == options.kills)


if __name__ == "__main__":
    main()

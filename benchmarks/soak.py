"""Kills commands at random moments, runs each again, and compares with the one that was left alone.

    python benchmarks/soak.py [--kills 50] [--only NAME ...] [--seed S] [--work FOLDER]

Of each operation in `OPERATIONS` one command runs undisturbed first: its time and the digest of its result are the
reference. Then, in turn, the same command is started on an empty folder, killed with SIGKILL after a random share
(5 to 100 %) of that time, half of the time with all its processes at once (power), half of the time the main process
alone (an out-of-memory killer), and started again until its end. Counted are

- identical: the second call ended well and its result is the reference, bit for bit where training is concerned;
- visible: a result that was visible after the kill and was neither complete nor the reference (must be 0);
- left: temporary files, checkpoints or locks that are there after the second call (must be 0);
- continued: trainings that went on from a checkpoint.

Data and commands are small: a kill and what follows take about ten seconds on two cores. Prints JSON, and ends with
exit code 1 when anything is not as it must be. The random moments follow from --seed and the machine's speed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from run_digest import digest_of

from ductal.data.store import prepare
from ductal.data.synthetic import make_synthetic
from ductal.slides.synthetic_slide import write_synthetic_slide

LIMIT_SECONDS = 300.0
RECIPE = """
name = "{name}"
title = "{name}, for the soak"
backbone = "VGG16"
weights = "{weights}"
input_px = 32
batch_size = 16
precision = "{precision}"
cached_views = {views}
[head]
dropout = 0.3
[augment]
stain = 0.1
[[stages]]
name = "first"
unfreeze = {first}
epochs = 3
learning_rate = 1e-4
[[stages]]
name = "second"
unfreeze = {second}
epochs = 3
learning_rate = 1e-4
"""


@dataclass(frozen=True)
class Operation:
    """A command, where its result is below the folder it writes to, and what of that must be equal."""

    arguments: Callable[[Path, Path], list[str]]  # of the folder with the inputs and the one to write to
    result: str
    digest: Callable[[Path], dict[str, str]]


def _training(name: str) -> Operation:
    def arguments(inputs: Path, out: Path) -> list[str]:
        return ["train", str(inputs / f"{name}.toml"), "--cohort", str(inputs / "cohort"), "--out", str(out)]

    return Operation(arguments, f"runs/{name}", digest_of)


def _files(folder: Path, *leave_out: str) -> dict[str, str]:
    """SHA-256 of every file, `.json` without the fields that a clock or a place makes."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, content = path.relative_to(folder).as_posix(), path.read_bytes()
        if path.suffix == ".json":
            kept = {key: value for key, value in json.loads(content).items() if key not in leave_out}
            content = json.dumps(kept, sort_keys=True).encode()
        found[name] = hashlib.sha256(content).hexdigest()
    return found


# Another command joins here.
OPERATIONS: dict[str, Operation] = {
    "prepare": Operation(
        lambda inputs, out: [
            "prepare", str(inputs / "large.zip"), "--out", str(out / "cohort"), "--workers", "2",
        ],
        "cohort", lambda folder: _files(folder, "created"),
    ),
    "train whole": _training("whole"),
    "train bfloat16": _training("bfloat16"),
    "train cached": _training("cached"),
    "slide": Operation(
        lambda inputs, out: ["slide", str(inputs / "run"), str(inputs / "slide.tif"), "--out", str(out)],
        "slide.tif", _files,
    ),
    "export": Operation(
        lambda inputs, out: ["export", str(inputs / "run"), "--to", "onnx", "--out", str(out / "exported")],
        "exported", lambda folder: _files(folder, "created", "speed"),
    ),
}  # fmt: skip


def make_inputs(inputs: Path, environment: dict[str, str]) -> None:
    """The archives, cohort, recipes, run and slide that the operations read."""
    make_synthetic(inputs / "large.zip", patients=40, patches_per_patient=400, seed=1)
    make_synthetic(inputs / "small.zip", patients=10, patches_per_patient=16, seed=1)
    prepare(inputs / "small.zip", inputs / "cohort")
    recipes = {
        "whole": {"weights": "random", "precision": "float32", "views": 0, "first": '"all"', "second": '"all"'},
        "bfloat16": {
            "weights": "random", "precision": "mixed_bfloat16", "views": 0, "first": '"all"', "second": '"all"',
        },
        "cached": {
            "weights": "imagenet", "precision": "float32", "views": 2, "first": '"none"', "second": '["block5"]',
        },
    }  # fmt: skip
    for name, settings in recipes.items():
        (inputs / f"{name}.toml").write_text(RECIPE.format(name=name, **settings), encoding="utf-8")
    line = [sys.executable, "-m", "ductal", *OPERATIONS["train whole"].arguments(inputs, inputs / "made")]
    subprocess.run([*line, "--max-epochs", "1"], check=True, env=environment, stdout=subprocess.DEVNULL)
    (inputs / "made" / "runs" / "whole").rename(inputs / "run")
    write_synthetic_slide(inputs / "slide.tif", width=24_000, height=18_000, spacing_um=0.5, seed=1)


class Soak:
    """The inputs, the references, and the counts."""

    def __init__(self, work: Path, seed: int) -> None:
        self.work, self.draw = work, random.Random(seed)
        self.environment = os.environ | {"DUCTAL_CACHE": str(work / "cache"), "PYTHONWARNINGS": "ignore"}
        self.inputs = work / "inputs"
        self.inputs.mkdir(parents=True)
        make_inputs(self.inputs, self.environment)
        self.references: dict[str, tuple[float, dict[str, str]]] = {}
        self.counts: dict[str, dict[str, int]] = {}
        self.faults: list[str] = []

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
            told, _ = process.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            told, _ = process.communicate()
            told += f"\nNo end within {LIMIT_SECONDS:.0f} s."
        return process.returncode, told

    def reference(self, name: str) -> tuple[float, dict[str, str]]:
        """Seconds and digest of the undisturbed command."""
        if name not in self.references:
            out = self.work / f"{name} undisturbed"
            started = time.monotonic()
            code, told = self.finish(name, out)
            if code:
                sys.exit(f"{name} failed without any kill:\n{told}")
            seconds = time.monotonic() - started
            self.references[name] = seconds, OPERATIONS[name].digest(out / OPERATIONS[name].result)
        return self.references[name]

    def kill_once(self, name: str, number: int) -> None:
        """One kill, one second call, one comparison."""
        seconds, expected = self.reference(name)
        count = self.counts.setdefault(
            name, {"kills": 0, "identical": 0, "visible": 0, "left": 0, "continued": 0, "in_time": 0}
        )
        out = self.work / f"{name} {number}"
        out.mkdir()
        moment, everything = self.draw.uniform(0.05, 1.0) * seconds, self.draw.random() < 0.5
        process = self.start(name, out)
        time.sleep(moment)
        count["kills"] += 1
        count["in_time"] += process.poll() is None  # else it was quicker than the reference, and had ended
        _kill(process, everything)
        result = out / OPERATIONS[name].result
        there = result.exists()
        if there and self._digest(name, result) != expected:
            count["visible"] += 1
            self.faults.append(f"{name} {number}: killed at {moment:.1f} s, the result is visible and not whole")
        code, told = self.finish(name, out)
        complete_before = there and "already there" in told  # an export is not made twice
        count["continued"] += "continues " in told
        if (code == 0 or complete_before) and self._digest(name, result) == expected:
            count["identical"] += 1
        else:
            self.faults.append(f"{name} {number}: killed at {moment:.1f} s, then exit code {code}: {told[-1500:]}")
        left = [path for path in out.rglob(".*") if not path.name.startswith(".ductal")]
        if left:
            count["left"] += 1
            self.faults.append(f"{name} {number}: left {', '.join(str(path.relative_to(out)) for path in left)}")

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


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--only", nargs="+", choices=tuple(OPERATIONS), default=list(OPERATIONS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, help="an existing folder to work in, which is not emptied afterwards")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        soak = Soak((options.work or Path(temporary)) / f"soak-{os.getpid()}", options.seed)
        for number in range(options.kills):
            name = options.only[number % len(options.only)]
            soak.kill_once(name, number)
            print(f"{number + 1} of {options.kills}: {name} {soak.counts[name]}", file=sys.stderr, flush=True)
    total: dict[str, int] = {}
    for count in soak.counts.values():
        for key, value in count.items():
            total[key] = total.get(key, 0) + value
    seconds = {name: round(found[0], 1) for name, found in soak.references.items()}
    found: dict[str, Any] = {"total": total, "operations": soak.counts, "seconds": seconds, "faults": soak.faults}
    print(json.dumps(found, indent=1))
    sys.exit(bool(soak.faults))


if __name__ == "__main__":
    main()

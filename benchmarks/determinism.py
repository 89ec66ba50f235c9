"""Trains recipes twice with each of two seeds, each in a process of its own, and says what is bit for bit the same.

    python benchmarks/determinism.py [RECIPE ...] [--seeds 1 2] [--patients 8] [--epochs 1] [--precision P]

By default every shipped recipe, on a synthetic cohort of 16 patches a patient, one epoch a stage. "repeats" tells
whether the two runs of each seed agree in weights, history, predictions and calibration, "differs" whether the seeds
differ in weights. Prints JSON, and ends with exit code 1 where one of them is false.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib import resources
from pathlib import Path
from typing import Any

from run_digest import digest_of

from ductal.data.store import prepare
from ductal.data.synthetic import make_synthetic
from ductal.training.recipe import recipe_names


def train(recipe: str, seed: int, cohort: Path, out: Path, epochs: int) -> tuple[Path, float]:
    """One training as a command; the run and its seconds."""
    line = [sys.executable, "-m", "ductal", "train", recipe, "--cohort", str(cohort), "--out", str(out)]
    started = time.monotonic()
    done = subprocess.run([*line, "--seed", str(seed), "--max-epochs", str(epochs)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{recipe} failed:\n{done.stdout[-1000:]}{done.stderr[-1000:]}")
    return next((out / "runs").iterdir()), time.monotonic() - started


def examine(recipe: str, seeds: list[int], cohort: Path, folder: Path, epochs: int) -> dict[str, Any]:
    """The row of one recipe."""
    digests: dict[int, list[dict[str, str]]] = {}
    seconds, precision = [], ""
    for seed in seeds:
        for again in range(2):
            run, took = train(recipe, seed, cohort, folder / f"{Path(recipe).stem}-{seed}-{again}", epochs)
            digests.setdefault(seed, []).append(digest_of(run))
            precision = json.loads((run / "run.json").read_text(encoding="utf-8"))["precision"]
            seconds.append(took)
    differing = sorted({name for a, b in digests.values() for name in a if a[name] != b[name]})
    return {
        "precision": precision,
        "repeats": not differing,
        "differing": differing,
        "differs": len({pair[0]["weights"] for pair in digests.values()}) == len(seeds),
        "seconds": round(sorted(seconds)[len(seconds) // 2], 1),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=recipe_names())
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--patients", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--precision", choices=("float32", "mixed_bfloat16"), help="instead of what is timed fastest")
    options = parser.parse_args()
    table: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        make_synthetic(work / "a.zip", patients=options.patients, patches_per_patient=16, seed=1)
        prepare(work / "a.zip", work / "cohort")
        for name in options.recipes:
            recipe = name
            if options.precision:
                recipe = str(_with_precision(name, options.precision, work))
            table[name] = examine(recipe, options.seeds, work / "cohort", work, options.epochs)
            print(f"{name}: {table[name]}", file=sys.stderr, flush=True)
    print(json.dumps(table, indent=1))
    sys.exit(not all(row["repeats"] and row["differs"] for row in table.values()))


def _with_precision(name: str, precision: str, folder: Path) -> Path:
    """A shipped recipe as a file of its own, with that precision."""
    text = (resources.files("ductal.training") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
    path = folder / f"{name}-{precision}.toml"
    path.write_text(f'precision = "{precision}"\n{text}', encoding="utf-8")
    return path


if __name__ == "__main__":
    main()

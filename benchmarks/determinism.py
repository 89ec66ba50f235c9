"""Trains recipes twice with each of two seeds, each in a process of its own, and says what is bit for bit the same.

    python benchmarks/determinism.py [RECIPE ...] [--seeds 1 2] [--jobs 2] [--deterministic] [--record FILE]

By default every shipped recipe as it is, on a synthetic cohort of 8 patients with 12 patches each, one epoch a stage:
two to five steps of the optimizer, since what does not repeat shows in the first one. "repeats" tells whether the two
runs of each seed agree in weights, history, predictions and calibration, "differs" whether seeds differ in weights.
Prints JSON, writes it also to --record, and ends with exit code 1 where one of them is false. --jobs recipes run at
a time, since most of a training is the start of TensorFlow on one core; those of one recipe run one after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any

from run_digest import digest_of

from ductal.data.store import prepare
from ductal.data.synthetic import make_synthetic
from ductal.training.recipe_file import recipe_names


def train(recipe: str, seed: int, options: argparse.Namespace, work: Path, out: Path) -> tuple[Path, float]:
    """One training as a command; the run and its seconds."""
    line = [sys.executable, "-m", "ductal", "train", recipe, "--cohort", str(work / "cohort"), "--out", str(out)]
    line += ["--seed", str(seed), "--max-epochs", str(options.epochs)]
    line += ["--deterministic"] if options.deterministic else []
    # A cache of its own: two recipes that time the precision of one backbone at once could come to different ends.
    environment = os.environ | {"DUCTAL_CACHE": str(work / f"{Path(recipe).stem} cache")}
    started = time.monotonic()
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{recipe} failed:\n{done.stdout[-1000:]}{done.stderr[-1000:]}")
    return next((out / "runs").iterdir()), time.monotonic() - started


def examine(recipe: str, options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """The row of one recipe."""
    digests: dict[int, list[dict[str, str]]] = {}
    seconds, record = [], {}
    for seed in options.seeds:
        for again in range(2):
            run, took = train(recipe, seed, options, work, work / f"{Path(recipe).stem}-{seed}-{again}")
            digests.setdefault(seed, []).append(digest_of(run))
            record = json.loads((run / "run.json").read_text(encoding="utf-8"))
            seconds.append(took)
    differing = sorted({name for a, b in digests.values() for name in a if a[name] != b[name]})
    row = {
        "precision": record["precision"],
        "threads": record["threads"],
        "repeats": not differing,
        "differing": differing,
        "differs": len({pair[0]["weights"] for pair in digests.values()}) == len(options.seeds),
        "seconds": round(sorted(seconds)[len(seconds) // 2], 1),
    }
    print(f"{Path(recipe).stem}: {row}", file=sys.stderr, flush=True)
    return row


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=recipe_names())
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--patients", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="recipes at a time; one a core is good")
    parser.add_argument("--deterministic", action="store_true", help="train with --deterministic")
    parser.add_argument("--precision", choices=("float32", "mixed_bfloat16"), help="instead of what is timed fastest")
    parser.add_argument("--record", type=Path, help="file for the JSON")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(options.jobs) as pool:
        work = Path(temporary)
        make_synthetic(work / "a.zip", patients=options.patients, patches_per_patient=12, seed=1)
        prepare(work / "a.zip", work / "cohort")
        chosen = [_with_precision(name, options.precision, work) for name in options.recipes]
        rows = pool.map(lambda recipe: examine(recipe, options, work), chosen)
        table = dict(zip(options.recipes, rows, strict=True))
    found = {"minutes": round((time.monotonic() - started) / 60, 1), "recipes": table}
    text = json.dumps(found, indent=1)
    print(text)
    if options.record:
        options.record.write_text(text + "\n", encoding="utf-8")
    sys.exit(not all(row["repeats"] and row["differs"] for row in table.values()))


def _with_precision(name: str, precision: str | None, folder: Path) -> str:
    """The recipe as it is, or as a file of its own with that precision."""
    if precision is None:
        return name
    text = (resources.files("ductal.training") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
    path = folder / f"{name}-{precision}.toml"
    path.write_text(f'precision = "{precision}"\n{text}', encoding="utf-8")
    return str(path)


if __name__ == "__main__":
    main()

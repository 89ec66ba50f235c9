"""One training step of every backbone: time, memory, parameters, blocks, and where its ImageNet weights come from.

    python benchmarks/backbones.py [BACKBONE ...] [--px 64] [--batch 32] [--steps 5] [--write docs/backbones.md]

Each runs in a process of its own: random weights, all layers trained in float32 as `ductal train` does it, one batch
of random patches again and again. "Step" is the median of the steps after the first two; "first step" is what the
first one takes, with building the network and its graph; "memory" is the largest resident size of the whole process,
TensorFlow and Python included. Prints a Markdown table and one JSON object; --write puts the table between the marks
in a file.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ductal.machine import cpu
from ductal.training.backbones import BACKBONES, SMALLEST_PX, family_of, published_weights
from ductal.training.offline_weights import PACKAGES

MARKS = ("<!-- table of benchmarks/backbones.py -->", "<!-- end of the table -->")
HEADER = (
    "| backbone | parameters | step | images/s | first step | memory | blocks | ImageNet weights |\n"
    "|---|---:|---:|---:|---:|---:|---|---|"
)
WARM = 2


def measure(backbone: str, px: int, batch: int, steps: int) -> dict[str, Any]:
    """In this process: the training step of one backbone."""
    from ductal.console import quiet_tensorflow

    quiet_tensorflow()
    import numpy as np

    from ductal.training.callbacks import count_metrics
    from ductal.training.fast_layers import make_fast
    from ductal.training.network import Normalisation, build_network, set_trainable
    from ductal.training.optimizers import make_optimizer
    from ductal.training.recipe import Recipe

    stage = {"name": "all", "unfreeze": "all", "epochs": 1, "learning_rate": 1e-4}
    recipe = Recipe.model_validate(
        {"name": "step", "title": "step", "backbone": backbone, "weights": "random", "input_px": px,
         "precision": "float32", "stages": [stage]}
    )  # fmt: skip
    started = time.perf_counter()
    network = build_network(recipe, Normalisation((180.0, 150.0, 170.0), (50.0, 50.0, 50.0)))
    set_trainable(network, recipe.stages[0], recipe)
    make_fast(network.model)
    network.model.compile(
        make_optimizer(recipe.stages[0]), "binary_crossentropy", metrics=count_metrics(), jit_compile=False
    )
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (batch, 50, 50, 3), dtype=np.uint8)
    y = rng.integers(0, 2, (batch, 1)).astype(np.float32)
    seconds = []
    for _ in range(WARM + steps):
        network.model.train_on_batch(x, y)
        now = time.perf_counter()
        seconds.append(now - started)
        started = now
    blocks = [family_of(backbone).block_of(layer.name) for layer in network.base_layers() if layer.weights]
    return {
        "backbone": backbone, "px": px, "batch": batch,
        "parameters": sum(layer.count_params() for layer in network.base_layers()),
        "step_seconds": sorted(seconds[WARM:])[steps // 2], "first_seconds": seconds[0],
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "blocks": [block for block in dict.fromkeys(blocks) if block],
    }  # fmt: skip


def in_short(blocks: list[str]) -> str:
    """`a1, a2, a3, b` as "a1 to a3, b"."""
    runs: list[list[str]] = []
    for block in blocks:
        known = re.sub(r"\d+$", "", runs[-1][-1]) if runs else None
        numbered = re.search(r"\d$", block) and runs and re.search(r"\d$", runs[-1][-1])
        if numbered and re.sub(r"\d+$", "", block) == known:
            runs[-1].append(block)
        else:
            runs.append([block])
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


def row(found: dict[str, Any]) -> str:
    """One line of the table."""
    package = PACKAGES.get(found["backbone"])
    source = f"Keras, {published_weights(found['backbone']).file}" + (f"; {package.name}" if package else "")
    return (
        f"| {found['backbone']} | {found['parameters'] / 1e6:.1f} M | {found['step_seconds'] * 1000:.0f} ms "
        f"| {found['batch'] / found['step_seconds']:.0f} | {found['first_seconds']:.0f} s "
        f"| {found['peak_bytes'] / 1024**3:.1f} GiB | {in_short(found['blocks'])} | {source} |"
    )


def write_table(path: Path, lines: list[str], marks: tuple[str, str] = MARKS) -> None:
    """Put `lines` between the marks in the file `path`."""
    text = path.read_text(encoding="utf-8")
    before, _, rest = text.partition(marks[0])
    _, mark, after = rest.partition(marks[1])
    if not mark:
        sys.exit(f"{path} lacks the marks {marks[0]} and {marks[1]} to write between.")
    path.write_text("\n".join([before + marks[0], "", *lines, "", mark]) + after, encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbones", nargs="*", default=BACKBONES, metavar="BACKBONE")
    parser.add_argument("--px", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.backbones[0], options.px, options.batch, options.steps)))
        return
    print(HEADER, flush=True)
    found, lines = [], []
    load = os.getloadavg()[0]
    for backbone in options.backbones:
        settings = [f"--px={options.px}", f"--batch={options.batch}", f"--steps={options.steps}"]
        done = subprocess.run(
            [sys.executable, __file__, backbone, *settings, "--one"], capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"{backbone} failed:\n{done.stderr[-2000:]}")
        found.append(json.loads(done.stdout.splitlines()[-1]))
        lines.append(row(found[-1]))
        print(lines[-1], flush=True)
    told = (
        f"Measured on {cpu()}, float32, {options.px} px, batches of {options.batch}; load of the machine before: "
        f"{load:.1f}. The smallest input is {SMALLEST_PX} px for all."
    )
    if options.write:
        write_table(options.write, [told, "", *HEADER.splitlines(), *lines])
    print(told)
    print(json.dumps({"cpu": str(cpu()), "load": load, "steps": found}))


if __name__ == "__main__":
    main()

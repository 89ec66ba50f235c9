"""A run in every format: size, images/s, and the largest difference from the run in float32.

    python benchmarks/export_table.py RUN [--cohort DIR] [--out DIR] [--only FORMAT ...] [--precision P ...]

Exports into a temporary folder (or --out), prints a Markdown table and then one JSON object. Speeds are those of
each format's own runtime, batches of 64 one after the other, all cores. What cannot be had here has its reason in
the table.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from ductal.console import quiet_tensorflow
from ductal.errors import ExportError
from ductal.export.export import export_run
from ductal.export.formats import BOUNDS, FORMATS
from ductal.machine import cpu

HEADER = (
    "| format | precision | MB | images/s | largest difference | allowed | AUC | balanced accuracy |\n"
    "|---|---|---:|---:|---:|---:|---:|---:|"
)


def row(to: str, precision: str, told: dict[str, Any]) -> str:
    """One line of the table."""
    if "refused" in told:
        return f"| {to} | {precision} | {told['refused']} | | | | | |"
    parity = told["parity"]
    costs = [
        f"{parity['cost'][name]['run']:.4f} -> {parity['cost'][name]['export']:.4f}" if name in parity["cost"] else ""
        for name in ("roc_auc", "balanced_accuracy")
    ]
    return (
        f"| {to} | {precision} | {told['bytes'] / 1e6:.1f} | {told['speed']['images_per_second']:.0f} "
        f"| {parity['largest_difference']:.1e} | {parity['bound']:g} | {' | '.join(costs)} |"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--cohort", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument("--precision", nargs="+", choices=list(BOUNDS), default=list(BOUNDS))
    options = parser.parse_args()
    quiet_tensorflow()
    found: list[dict[str, Any]] = []
    print(HEADER, flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for to in options.only:
            for precision in (name for name in FORMATS[to].precisions if name in options.precision):
                target = (options.out or Path(scratch)) / f"{to}-{precision}"
                try:
                    told = export_run(
                        options.run, to, target, precision=precision, cohort=options.cohort
                    ).contract
                except ExportError as error:
                    told = {"refused": str(error)}
                found.append({"format": to, "precision": precision} | told)
                print(row(to, precision, told), flush=True)
    keys = ("format", "precision", "bytes", "parity", "speed", "versions", "refused")
    rows = [{key: told[key] for key in keys if key in told} for told in found]
    print(json.dumps({"run": options.run.name, "cpu": str(cpu()), "exports": rows}))


if __name__ == "__main__":
    main()

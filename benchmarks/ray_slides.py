"""A folder of synthetic slides by one process, on one Ray node and on two of this machine; and a node that is killed.

    python benchmarks/ray_slides.py RUN [--slides N] [--side PX] [--workers W] [--rounds R] [--work FOLDER]

RUN is a run folder. Every way has W processors: one process with W threads; one node with W workers of one thread;
two nodes with W / 2 workers each. The ways take turns, R rounds. "cold" counts the start of the workers, which import
libraries and load the network; "warm" is a second batch of the same driver. Then, on two nodes, one is killed in
mid-batch. Results of all are compared, byte for byte. Prints one JSON object; times are medians. Each reading
is told as it comes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 would compare busy machines with idle ones
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.cluster_utils import Cluster

from ductal.cluster.slides import analyse_slides_on
from ductal.machine import THREADS
from ductal.slides.analyse import SlideAnalyser
from ductal.slides.batch import analyse_slides
from ductal.slides.synthetic_slide import write_synthetic_slide

STORE_BYTES = 80 * 1024**2


@contextmanager
def driver(nodes: int, workers: int) -> Iterator[Any]:
    """This process on a cluster of its own with `workers` processors in all."""
    cluster = Cluster()
    for _ in range(nodes):
        cluster.add_node(num_cpus=workers // nodes, object_store_memory=STORE_BYTES, include_dashboard=False)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def digest(folder: Path) -> str:
    """Of all files in a folder and their names."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return found.hexdigest()


class Bench:
    """What all ways have in common."""

    def __init__(self, run: Path, slides: Path, work: Path, workers: int) -> None:
        self.run, self.slides, self.work, self.workers = run, slides, work, workers
        self.digests: set[str] = set()

    def seconds(self, address: str | None) -> float:
        """Of a batch into an empty folder; its results are noted."""
        out = self.work / "out"
        shutil.rmtree(out, ignore_errors=True)
        started = time.perf_counter()
        if address is None:
            analyse_slides(SlideAnalyser(self.run), self.slides, out)
        else:
            analyse_slides_on(address, SlideAnalyser(self.run), self.slides, out)
        took = time.perf_counter() - started
        self.digests.add(digest(out))
        print(f"{'local' if address is None else 'ray'}: {took:.1f} s", file=sys.stderr, flush=True)
        return took

    def on_nodes(self, nodes: int) -> tuple[float, float]:
        """Cold and warm seconds."""
        with driver(nodes, self.workers) as cluster:
            return self.seconds(cluster.address), self.seconds(cluster.address)

    def killed(self) -> dict[str, Any]:
        """What became of a batch one of whose two nodes is killed when a quarter of the slides is done."""
        out, notes, told = self.work / "killed", [], []
        shutil.rmtree(out, ignore_errors=True)
        count = len(list(self.slides.iterdir()))
        with driver(2, self.workers) as cluster:
            victim = next(iter(cluster.worker_nodes))

            def tell(outcome: Any) -> None:
                told.append(outcome)
                if len(told) == max(1, count // 4):
                    threading.Thread(target=cluster.remove_node, args=(victim, False)).start()

            outcomes = analyse_slides_on(
                cluster.address, SlideAnalyser(self.run), self.slides, out, tell=tell, note=notes.append
            )
        self.digests.add(digest(out))
        results = [outcome.result for outcome in outcomes if outcome.result]
        return {
            "slides": count,
            "results": len(results),
            "told": len(told),
            "begun_again": len(notes),
            "found_finished_when_begun_again": sum(result.reused for result in results),
        }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--slides", type=int, default=12)
    parser.add_argument("--side", type=int, default=24_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "ductal-ray-slides")
    options = parser.parse_args()
    slides = options.work / f"slides-{options.slides}-{options.side}"
    for number in range(options.slides):
        if not (path := slides / f"{number:03d}.tif").exists():
            write_synthetic_slide(path, options.side, options.side, cell_px=1024, seed=number)
    os.environ[THREADS] = str(options.workers)
    bench = Bench(options.run, slides, options.work, options.workers)
    bench.seconds(None)  # the network, and what OpenVINO makes of it, is in the system's cache after that
    local, one, two = [], [], []
    for _ in range(options.rounds):
        local.append(bench.seconds(None))
        one.append(bench.on_nodes(1))
        two.append(bench.on_nodes(2))
    killed = bench.killed()
    cold = median(took for took, _ in one), median(took for took, _ in two)
    warm = median(took for _, took in one), median(took for _, took in two)
    print(
        json.dumps(
            {
                "slides": options.slides,
                "side_px": options.side,
                "workers": options.workers,
                "local_seconds": [round(took, 1) for took in local],
                "one_node_seconds": [[round(took, 1) for took in pair] for pair in one],
                "two_nodes_seconds": [[round(took, 1) for took in pair] for pair in two],
                "two_nodes_over_one": {"cold": round(cold[1] / cold[0], 3), "warm": round(warm[1] / warm[0], 3)},
                "two_nodes_over_local": {
                    "cold": round(cold[1] / median(local), 3), "warm": round(warm[1] / median(local), 3),
                },
                "killed_node": killed,
                "different_results": len(bench.digests) - 1,
            },
            indent=2,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()

"""A folder of synthetic slides by one process, on one Ray node and on two of this machine; and a node that is killed.

    python benchmarks/ray_slides.py RUN [--slides N] [--side PX] [--workers W] [--rounds R] [--work FOLDER]

RUN is a run folder. Every way has W processors: one process with W threads; one node with W workers of one thread;
two nodes with W / 2 workers each. The ways take turns, R rounds; 0 for the kill alone. "cold" counts the start of the
workers, which import libraries and load the network; "warm" is a second batch of the same driver. Then, on two nodes,
one is killed while it works on a slide. Results of all are compared, byte for byte. Prints one JSON object at the end
(Ray's own messages come before it); times are medians. Each reading is told as it comes.
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
import uuid
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
from ductal.slides.batch import analyse_one, analyse_slides
from ductal.slides.synthetic_slide import write_synthetic_slide

STORE_BYTES = 80 * 1024**2
MOMENT_SECONDS = 1.0  # into a slide, until the node is killed


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
        """What became of a batch one of whose two nodes is killed while it works on its second slide."""
        out, notes, hit = self.work / "killed" / "out", [], []
        shutil.rmtree(out.parent, ignore_errors=True)
        out.mkdir(parents=True)
        over = threading.Event()
        with driver(2, self.workers) as cluster:
            victim = next(iter(cluster.worker_nodes))

            def kill() -> None:
                while not over.wait(0.1):
                    begun, ended = (names_of(out, what, victim.node_id) for what in ("begun", "ended"))
                    if ended and set(begun) - set(ended):
                        time.sleep(MOMENT_SECONDS)
                        cluster.remove_node(victim, False)
                        hit.extend(set(begun) - set(names_of(out, "ended", victim.node_id)))
                        return

            killer = threading.Thread(target=kill)
            killer.start()
            analyser = SlideAnalyser(self.run)
            outcomes = analyse_slides_on(cluster.address, analyser, self.slides, out, note=notes.append, work=logged)
            over.set()
            killer.join()
        self.digests.add(digest(out))
        if not hit:
            raise SystemExit(
                "The node had no slide when it was killed, which shows nothing. Use more or larger slides."
            )
        ended = names_of(out, "ended")
        return {
            "slides": len(list(self.slides.iterdir())),
            "results": sum(outcome.result is not None for outcome in outcomes),
            "under_way_on_the_killed_node": len(hit),
            "begun": len(names_of(out, "begun")),
            "ended": len(ended),
            "ended_twice": len(ended) - len(set(ended)),
            "told_as_lost": len(notes),
        }


def logged(analyser: SlideAnalyser, path: Path, name: str, out: Path, **settings: Any) -> Any:
    """In a worker: `analyse_one`, with a file for its begin and its end, which holds the node."""
    node = ray.get_runtime_context().get_node_id()
    (out.parent / f"begun.{uuid.uuid4().hex}.{name}").write_text(node)
    outcome = analyse_one(analyser, path, name, out, **settings)
    (out.parent / f"ended.{uuid.uuid4().hex}.{name}").write_text(node)
    return outcome


def names_of(out: Path, what: str, node: str = "") -> list[str]:
    """Slides that were begun or ended, on one node or on all."""
    found = [path for path in out.parent.glob(f"{what}.*") if path.read_text().startswith(node)]
    return [path.name.split(".", 2)[2] for path in found]


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
    if options.rounds == 0:
        print(json.dumps({"killed_node": bench.killed(), "different_results": len(bench.digests) - 1}, indent=2))
        return
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

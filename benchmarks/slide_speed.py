"""`ductal slide` on a synthetic slide of 100,000 x 80,000 px against raw inference of its tissue tiles; peak memory.

    python benchmarks/slide_speed.py RUN [--width W] [--height H] [--work FOLDER] [--repeats R]

RUN is a run folder. The slide (0.25 um/px, tiled, JPEG, pyramid of 4 levels) is written to FOLDER unless it is there;
that is not timed. Raw inference is the predictor on as many tiles, in memory, with the same batch size; both times
are with the model loaded. `ductal slide` as a command, in a process of its own, is timed and its peak memory taken.
Prints one JSON object; times are medians.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ductal.slides.analyse import SlideAnalyser
from ductal.slides.judging import BATCH
from ductal.slides.synthetic_slide import write_synthetic_slide


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The median of `repeats` passes, after one that is not timed."""
    work()
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return float(np.median(found))


def command(run: Path, slide: Path, out: Path) -> tuple[float, float]:
    """Seconds and peak memory in MB of `ductal slide`, imports and loading included."""
    started = time.perf_counter()
    line = [sys.executable, "-m", "ductal", "slide", str(run), str(slide), "--out", str(out), "--overwrite"]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    took = time.perf_counter() - started
    kilobytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return took, kilobytes / (1024 if sys.platform != "darwin" else 1024**2)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--width", type=int, default=100_000)
    parser.add_argument("--height", type=int, default=80_000)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "ductal-slide-speed")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    slide = options.work / f"synthetic_{options.width}x{options.height}.tif"
    started = time.perf_counter()
    if not slide.exists():
        write_synthetic_slide(slide, options.width, options.height)
    wrote = time.perf_counter() - started
    took, peak_mb = command(options.run, slide, options.work / "out")
    analyser = SlideAnalyser(options.run)
    result = analyser.analyse(slide, options.work / "out" / slide.name, overwrite=True)
    tissue = result.summary["found"]["tiles"]["tissue"]
    tiles = np.random.default_rng(0).integers(0, 256, (tissue, 50, 50, 3), dtype=np.uint8)
    raw = seconds(lambda: analyser.predictor.predict(tiles, batch_size=BATCH), options.repeats)
    slide_seconds = seconds(lambda: analyser.analyse(slide, result.folder, overwrite=True), options.repeats)
    print(
        json.dumps(
            {
                "slide_px": [options.width, options.height],
                "slide_bytes": slide.stat().st_size,
                "written_in_seconds": round(wrote, 1),
                "tiles": result.summary["found"]["tiles"],
                "raw_inference_seconds": round(raw, 2),
                "slide_seconds": round(slide_seconds, 2),
                "ratio": round(slide_seconds / raw, 3),
                "command_seconds": round(took, 2),
                "command_peak_mb": round(peak_mb),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()

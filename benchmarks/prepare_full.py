"""Prepare an archive of the full size: 277,524 patches of 279 patients; prints time and peak memory.

CPU seconds are given too, as they say what the time would be on cores that nothing else uses.

The archive is made once and kept: a few hundred distinct images of H&E-like noise, as large as real
ones (about 5.5 KB), under unique genuine names. Needs about 4 GB of disk.

    python benchmarks/prepare_full.py FOLDER [--workers N] [--patches N]
"""

from __future__ import annotations

import argparse
import io
import resource
import shutil
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from ductal.data.naming import format_patch_name
from ductal.data.store import prepare
from ductal.files import atomic_file

PATIENTS = 279
PATCHES = 277_524
DISTINCT = 400
COLUMNS = 60  # patches per row of a slide's grid


def distinct_images(rng: np.random.Generator) -> list[bytes]:
    """PNG files of smooth pink and purple fields with fine noise; the noise makes the size realistic."""
    files = []
    for _ in range(DISTINCT):
        coarse = rng.random((8, 8)).astype(np.float32)
        mix = np.asarray(Image.fromarray(coarse).resize((50, 50), Image.Resampling.BICUBIC))[..., None]
        tissue = mix * np.array([225, 160, 200]) + (1 - mix) * np.array([120, 70, 150])
        noisy = tissue + rng.normal(0, 5, (50, 50, 1)) + rng.normal(0, 4, (50, 50, 3))
        buffer = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return files


def make_archive(path: Path, patches: int) -> None:
    """Write `patches` entries, spread evenly over the patients, 28.4 % of them of class 1."""
    rng = np.random.default_rng(0)
    images = distinct_images(rng)
    per_patient = -(-patches // PATIENTS)
    with atomic_file(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for number in range(patches):
            patient, place = divmod(number, per_patient)
            x, y = 1 + 50 * (place % COLUMNS), 1 + 50 * (place // COLUMNS)
            label = int(rng.random() < 0.284)
            name = format_patch_name(str(10001 + patient), x, y, label)
            entry = f"IDC_regular_ps50_idx5/{10001 + patient}/{label}/{name}"
            archive.writestr(entry, images[number % DISTINCT])


class MemoryWatch(threading.Thread):
    """Samples the resident memory of this process and its children; keeps each process's own peak."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peaks: dict[str, int] = {}
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.2):
            children = Path("/proc/self/task").glob("*/children")
            for pid in ["self", *(pid for file in children for pid in file.read_text().split())]:
                try:
                    status = Path(f"/proc/{pid}/status").read_text()
                except OSError:
                    continue  # it ended between the two reads
                peak = next(
                    (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")), "0"
                )
                self.peaks[pid] = int(peak) * 1024

    @property
    def total_mb(self) -> float:
        """Sum of the peaks, in MB; an upper bound of the peak of the sum."""
        return sum(self.peaks.values()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--patches", type=int, default=PATCHES)
    options = parser.parse_args()
    archive = options.folder / f"full_{options.patches}.zip"
    if not archive.exists():
        make_archive(archive, options.patches)
    watch = MemoryWatch()
    watch.start()
    started = time.perf_counter()
    cohort = prepare(archive, options.folder / "cohort", workers=options.workers)
    seconds = time.perf_counter() - started
    watch.ended.set()
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own, workers = (usage.ru_utime + usage.ru_stime for usage in usages)
    print(
        f"patches {len(cohort):,}  seconds {seconds:.1f}  patches/s {len(cohort) / seconds:,.0f}  "
        f"CPU s {own:.1f} parent + {workers:.1f} workers  "
        f"peak MB {watch.total_mb:,.0f} ({len(watch.peaks) - 1} child processes)"
    )
    shutil.rmtree(options.folder / "cohort")


if __name__ == "__main__":
    main()

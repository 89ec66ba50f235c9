"""What the near-duplicate rule of the leak audit finds: among genuine patches, and among copies made of them.

    python benchmarks/near_copies.py COHORT [--copies 3000]

COHORT is a prepared cohort. Every patch is compared with every other one, in eight orientations; then copies of some
patches (encoded anew, other contrast, gamma or size) are sought; a copy is compared where both have texture.
Prints one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ductal.data import near_duplicates as near
from ductal.data.cohort import Cohort

Change = Callable[[np.ndarray], np.ndarray]


def jpeg(quality: int) -> Change:
    """Encoded as JPEG and decoded."""

    def change(patch: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(patch).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer))

    return change


def scaled(patch: np.ndarray) -> np.ndarray:
    """To 64 px and back."""
    image = Image.fromarray(patch).resize((64, 64), Image.Resampling.BICUBIC)
    return np.asarray(image.resize((50, 50), Image.Resampling.BICUBIC))


def contrast(patch: np.ndarray) -> np.ndarray:
    """1.15 times the distance from the mean grey."""
    mean = patch.mean()
    return np.clip((patch - mean) * 1.15 + mean, 0, 255).round().astype(np.uint8)


def gamma(patch: np.ndarray) -> np.ndarray:
    """Gamma 1.2."""
    return (255 * (patch / 255) ** 1.2).round().astype(np.uint8)


CHANGES: dict[str, Change] = {
    "JPEG quality 95": jpeg(95), "JPEG quality 85": jpeg(85), "JPEG quality 75": jpeg(75),
    "JPEG quality 50": jpeg(50), "contrast x 1.15": contrast, "gamma 1.2": gamma, "64 px and back": scaled,
}  # fmt: skip


def nearest_strangers(cohort: Cohort, small: near.Thumbnails) -> dict[str, Any]:
    """The pair of two patients whose thumbnails are nearest, and how its detail agrees."""
    patients = cohort.table["patient"].to_numpy(dtype=str)[small.rows]
    flat = small.images.reshape(len(small.images), -1)
    best, where = -1.0, (0, 0, 0)
    for turn, turned in enumerate(near._eight(small.images)):
        queries = np.ascontiguousarray(turned).reshape(len(turned), -1)
        for start in range(0, len(queries), 1024):
            cosine = queries[start : start + 1024] @ flat.T
            cosine[patients[start : start + 1024, None] == patients] = -1
            place = int(cosine.argmax())
            if cosine.flat[place] > best:
                best, where = float(cosine.flat[place]), (turn, start + place // len(flat), place % len(flat))
    turn, a, b = where
    grey = near._grey(cohort.pixels, small.rows[[a, b]])
    first, second = near._turned(grey[:1], np.array([turn])), grey[1:]
    middle = near._correlation(
        near._detail(near._area_means(first, 25), 5), near._detail(near._area_means(second, 25), 5)
    )
    fine = near._correlation(near._detail(first, 10), near._detail(second, 10))
    return {"thumbnail_cosine": best, "middle": float(middle[0]), "fine": float(fine[0])}


def found_copies(cohort: Cohort, rows: np.ndarray, change: Change) -> dict[str, float]:
    """Shares of copies that are found: of those compared, and of all."""
    copies = np.stack([change(np.asarray(cohort.pixels[row])) for row in rows])
    both = np.concatenate([np.asarray(cohort.pixels[rows]), copies])
    half = len(rows)
    small = near.thumbnails(both, np.arange(2 * half))
    left, right = small.of(np.arange(2 * half) < half), small.of(np.arange(2 * half) >= half)
    compared = set(left.rows.tolist()) & {row - half for row in right.rows.tolist()}
    found = {a for a, b in near.near_duplicates(both, left, right) if b == a + half} & compared
    return {"of_compared": 100 * len(found) / len(compared), "of_all": 100 * len(found) / half}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--copies", type=int, default=3000)
    options = parser.parse_args()
    cohort = Cohort.open(options.cohort)
    sha1 = cohort.table["sha1"].to_numpy(dtype=str)
    small = near.thumbnails(cohort.pixels, np.arange(len(cohort)))
    started = time.perf_counter()
    pairs = [(a, b) for a, b in near.near_duplicates(cohort.pixels, small, small) if a < b and sha1[a] != sha1[b]]
    seconds = time.perf_counter() - started
    rows = np.sort(np.random.default_rng(0).choice(len(cohort), min(options.copies, len(cohort)), replace=False))
    n = len(small.rows)
    print(json.dumps({
        "patches": len(cohort), "textured_percent": 100 * n / len(cohort), "identical": len(sha1) - len(set(sha1)),
        "pairs_millions": n * (n - 1) / 2e6, "near_duplicates": len(pairs), "search_seconds": seconds,
        "nearest": nearest_strangers(cohort, small), "copies": len(rows),
        "found": {name: found_copies(cohort, rows, change) for name, change in CHANGES.items()},
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()

"""How many patches the web application's input rules flag: real ones, and images that are no H&E at 4 um.

    python benchmarks/input_rules.py COHORT [--others N]

COHORT is a prepared cohort of the archive. The others are made of N of its patches, by taking the colour away, by
turning the hue, by exchanging channels, by staining them with DAB instead of eosin, by blurring, and by showing them
twice as large or (from four neighbours) twice as small; and cut from the photographs that come with scikit-learn.
Prints one JSON object with the limits that hold 99.5 % of the patches, and the flagged share of each set by rule.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from sklearn.datasets import load_sample_images

from ductal.data.cohort import Cohort
from ductal.data.stain import STAINS
from ductal.web.input_check import density_shares, flags

DAB = np.array([0.27, 0.57, 0.78])  # Ruifrok & Johnston 2001
KEPT = 0.995


def each(patches: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """A change of images, for uint8 patches (n, h, w, 3)."""
    return np.stack([np.asarray(change(Image.fromarray(patch))) for patch in patches])


def turned_hue(degrees: int) -> Callable[[Image.Image], Image.Image]:
    """Another colour of the same saturation and brightness."""

    def change(image: Image.Image) -> Image.Image:
        hue, saturation, value = image.convert("HSV").split()
        turned = hue.point(lambda level: (level + degrees * 256 // 360) % 256)
        return Image.merge("HSV", (turned, saturation, value)).convert("RGB")

    return change


def in_dab(patches: np.ndarray) -> np.ndarray:
    """Haematoxylin as it is, and brown diaminobenzidine where eosin was."""
    amounts = -np.log((patches + 1.0) / 256) @ np.linalg.inv(STAINS)
    density = amounts[..., :1] * STAINS[0] + amounts[..., 1:2] * (DAB / np.linalg.norm(DAB))
    return np.clip(256 * np.exp(-density) - 1, 0, 255).astype(np.uint8)


def twice_as_small(cohort: Cohort, count: int) -> np.ndarray:
    """Squares of four neighbours, as one patch each."""
    places = zip(*(cohort.table[name] for name in ("patient", "x", "y")), strict=True)
    at = {place: row for row, place in enumerate(places)}
    found: list[np.ndarray] = []
    for (patient, x, y), row in at.items():
        rows = [row, *(at.get((patient, x + dx, y + dy)) for dx, dy in ((50, 0), (0, 50), (50, 50)))]
        if None not in rows and len(found) < count:
            a, b, c, d = (cohort.pixels[one] for one in rows)
            found.append(np.vstack([np.hstack([a, b]), np.hstack([c, d])]))
    return each(np.stack(found), lambda image: image.resize((50, 50), Image.Resampling.BOX))


def photographs(count: int) -> np.ndarray:
    """Squares of 50 px of two photographs."""
    rng = np.random.default_rng(0)
    found = []
    for picture in load_sample_images().images:
        corners = rng.integers(0, (picture.shape[0] - 50, picture.shape[1] - 50), (count // 2, 2)).tolist()
        found += [picture[y : y + 50, x : x + 50] for y, x in corners]
    return np.stack(found)


def flagged(patches: np.ndarray) -> dict[str, float]:
    """Share of the patches with any flag, and with each."""
    found = flags(patches)
    codes = sorted({code for one in found for code in one})
    shares = {code: round(sum(code in one for one in found) / len(found), 4) for code in codes}
    return {"n": len(found), "any": round(sum(bool(one) for one in found) / len(found), 4)} | shares


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--others", type=int, default=2000)
    options = parser.parse_args()
    cohort = Cohort.open(options.cohort)
    rng = np.random.default_rng(0)
    some = np.asarray(cohort.pixels[rng.choice(len(cohort), min(len(cohort), options.others), replace=False)])
    sets = {
        "real patches": np.asarray(cohort.pixels),
        "photographs": photographs(options.others),
        "grey": each(some, lambda image: image.convert("L").convert("RGB")),
        "inverted": 255 - some,
        "red and blue exchanged": some[..., ::-1],
        "haematoxylin and DAB": in_dab(some),
        **{f"hue turned by {angle} degrees": each(some, turned_hue(angle)) for angle in (30, 90, 180, 270)},
        "blurred by 1 px": each(some, lambda image: image.filter(ImageFilter.GaussianBlur(1))),
        "twice as large": each(some[:, 12:37, 12:37], lambda image: image.resize((50, 50), Image.Resampling.BICUBIC)),
        "twice as small": twice_as_small(cohort, options.others),
    }
    shares = density_shares(sets["real patches"])
    tail = (1 - KEPT) / 2
    limits = np.quantile(shares, (tail, 1 - tail), axis=0).round(3).tolist()
    found = {name: flagged(patches) for name, patches in sets.items()}
    print(json.dumps({"limits": limits, "flagged": found}, indent=1))


if __name__ == "__main__":
    main()

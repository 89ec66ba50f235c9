"""Whether a patch is like those that models here are trained on, by rules whose limits were measured on real patches.

A rule says that an image is unlike all H&E of the archive, never that it is like it: what passes may still be another
organ, stain or scale. How many patches of the archive and of other images each rule flags: docs/web.md.
"""

from __future__ import annotations

import numpy as np

from ductal.data.quality import BLANK_STD, grey_std
from ductal.slides.tissue import DEFAULT_GLASS, TISSUE_DENSITY, TISSUE_SHARE, Gate, Stain, densities, gate_tiles
from ductal.web.schemas import Note

# Share of a patch's optical density that lies in red, green and blue. For each of the three, 99.5 % of the patches of
# the archive's sample, 18,537 of 106 patients, lie between these.
LOWEST_SHARES = (0.045, 0.342, 0.232)
HIGHEST_SHARES = (0.355, 0.590, 0.459)

_GLASS = (DEFAULT_GLASS,) * 3
_TEXTS = {
    "blank": "The image is empty, or of one colour.",
    "glass": f"Less than {TISSUE_SHARE:.0%} of the image is tissue; the rest is empty glass.",
    "not_he": "The colours are unlike those of haematoxylin and eosin (H&E), which the model was trained on.",
    "ink": "A quarter of the image or more has colours that H&E cannot mix, such as ink.",
    "blurred": "The image is out of focus, or was enlarged from a smaller one.",
}


def notes(codes: list[str]) -> tuple[list[Note], bool]:
    """What to know about a patch with these codes of `flags` before believing what a model says of it.

    Returns:
        Notes; and False where there is nothing on the patch that could be called.
    """
    return [Note(code=code, text=_TEXTS[code]) for code in codes], not {"blank", "glass"} & set(codes)


def flags(patches: np.ndarray) -> list[list[str]]:
    """Which rules find patches, uint8 RGB (n, 50, 50, 3), unlike the archive's.

    "blank": the grey levels hardly differ, and no other rule is asked; "glass": hardly any tissue, likewise;
    "not_he": the shares of the density lie beyond the limits; "ink" and "blurred": the gates of slides of that name.
    """
    gates, _ = gate_tiles(patches, Stain(_GLASS, 0.0))
    shares = density_shares(patches)
    foreign = np.any((shares < LOWEST_SHARES) | (shares > HIGHEST_SHARES), axis=1)
    blank = [grey_std(patch) < BLANK_STD for patch in patches]
    return [_codes(*each) for each in zip(blank, gates.tolist(), foreign.tolist(), strict=True)]


def _codes(blank: bool, gate: int, foreign: bool) -> list[str]:
    if blank:
        return ["blank"]
    if gate == Gate.glass:
        return ["glass"]
    found = ["not_he"] if foreign else []
    if gate in (Gate.pen, Gate.blur):
        found.append({Gate.pen: "ink", Gate.blur: "blurred"}[Gate(gate)])
    return found


def density_shares(patches: np.ndarray) -> np.ndarray:
    """How the optical density of each patch's tissue is divided among red, green and blue, float64 (n, 3), sum 1.

    Haematoxylin and eosin absorb green most, and blue and red in proportions that depend on which of the two there is
    more of. The strength of the stain cancels out.

    Args:
        patches: uint8 RGB (n, h, w, 3); 1/3 each where one has no tissue.
    """
    density = densities(patches, _GLASS)
    tissue = density[0] + density[1] + density[2] >= 3 * TISSUE_DENSITY
    totals = np.stack([(channel * tissue).sum(axis=(1, 2), dtype=np.int64) for channel in density], axis=1)
    whole = totals.sum(axis=1, keepdims=True)
    return np.where(whole > 0, totals / np.maximum(whole, 1), 1 / 3)

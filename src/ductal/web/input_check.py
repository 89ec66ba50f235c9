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


def check_patch(patch: np.ndarray) -> tuple[list[Note], bool]:
    """What to know about a patch before believing what a model says of it.

    Args:
        patch: uint8 RGB (50, 50, 3).

    Returns:
        Notes with the codes of `flags`; and False where there is nothing on the patch that could be called.
    """
    found = flags(patch)
    return [Note(code=code, text=_TEXTS[code]) for code in found], not {"blank", "glass"} & set(found)


def flags(patch: np.ndarray) -> list[str]:
    """Which rules find a patch, uint8 RGB (50, 50, 3), unlike the archive's.

    "blank": the grey levels hardly differ, and no other rule is asked; "glass": hardly any tissue, likewise;
    "not_he": the shares of the density lie beyond the limits; "ink" and "blurred": the gates of slides of that name.
    """
    if grey_std(patch) < BLANK_STD:
        return ["blank"]
    gate = Gate(int(gate_tiles(patch[None], Stain(_GLASS, 0.0))[0][0]))
    if gate == Gate.glass:
        return ["glass"]
    shares = density_shares(patch)
    found = ["not_he"] if ((shares < LOWEST_SHARES) | (shares > HIGHEST_SHARES)).any() else []
    if gate in (Gate.pen, Gate.blur):
        found.append({Gate.pen: "ink", Gate.blur: "blurred"}[gate])
    return found


def density_shares(patch: np.ndarray) -> np.ndarray:
    """How the optical density of a patch's tissue is divided among red, green and blue, float64 (3,), sum 1.

    Haematoxylin and eosin absorb green most, and blue and red in proportions that depend on which of the two there is
    more of. The strength of the stain cancels out.

    Args:
        patch: uint8 RGB (h, w, 3); 1/3 each where it has no tissue.
    """
    density = densities(patch, _GLASS).reshape(3, -1)
    tissue = density.sum(axis=0) >= 3 * TISSUE_DENSITY
    total = density[:, tissue].sum(axis=1, dtype=np.int64)
    return total / total.sum() if total.any() else np.full(3, 1 / 3)

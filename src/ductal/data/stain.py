"""Haematoxylin and eosin in a patch, by colour deconvolution (Ruifrok & Johnston 2001)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ductal.data.cohort import PatchView

# Optical densities of haematoxylin and eosin in red, green and blue (Ruifrok & Johnston 2001); the third
# row is their normal, the residual. Rows have unit length.
_H_AND_E = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105]])
STAINS = np.vstack([_H_AND_E, np.cross(_H_AND_E[0], _H_AND_E[1])])
STAINS /= np.linalg.norm(STAINS, axis=1, keepdims=True)

_CHUNK = 256
# Natural logarithm; white (255) has density 0, and the 1 keeps black finite.
_DENSITY = -np.log((np.arange(256) + 1.0) / 256.0).astype(np.float32)


def stain_densities(pixels_u8: npt.NDArray[np.uint8] | PatchView) -> npt.NDArray[np.float32]:
    """Mean optical density of haematoxylin and of eosin in each patch.

    Unmixing is linear, so the mean over pixels is unmixed. Negative where a patch's colour lies outside
    what the two stains can mix.

    Args:
        pixels_u8: uint8 RGB, shape (n, h, w, 3); may be a memory map or a view of one.

    Returns:
        float32 (n, 2): haematoxylin, eosin; natural logarithm.
    """
    unmix = np.linalg.inv(STAINS)[:, :2]
    found = np.empty((len(pixels_u8), 2), np.float32)
    for start in range(0, len(pixels_u8), _CHUNK):
        batch = pixels_u8[start : start + _CHUNK]
        found[start : start + len(batch)] = _DENSITY[batch].mean(axis=(1, 2), dtype=np.float64) @ unmix
    return found

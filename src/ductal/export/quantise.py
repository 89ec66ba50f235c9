"""8-bit weights and activations for OpenVINO, by NNCF's post-training quantisation."""

from __future__ import annotations

import logging
import os
from typing import Any

import numpy as np

CALIBRATION_PATCHES = 300  # NNCF's own default


def to_int8(model: Any, patches: np.ndarray) -> Any:
    """`model` (OpenVINO) with 8-bit convolutions and products; sums and the calibration after the logit stay float32.

    Args:
        model: takes uint8 patches.
        patches: uint8 (n, 50, 50, 3), training patches, from which the ranges of activations are taken.
    """
    os.environ.setdefault("NNCF_CI", "1")  # its switch against telemetry, read when it is imported
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf.quantize(
        model,
        nncf.Dataset([patches[k : k + 1] for k in range(len(patches))]),
        # Activations after ReLU are one-sided, those of other networks are not: MIXED scales each as it is.
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(patches),
        ignored_scope=nncf.IgnoredScope(types=["Sigmoid", "Divide", "Clamp", "ReduceMean"], validate=False),
    )

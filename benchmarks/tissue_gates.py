"""Which share of the patches of a cohort passes the gates of a slide's tiles, by label, and blurred on purpose.

    python benchmarks/tissue_gates.py COHORT

COHORT is a prepared cohort of real patches, all of which a pathologist judged, so that all should pass. Glass and
median density are taken from each patient's own patches, as `ductal slide` takes them from the slide's overview.
Prints one JSON object: percentages of each gate for IDC and others, and how many of all that pass are caught when
blurred by a Gaussian of 1, 1.5 and 2 px.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from ductal.data.cohort import Cohort
from ductal.slides.tissue import Gate, Stain, gate_tiles

SIGMAS = (1.0, 1.5, 2.0)


def blurred(patches: np.ndarray, sigma: float) -> np.ndarray:
    """uint8 (n, 50, 50, 3), each channel by itself."""
    smooth = gaussian_filter(patches.astype(np.float32), (0, sigma, sigma, 0), mode="nearest")
    return smooth.round().astype(np.uint8)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    cohort = Cohort.open(parser.parse_args().cohort)
    gates = np.empty(len(cohort), np.uint8)
    caught = dict.fromkeys(SIGMAS, 0)
    for _, rows in cohort.table.groupby("patient", observed=True).indices.items():
        patches = np.asarray(cohort.pixels[rows])
        stain = Stain.of(patches.reshape(1, -1, 3))
        gates[rows] = gate_tiles(patches, stain)[0]
        passing = patches[gates[rows] == Gate.tissue]
        for sigma in SIGMAS:
            caught[sigma] += int((gate_tiles(blurred(passing, sigma), stain)[0] == Gate.blur).sum())
    told: dict[str, object] = {"patches": len(cohort)}
    for name, label in (("idc", 1), ("other", 0)):
        mine = gates[cohort.labels == label]
        told[name] = {"patches": len(mine), **{gate.name: 100 * float((mine == gate).mean()) for gate in Gate}}
    passing_all = int((gates == Gate.tissue).sum())
    told["caught"] = {f"{sigma:g} px": 100 * count / passing_all for sigma, count in caught.items()}
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()

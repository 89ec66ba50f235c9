"""How far Grad-CAM and occlusion agree on a network, and whether its maps depend on what it learned.

    python benchmarks/explanation_agreement.py COHORT RUN [RUN ...] [--patches 64] [--shuffled 32]

COHORT is a prepared cohort, of which so many patches are taken, evenly; RUN a run folder with a Keras network. Of
each run, by name: the median over patches of Spearman's correlation of the two maps (squares of 16 px), with Grad-CAM
averaged over the eight orientations, of occlusion maps with squares of 10 and 16 px, in the mean colour and in
that of the background, and what `ductal.inference.sanity.randomisation` finds. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from ductal.data.cohort import Cohort
from ductal.inference.engines import load_keras
from ductal.inference.explain import agreement, grad_cam, occlusion
from ductal.inference.predictor import Predictor
from ductal.inference.sanity import randomisation

BACKGROUND = (240, 240, 240)


def evenly(cohort: Cohort, count: int) -> np.ndarray:
    """uint8 (count, 50, 50, 3)."""
    return np.stack([cohort.pixels[row] for row in np.linspace(0, len(cohort) - 1, count).round().astype(int)])


def figures(run: Path, patches: np.ndarray, shuffled: np.ndarray) -> dict[str, object]:
    """See the module."""
    model, predict = load_keras(run / "model.keras"), Predictor.from_run(run, exact=True).predict
    called = predict(patches) >= 0.5
    large = occlusion(predict, patches, size=16, stride=5, target=called)
    small = occlusion(predict, patches, size=10, stride=5, target=called)
    pale = occlusion(predict, patches, size=16, stride=5, target=called, fill=BACKGROUND)

    def middle(first: np.ndarray, second: np.ndarray) -> float:
        return float(np.nanmedian(agreement(first, second)))

    return {
        "grad_cam_and_occlusion": middle(grad_cam(model, patches, target=called), large),
        "d4_grad_cam_and_occlusion": middle(grad_cam(model, patches, target=called, d4=True), large),
        "squares_of_10_and_16": middle(small, large),
        "mean_colour_and_background": middle(large, pale),
        "after_shuffling": [round(float(value), 4) for value in randomisation(model, shuffled)["agreement"]],
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--patches", type=int, default=64)
    parser.add_argument("--shuffled", type=int, default=32)
    given = parser.parse_args()
    cohort = Cohort.open(given.cohort)
    patches, shuffled = evenly(cohort, given.patches), evenly(cohort, given.shuffled)
    told = {run.name: figures(run, patches, shuffled) for run in given.runs}
    print(json.dumps({"patches": given.patches, "shuffled": given.shuffled, **told}, indent=1))


if __name__ == "__main__":
    main()

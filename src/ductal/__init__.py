"""ductal: from the IDC breast-histology archive to trained, compared and honestly evaluated models.

Example:
    >>> import ductal
    >>> cohort = ductal.prepare("IDC_regular_ps50_idx5.zip", "cohort")  # doctest: +SKIP
    >>> split = ductal.make_split(cohort, "published")  # doctest: +SKIP
    >>> run = ductal.train("vgg16-full", cohort, split, "runs/vgg16-full")  # doctest: +SKIP
    >>> ductal.evaluate(run, cohort, split)  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ductal.api import train
    from ductal.cluster.slides import analyse_slides_on
    from ductal.data.audit import audit_split
    from ductal.data.cohort import Cohort
    from ductal.data.fetch import fetch
    from ductal.data.split import Split
    from ductal.data.splitting import make_split
    from ductal.data.store import export_folders, prepare
    from ductal.data.synthetic import make_synthetic
    from ductal.evaluation.compare import leaderboard
    from ductal.evaluation.evaluate import evaluate
    from ductal.experiment import Plan, run_experiment
    from ductal.export.export import export_run
    from ductal.inference.predictor import Predictor
    from ductal.slides.analyse import SlideAnalyser, analyse_slide
    from ductal.slides.batch import analyse_slides
    from ductal.training.recipe_file import load_recipe

__version__ = "0.1.0"

# Loaded when first used, so that `import ductal` and `ductal --help` do not wait for TensorFlow.
_HOME = {
    "Cohort": "ductal.data.cohort",
    "Plan": "ductal.experiment",
    "Predictor": "ductal.inference.predictor",
    "SlideAnalyser": "ductal.slides.analyse",
    "Split": "ductal.data.split",
    "analyse_slide": "ductal.slides.analyse",
    "analyse_slides": "ductal.slides.batch",
    "analyse_slides_on": "ductal.cluster.slides",
    "audit_split": "ductal.data.audit",
    "evaluate": "ductal.evaluation.evaluate",
    "export_folders": "ductal.data.store",
    "export_run": "ductal.export.export",
    "fetch": "ductal.data.fetch",
    "leaderboard": "ductal.evaluation.compare",
    "load_recipe": "ductal.training.recipe_file",
    "make_split": "ductal.data.splitting",
    "make_synthetic": "ductal.data.synthetic",
    "prepare": "ductal.data.store",
    "run_experiment": "ductal.experiment",
    "train": "ductal.api",
}
__all__ = [
    "Cohort",
    "Plan",
    "Predictor",
    "SlideAnalyser",
    "Split",
    "analyse_slide",
    "analyse_slides",
    "analyse_slides_on",
    "audit_split",
    "evaluate",
    "export_folders",
    "export_run",
    "fetch",
    "leaderboard",
    "load_recipe",
    "make_split",
    "make_synthetic",
    "prepare",
    "run_experiment",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ductal' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

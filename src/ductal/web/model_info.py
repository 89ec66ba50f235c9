"""What the page and the API say of the model: everything comes from the run folder, in the words of its report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ductal.context.model import FILE as CONTEXT_FILE
from ductal.evaluation import facts, limits
from ductal.evaluation.model_card import FILE as CARD_FILE
from ductal.evaluation.model_card import model_card
from ductal.evaluation.report_model import FIGURES, METRICS
from ductal.evaluation.runs import PART_WORDS, RunRecord, load_run
from ductal.inference.predictor import Predictor
from ductal.slides.analyse import SlideAnalyser
from ductal.web.answers import SIDE, Judge
from ductal.web.schemas import Band
from ductal.web.settings import Limits

RESEARCH_ONLY = "Research use only. No diagnosis: nothing here may guide the care of a patient."
PATCH_FORMATS = ["PNG", "JPEG", "TIFF"]
SLIDE_FORMATS = ["PNG", "JPEG", "TIFF", "SVS", "NDPI", "SCN", "BIF"]
URL = "/api/v1/model/figures/"


class InputInfo(BaseModel):
    """What an image must look like."""

    patch_px: int
    spacing_um: float
    spacing_assumed: bool
    stain: str
    text: str


class CalibrationInfo(BaseModel):
    """How logits become probabilities."""

    temperature: float
    bias: float
    fitted_on: str


class TrainingData(BaseModel):
    """What the model has learned from; null where the run does not say."""

    patients: int | None
    patches: int | None
    prevalence: float | None
    synthetic: bool
    split: str


class Metric(BaseModel):
    """A figure with its 95 % interval over patients, null where there is none."""

    name: str
    title: str
    means: str
    value: float | None
    low: float | None
    high: float | None
    part: str


class FigureInfo(BaseModel):
    """A picture of the run's evaluation."""

    name: str
    title: str
    caption: str
    url: str


class LimitInfo(BaseModel):
    """How much the server takes."""

    patch_bytes: int
    batch_bytes: int
    files: int
    slide_bytes: int
    slide_pixels: int
    jobs_waiting: int
    job_seconds: float
    kept_seconds: float
    patch_formats: list[str]
    slide_formats: list[str]


class ModelInfo(BaseModel):
    """The model, how far it may be trusted, and what the server takes."""

    name: str
    title: str
    research_use_only: str
    track: str
    engine: str
    ensemble_members: int
    d4: bool
    input: InputInfo
    threshold: float
    threshold_rule: str
    slide_threshold: float
    calibration: CalibrationInfo
    abstain: Band | None
    abstain_rule: str | None
    trained_on: TrainingData
    metrics: list[Metric]
    intended_use: list[str]
    out_of_scope: list[str]
    intended_limits: list[str]
    figures: list[FigureInfo]
    context: bool
    limits: LimitInfo


class Card(BaseModel):
    """The run's model card."""

    markdown: str
    html: str


@dataclass(frozen=True)
class RunInfo:
    """What was read from the run folder when the server started.

    Attributes:
        model: the answer of /api/v1/model.
        card: the run's MODEL_CARD.md, or what it would be.
        figures: path of each figure by its name.
    """

    model: ModelInfo
    card: str
    figures: dict[str, Path]


def read_run(folder: Path, predictor: Predictor, analyser: SlideAnalyser, judge: Judge, allowed: Limits) -> RunInfo:
    """Describe a run. Raises RunError where it is not a finished one."""
    run = load_run(folder, evaluated=False)
    paths = {name: folder / "figures" / f"{name}.png" for name, *_ in FIGURES}
    paths = {name: path for name, path in paths.items() if path.is_file()}
    settings = run.calibration
    model = ModelInfo(
        name=run.name, title=run.title, research_use_only=RESEARCH_ONLY, track=analyser.track,
        engine=predictor.engine.name, ensemble_members=len(predictor.members), d4=predictor.d4,
        input=_input(analyser), threshold=judge.threshold, slide_threshold=analyser.threshold,
        threshold_rule=str(settings.get("threshold_rule", facts.UNKNOWN)),
        calibration=CalibrationInfo(
            temperature=predictor.temperature, bias=predictor.bias,
            fitted_on=dict(facts.calibration_facts(run)).get("Calibration", facts.UNKNOWN),
        ),
        abstain=judge.band, abstain_rule=dict(facts.calibration_facts(run)).get("To leave to a person"),
        trained_on=_trained_on(run), metrics=_metrics(run), intended_use=limits.intended_use(),
        out_of_scope=limits.out_of_scope(), intended_limits=limits.limits(run),
        figures=[
            FigureInfo(name=name, title=what, caption=look, url=f"{URL}{name}")
            for name, _, what, look in FIGURES if name in paths
        ],
        context=(folder / CONTEXT_FILE).is_file(), limits=_limits(allowed),
    )  # fmt: skip
    path = folder / CARD_FILE
    return RunInfo(model, path.read_text(encoding="utf-8") if path.is_file() else model_card(run), paths)


def _input(analyser: SlideAnalyser) -> InputInfo:
    spacing, assumed = analyser.spacing_um, analyser.spacing_assumed
    doubt = " (taken as that; the scale of the training patches is not recorded)" if assumed else ""
    return InputInfo(
        patch_px=SIDE, spacing_um=spacing, spacing_assumed=assumed, stain="H&E",
        text=f"Breast tissue stained with haematoxylin and eosin (H&E). A patch is {SIDE} x {SIDE} px at {spacing:g} "
        f"um per pixel, {SIDE * spacing:g} um wide{doubt}. A region or slide may have any finer scale that is known.",
    )  # fmt: skip


def _trained_on(run: RunRecord) -> TrainingData:
    split = run.run.get("split") or {}
    counts = (split.get("counts") or {}).get("train") or {}
    patches, positives = counts.get("patches"), counts.get("positives")
    return TrainingData(
        patients=counts.get("patients"), patches=split.get("trained_on", patches), synthetic=run.synthetic,
        prevalence=positives / patches if patches else None, split=facts.split_words(run),
    )  # fmt: skip


def _metrics(run: RunRecord) -> list[Metric]:
    """At the run's threshold, on the part that counts most."""
    if not run.parts:
        return []
    block = run.metrics[run.parts[-1]]
    intervals: dict[str, Any] = (block.get("intervals") or {}).get("at_threshold") or {}
    found = []
    for key, title, means in METRICS:
        low, high = intervals.get(key) or (None, None)
        found.append(Metric(name=key, title=title, means=means, value=block["at_threshold"].get(key), low=low,
                            high=high, part=PART_WORDS[run.parts[-1]]))  # fmt: skip
    return found


def _limits(allowed: Limits) -> LimitInfo:
    taken = {name: getattr(allowed, name) for name in LimitInfo.model_fields if hasattr(allowed, name)}
    return LimitInfo(**taken, patch_formats=PATCH_FORMATS, slide_formats=SLIDE_FORMATS)

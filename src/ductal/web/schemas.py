"""The bodies of answers."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from ductal.web.problems import Problem

Call = Literal["cancer", "not_cancer", "unsure"]
Probability = Field(ge=0, le=1)


class Note(BaseModel):
    """Something to know before believing a result; `code` is stable."""

    code: str
    text: str


class Band(BaseModel):
    """Between these two probabilities the model makes no call."""

    low: float = Probability
    high: float = Probability


class Views(BaseModel):
    """What the model says of the 8 rotations and flips of a patch, which show the same tissue."""

    mean: float = Field(ge=0, le=1, description="of the mean logit of the views")
    lowest: float = Probability
    highest: float = Probability
    views: list[float] = Field(min_length=8, max_length=8)
    agree: int = Field(ge=0, le=8, description="views on the same side of the threshold as the answer")


class Prediction(BaseModel):
    """The answer for one patch."""

    name: str
    probability: float = Field(ge=0, le=1, description="of invasive ductal carcinoma, calibrated")
    call: Call
    above_threshold: bool = Field(description="what the call would be, were the model never unsure")
    words: str
    threshold: float = Probability
    abstain: Band | None
    d4: Views | None = Field(description="with ?views=true, and always where the run averages over the views")
    warnings: list[Note]
    width: int
    height: int


class Failed(BaseModel):
    """A file of a batch that got no prediction."""

    name: str
    problem: Problem


class Counts(BaseModel):
    """How many files of a batch came out how."""

    files: int
    cancer: int
    not_cancer: int
    unsure: int
    failed: int
    warned: int


class Batch(BaseModel):
    """The answers for many patches, in the order of the files."""

    predictions: list[Prediction | Failed]
    counts: Counts


class Explanation(BaseModel):
    """A prediction, and where in the patch the network finds what it calls."""

    prediction: Prediction
    map_png: str = Field(description="base64 of an RGBA PNG, transparent where the map is low")
    patch_png: str = Field(description="base64 of a PNG: the patch as the network sees it")
    px: int
    explains: Literal["cancer", "not_cancer"]
    empty: bool = Field(description="nothing in the patch speaks for the class, so there is nothing to show")
    layer: str


class Sample(BaseModel):
    """An image to try."""

    name: str
    title: str
    origin: Literal["synthetic", "cohort"]
    kind: Literal["patch", "region"]
    label: Literal["cancer", "not_cancer"] | None
    url: str


class Status(BaseModel):
    """Of the server."""

    status: Literal["ok", "ready"]

"""The faults of the usual notebook as switches: a configuration is one network and a set of faults.

A fault is data: what it changes in the training, what it changes in the report. Nothing here computes, and
nothing but `ductal.prior` and its command reads it. `docs/prior.md` explains each fault, `docs/faults.md` how the
rest of the package refuses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ductal.errors import RecipeError


@dataclass(frozen=True)
class Training:
    """Everything a trained model depends on, beside cohort, epochs and seed; equal ones are trained once.

    Attributes:
        network: VGG16 (Simonyan & Zisserman 2014), a CNN of four blocks, or EfficientNetB0 (Tan & Le 2019).
        weights: what it starts from; "synthetic" is this CNN trained on the synthetic cohort first.
        frozen: the base keeps its weights and only a head learns.
        input_px: side to which patches are up-sampled.
        rescaled: pixels are divided by 255 before a network that expects 0 to 255.
        normalised: EfficientNet's own normalisation holds the statistics of the training patches.
        norm_trains: BatchNorm of the pretrained base uses and learns the statistics of each batch.
        by_patch: patches, not patients, are divided.
        copies: how often every file is in the archive.
        first_files: only the first files of each class folder are used.
        runs: seeds that are tried; the best of them is kept.
    """

    network: Literal["vgg16", "cnn", "efficientnetb0"]
    weights: Literal["imagenet", "random", "synthetic"]
    frozen: bool
    input_px: int = 50
    rescaled: bool = False
    normalised: bool = True
    norm_trains: bool = False
    by_patch: bool = False
    copies: int = 1
    first_files: bool = False
    runs: int = 1

    @property
    def label(self) -> str:
        """The network in words."""
        name = {"vgg16": "VGG16", "cnn": "small CNN", "efficientnetb0": "EfficientNetB0"}[self.network]
        how = {"imagenet": "", "random": " from random weights", "synthetic": " pretrained on synthetic patches"}
        size = f" at {self.input_px} px" if self.input_px != 50 else ""
        return f"{name}{how[self.weights]}{', frozen' if self.frozen else ''}{size}"


@dataclass(frozen=True)
class Reporting:
    """How the figure that is published comes about, once the model is trained.

    Attributes:
        part: the author's test part, or the validation part that also chose the epoch.
        augmented: the patches are turned, shifted and zoomed at random first.
        shuffled: the predictions are in another order than the labels.
        inverted: the output, which is P(not cancer) in alphabetical order of folders, is read as P(cancer).
    """

    part: Literal["test", "val"] = "test"
    augmented: bool = False
    shuffled: bool = False
    inverted: bool = False


@dataclass(frozen=True)
class Fault:
    """One mistake.

    Attributes:
        name: as on the command line.
        says: what it is, in one sentence.
        training: the fields of `Training` that it changes.
        reporting: the fields of `Reporting` that it changes.
        base: fields of the honest configuration it is shown on, where that is another than the chosen network.
    """

    name: str
    says: str
    training: Mapping[str, Any] = field(default_factory=dict)
    reporting: Mapping[str, Any] = field(default_factory=dict)
    base: Mapping[str, Any] = field(default_factory=dict)


BACKBONES: dict[str, Training] = {
    "vgg16": Training("vgg16", "imagenet", frozen=True),
    "cnn": Training("cnn", "random", frozen=False),
    "efficientnetb0": Training("efficientnetb0", "random", frozen=False),
}
_EFFICIENTNET = {"network": "efficientnetb0", "weights": "random", "frozen": False}
_PRETRAINED_CNN = {"network": "cnn", "weights": "synthetic", "frozen": False}
_LARGE_INPUT = {"network": "vgg16", "weights": "imagenet", "frozen": True, "input_px": 96}

FAULTS = (
    Fault(
        "leaky-split",
        "Patient ids are thrown away and patches are divided at random.",
        training={"by_patch": True},
    ),
    Fault(
        "duplicated-patches",
        "Every file is in the archive twice, as in Kaggle's, and files are divided at random.",
        training={"by_patch": True, "copies": 2},
    ),
    Fault(
        "no-test-set",
        "The figure comes from the validation patients, who also chose the epoch.",
        reporting={"part": "val"},
    ),
    Fault(
        "best-of-five",
        "Five seeds are tried, and the one with the best validation accuracy is reported, on validation.",
        training={"runs": 5},
        reporting={"part": "val"},
    ),
    Fault(
        "first-200",
        "Only the first files of each class folder are used, for training and for the figure.",
        training={"first_files": True},
    ),
    Fault(
        "augmented-validation",
        "The patches that are reported on are rotated, shifted, zoomed and flipped at random.",
        reporting={"augmented": True},
    ),
    Fault(
        "shuffled-matrix",
        "Predictions of a shuffled generator are set against unshuffled labels.",
        reporting={"shuffled": True},
    ),
    Fault(
        "inverted-classes",
        "Class folders are numbered in alphabetical order, so the output is P(not cancer), and is read as P(cancer).",
        reporting={"inverted": True},
    ),
    Fault(
        "double-rescale",
        "Pixels are divided by 255 before a network that expects 0 to 255 or does so itself.",
        training={"rescaled": True},
    ),
    Fault(
        "batch-norm-training",
        "BatchNorm of a pretrained network trains while it is fine-tuned, with Keras's momentum of 0.99.",
        training={"norm_trains": True},
        base=_PRETRAINED_CNN,
    ),
    Fault(
        "frozen-random",
        "The EfficientNet trained from scratch is frozen: random weights stay random.",
        training={"frozen": True},
        base=_EFFICIENTNET,
    ),
    Fault(
        "unset-normalisation",
        "EfficientNet is built with weights=None, and nobody adapts its normalisation layer.",
        training={"normalised": False},
        base=_EFFICIENTNET,
    ),
    Fault(
        "one-pixel-maps",
        "Patches of 50 px go into a network of stride 32, whose last map is then one pixel.",
        training={"input_px": 50},
        base=_LARGE_INPUT,
    ),
)


@dataclass(frozen=True)
class Configuration:
    """A notebook: a network, the faults in it, and what they make of training and report.

    `honest` is the same network's training without the faults; a configuration without faults is its own.
    """

    faults: tuple[Fault, ...]
    training: Training
    reporting: Reporting
    honest: Training

    @property
    def name(self) -> str:
        """The faults, or the network where there are none."""
        return " + ".join(fault.name for fault in self.faults) or f"none: {self.honest.label}"


def fault_named(name: str) -> Fault:
    """The fault of that name. Raises RecipeError where there is none."""
    for fault in FAULTS:
        if fault.name == name:
            return fault
    known = ", ".join(fault.name for fault in FAULTS)
    raise RecipeError(f"There is no fault {name!r}. Choose among {known}.")


def configurations(names: Iterable[str], backbone: str = "vgg16", *, one_by_one: bool) -> list[Configuration]:
    """What is to be run for these faults, each honest counterpart once and before those that need it.

    Args:
        names: of faults.
        backbone: one of `BACKBONES`, for faults that can be shown on any network.
        one_by_one: a configuration for each fault; otherwise one with all of them.

    Raises:
        RecipeError: no fault, one that is unknown, an unknown backbone, or faults that contradict each other.
    """
    faults = tuple(fault_named(name) for name in dict.fromkeys(names))
    if not faults:
        raise RecipeError("No fault was chosen, so there is nothing to show. Name one, or take all of them.")
    if backbone not in BACKBONES:
        raise RecipeError(f"There is no backbone {backbone!r} here. Choose one of {', '.join(BACKBONES)}.")
    found: list[Configuration] = []
    for group in [(fault,) for fault in faults] if one_by_one else [faults]:
        faulty = _configuration(group, BACKBONES[backbone])
        honest = Configuration((), faulty.honest, Reporting(), faulty.honest)
        if honest not in found:
            found.append(honest)
        found.append(faulty)
    return found


def _configuration(faults: tuple[Fault, ...], base: Training) -> Configuration:
    honest = replace(base, **_merged([(fault.name, fault.base) for fault in faults]))
    training = replace(honest, **_merged([(fault.name, fault.training) for fault in faults]))
    reporting = Reporting(**_merged([(fault.name, fault.reporting) for fault in faults]))
    return Configuration(faults, training, reporting, honest)


def _merged(changes: list[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """All changes in one; RecipeError where two want different things."""
    merged: dict[str, Any] = {}
    by: dict[str, str] = {}
    for name, change in changes:
        for key, value in change.items():
            if merged.setdefault(key, value) != value:
                raise RecipeError(
                    f"The faults {by[key]} and {name} cannot be shown in one configuration: {key} would be both "
                    f"{merged[key]} and {value}. Show them one after the other."
                )
            by.setdefault(key, name)
    return merged

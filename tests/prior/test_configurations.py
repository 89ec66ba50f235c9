"""A configuration is a network and a set of faults: what is compared with what, and what contradicts itself."""

from __future__ import annotations

from pathlib import Path

import pytest

import ductal
from ductal.errors import RecipeError
from ductal.prior.faults import BACKBONES, FAULTS, Reporting, configurations, fault_named

NAMES = [fault.name for fault in FAULTS]


def test_every_fault_changes_something_and_says_so() -> None:
    assert len(set(NAMES)) == len(NAMES)
    for fault in FAULTS:
        assert fault.training or fault.reporting
        assert fault.says.endswith(".")
        faulty = configurations([fault.name], one_by_one=True)[1]
        assert (faulty.training, faulty.reporting) != (faulty.honest, Reporting())


def test_honest_counterparts_come_first_and_once() -> None:
    found = configurations(NAMES, one_by_one=True)
    honest = [one.honest for one in found if not one.faults]
    assert len(found) == len(FAULTS) + len(honest)
    assert len(set(honest)) == len(honest) == 4
    seen = []
    for one in found:
        if not one.faults:
            assert one.training == one.honest
            assert one.reporting == Reporting()
            seen.append(one.honest)
        assert one.honest in seen


@pytest.mark.parametrize("name", ["no-test-set", "augmented-validation", "shuffled-matrix", "inverted-classes"])
def test_faults_of_the_report_need_no_training_of_their_own(name: str) -> None:
    assert not fault_named(name).training
    honest, faulty = configurations([name], one_by_one=True)
    assert faulty.training == honest.training


@pytest.mark.parametrize("backbone", list(BACKBONES))
def test_the_backbone_is_that_of_faults_that_need_none_of_their_own(backbone: str) -> None:
    honest, faulty = configurations(["leaky-split"], backbone, one_by_one=True)
    assert honest.training == BACKBONES[backbone]
    assert faulty.training.network == backbone
    assert configurations(["frozen-random"], backbone, one_by_one=True)[1].training.network == "efficientnetb0"


def test_the_network_whose_map_is_one_pixel_is_the_usual_one() -> None:
    honest, faulty = configurations(["one-pixel-maps"], one_by_one=True)
    assert honest.training.input_px == 96
    assert faulty.training == BACKBONES["vgg16"]


def test_several_faults_in_one_configuration() -> None:
    honest, faulty = configurations(["leaky-split", "duplicated-patches", "no-test-set"], one_by_one=False)
    assert faulty.name == "leaky-split + duplicated-patches + no-test-set"
    assert (faulty.training.by_patch, faulty.training.copies, faulty.reporting.part) == (True, 2, "val")
    assert honest.name == "none: VGG16, frozen"


@pytest.mark.parametrize(
    ("names", "backbone", "message"),
    [
        ([], "vgg16", "No fault was chosen"),
        (["leaky"], "vgg16", "There is no fault 'leaky'. Choose among leaky-split"),
        (["leaky-split"], "resnet", "There is no backbone 'resnet'"),
        (["frozen-random", "batch-norm-training"], "vgg16", "frozen-random and batch-norm-training cannot be shown"),
    ],
)
def test_mistakes_have_one_clear_message(names: list[str], backbone: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        configurations(names, backbone, one_by_one=False)


def test_only_the_command_line_reaches_the_faults() -> None:
    package = Path(ductal.__file__).parent
    using = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "ductal.prior" in path.read_text(encoding="utf-8")
    }
    assert {name for name in using if not name.startswith("prior/")} == {"cli_tools.py"}

"""`ductal prior`: what each fault of the usual notebook does to the figure that is published, and to the true one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from rich.console import Console

from ductal.console import say
from ductal.data.cohort import INFO, Cohort
from ductal.data.split import Split
from ductal.data.splitting import make_split
from ductal.errors import DataError, RecipeError
from ductal.experiment import CLAIM, Plan
from ductal.experiment_data import audited, open_cohort
from ductal.files import sole_writer, write_text
from ductal.prior.division import RATIOS, first_count, hold_out
from ductal.prior.faults import Configuration, configurations
from ductal.prior.reporting import Outcome, in_words
from ductal.prior.study import HEAD_EPOCHS, Study
from ductal.prior.tables import NOTICE, to_csv, to_markdown, to_record, to_rich_table
from ductal.record import package_versions

DEFAULT_PATIENTS = 30
FILES = ("prior.csv", "prior.md", "prior.json")


@dataclass(frozen=True)
class Demonstration:
    """What `demonstrate` shall show.

    Attributes:
        faults: names of `ductal.prior.faults.FAULTS`.
        one_by_one: a configuration for each fault; otherwise one with all of them.
        source: an archive, a folder, or a prepared cohort; None makes the synthetic cohort.
        out: the folder for the table (and for the cohort that is prepared).
        patients: patients to draw; by default `DEFAULT_PATIENTS` of an archive, all of a prepared cohort.
        limit_per_class: training patches per class of each patient; the hold-out always has all of its patches.
        epochs: passes of networks that train whole; heads on frozen layers make four times as many.
        seed: of everything random.
        backbone: network of the faults that can be shown on any; see `ductal.prior.faults.BACKBONES`.
        weights_file: ImageNet weights of VGG16 to use.
    """

    faults: tuple[str, ...]
    one_by_one: bool = True
    source: Path | None = None
    out: Path = Path("ductal-prior")
    patients: int | None = None
    limit_per_class: int | None = None
    epochs: int = 8
    seed: int = 42
    backbone: str = "vgg16"
    weights_file: Path | None = None


def demonstrate(plan: Demonstration, console: Console | None = None) -> list[Outcome]:
    """Measure every configuration and write `FILES` into `plan.out`.

    Raises:
        RecipeError: an unknown fault or backbone, faults that contradict each other, or no epoch.
        DataError: the source cannot be used, or has no patient ids, without which there is no true figure.
        LeakError: the audit found tissue of the hold-out among the other patients.
        WeightsError: the ImageNet weights of VGG16 are needed and not to be had.
        StorageError: the disk refused the write. BusyError: another command writes into `plan.out`.
    """
    console = console or Console(quiet=True)
    if plan.epochs < 1:
        raise RecipeError(f"epochs must be at least 1. Received: {plan.epochs}.")
    chosen = configurations(plan.faults, plan.backbone, one_by_one=plan.one_by_one)
    say(console, NOTICE)
    with sole_writer(plan.out / CLAIM):  # the cohort is made there, too
        return _measure(plan, chosen, console)


def _measure(plan: Demonstration, chosen: Sequence[Configuration], console: Console) -> list[Outcome]:
    """All configurations, one after the other."""
    cohort = open_cohort(_data(plan), console)
    if not cohort.info.has_patients:
        raise DataError(
            f"The cohort {cohort.info.name!r} has no patient ids, so no patient can be held out and no true figure "
            "be measured. Name an archive with genuine file names."
        )
    split = make_split(cohort, "random", seed=plan.seed, ratios=RATIOS)
    audited(cohort, split, console)
    study = Study(
        cohort, split, epochs=plan.epochs, seed=plan.seed, weights_file=plan.weights_file, console=console
    )
    caption, about = _caption(plan, cohort, split), _about(plan, cohort, split)
    outcomes: list[Outcome] = []
    for number, configuration in enumerate(chosen, start=1):
        say(console, f"{number} of {len(chosen)}: {configuration.name}")
        outcomes.append(study.measure(configuration))
        # After each one: an interrupted call leaves the rows that it finished.
        texts = (to_csv(outcomes), to_markdown(outcomes, caption), to_record(outcomes, about))
        for name, text in zip(FILES, texts, strict=True):
            write_text(plan.out / name, text)
        say(console, in_words(outcomes[-1]))
    console.print(to_rich_table(outcomes, caption))
    say(console, NOTICE)
    say(console, f"Table: {plan.out / FILES[1]}, also as CSV and JSON")
    return outcomes


def _data(plan: Demonstration) -> Plan:
    prepared = plan.source is None or (plan.source / INFO).is_file()
    return Plan(
        source=plan.source, out=plan.out, seed=plan.seed, limit_per_class=plan.limit_per_class,
        patients=plan.patients or (None if prepared else DEFAULT_PATIENTS),
    )  # fmt: skip


def _caption(plan: Demonstration, cohort: Cohort, split: Split) -> str:
    held_out = cohort.labels[hold_out(cohort, split)]
    kind = "synthetic patches, which show no tissue" if cohort.info.synthetic else "patches"
    return (
        f"True: {len(held_out):,} {kind} of {len(split.parts['test'])} hold-out patients, {held_out.mean():.1%} IDC, "
        f"whom no configuration is trained on. Threshold 0.5; epochs {plan.epochs}, {plan.epochs * HEAD_EPOCHS} for "
        f"heads on frozen layers; seed {plan.seed}; first files: {first_count(cohort)} a class folder. "
        "One seed and few patients: small differences are chance."
    )


def _about(plan: Demonstration, cohort: Cohort, split: Split) -> dict[str, Any]:
    return {
        "settings": {
            "faults": list(plan.faults),
            "one_by_one": plan.one_by_one,
            "epochs": plan.epochs,
            "seed": plan.seed,
            "backbone": plan.backbone,
            "first_files": first_count(cohort),
        },
        "cohort": cohort.info.model_dump(mode="json"),
        "split": {"id": split.identity, "counts": split.count(cohort)},
        "versions": package_versions("ductal", "keras", "numpy") | {"tensorflow": tf.__version__},
    }

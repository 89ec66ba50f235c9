"""What `fuzz.py` gives damaged files to: every way in which a file of somebody else gets into `ductal`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

CHECKPOINT_KEY = "0123456789abcdef" * 4


def read_archive(folder: Path, name: str) -> None:
    """All patches of an archive, as `prepare` reads them."""
    from ductal.data.manifest import read_manifest
    from ductal.data.quality import inspect_chunk
    from ductal.data.sources import open_source

    source = open_source(folder / name)
    count = len(source.entries)
    inspect_chunk((source.chunk_reader(), source.chunk(0, count), count))
    read_manifest(folder / name)


def read_image(folder: Path, name: str) -> None:
    """A patch; its faults are results."""
    from ductal.data.quality import RULES, inspect

    pixels, reason, _ = inspect((folder / name).read_bytes())
    assert reason in RULES if pixels is None else pixels.shape == (50, 50, 3)
    if pixels is None:
        from ductal.errors import DataError

        raise DataError(reason)


def read_slide(folder: Path, name: str) -> None:
    """A slide, its overview and one rectangle."""
    from ductal.slides.reader import Box, open_slide

    with open_slide(folder / name, 0.5) as slide:
        slide.overview(200)
        for level in range(len(slide.source.sizes)):
            slide.read(Box(10, 10, 400, 400), level, 50, 50)


def read_recipe(folder: Path, name: str) -> None:
    """A recipe."""
    from ductal.training.recipe_file import load_recipe

    load_recipe(folder / name)


def read_split(folder: Path, name: str) -> None:
    """A split, and what identifies it."""
    from ductal.data.split import Split

    split = Split.load(folder / name)
    split.identity  # noqa: B018 - computed over all ids
    split.save(folder / "again.json")


def read_csv(folder: Path, name: str) -> None:
    """Class folders with a patients CSV."""
    from ductal.data.sources import open_source

    open_source(folder, folder / name if name.endswith(".csv") else None)


def read_run(folder: Path, name: str) -> None:  # noqa: ARG001
    """All that is read of a run but its network: by predictions, evaluations, comparisons and reports."""
    from ductal.context.model import ContextModel
    from ductal.evaluation.analysis import read_failures
    from ductal.evaluation.compare import leaderboard
    from ductal.evaluation.runs import read_trained
    from ductal.inference.predictor import read_settings

    read_settings(folder)
    ContextModel.load(folder)
    read_trained(folder)
    read_failures(folder)
    leaderboard([folder, folder])


def read_network(folder: Path, name: str) -> None:
    """A network, and one prediction."""
    from ductal.inference.engines import load_keras

    load_keras(folder / name)(np.zeros((2, 50, 50, 3), np.uint8))


def read_cohort(folder: Path, name: str) -> None:  # noqa: ARG001
    """A prepared cohort, and its patches."""
    from ductal.data.cohort import Cohort

    cohort = Cohort.open(folder)
    np.asarray(cohort.pixels[:100]).mean()
    cohort.groups.tolist()


def read_tables(folder: Path, name: str) -> None:
    """A Parquet table of numbers and text, as whoever reads one reads it."""
    from ductal.errors import RunError
    from ductal.loading.records import read_table

    try:
        read_table(folder / name, ["patch_id", "patient", "label", "prob"])
    except (OSError, ValueError) as error:
        raise RunError(str(error)) from error


def read_space(folder: Path, name: str) -> None:
    """A search space, and whether a recipe has what it varies."""
    from ductal.training.recipe_file import load_recipe
    from ductal.tune.space import load_space

    load_space(str(folder / name)).check(load_recipe("vgg16-frozen"))


def read_encoder(folder: Path, name: str) -> None:  # noqa: ARG001
    """An ONNX file, gone through before a library reads it."""
    from ductal.loading.onnx_file import onnx_files

    onnx_files(folder / "encoder.onnx")


def read_checkpoint(folder: Path, name: str) -> None:  # noqa: ARG001
    """The checkpoints of a training: the newest that is whole, which need not be the last; its content is whole."""
    from ductal.errors import RunError
    from ductal.training.checkpoint import Checkpoints

    told: list[str] = []
    with Checkpoints(folder, CHECKPOINT_KEY, told.append) as checkpoints:
        found = checkpoints.newest()
        if told:
            raise RunError(told[0])
        assert found is not None
        assert (found.groups["weights"][0] == np.arange(1000, dtype=np.float32) + found.epoch).all()


READERS: dict[str, Callable[[Path, str], None]] = {
    "archive": read_archive,
    "image": read_image,
    "slide": read_slide,
    "recipe": read_recipe,
    "split": read_split,
    "csv": read_csv,
    "run": read_run,
    "network": read_network,
    "cohort": read_cohort,
    "table": read_tables,
    "space": read_space,
    "encoder": read_encoder,
    "checkpoint": read_checkpoint,
}

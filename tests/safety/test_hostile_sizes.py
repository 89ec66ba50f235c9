"""Descriptions of networks from a stranger that ask for more memory than anybody sent: refused for that alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hostile import Json, change_config, insert, layer, members, named, refused, write

from ductal.inference.engines import load_keras


def _wide(config: Json, large: bool) -> None:
    layer(config, "probability")["config"]["units"] = 10**9 if large else 1


def _wide_convolution(config: Json, large: bool) -> None:
    layer(config, "convolution")["config"]["filters"] = 10**6 if large else 4


def _huge_kernel(config: Json, large: bool) -> None:
    layer(config, "convolution")["config"].update(kernel_size=[10**4, 10**4] if large else [7, 7], padding="same")


def _enlarged(config: Json, large: bool) -> None:
    px = 10**5 if large else 60
    layer(config, "to_float").update(class_name="Resizing", config={"name": "to_float", "height": px, "width": px})


def _huge_input(config: Json, large: bool) -> None:
    px = 10**6 if large else 60
    layer(config, "patches")["config"]["batch_shape"] = [None, px, px, 3]


def _padded(config: Json, large: bool) -> None:
    insert(config, "convolution", "padded", "ZeroPadding2D", padding=10**4 if large else 1)


def _many_layers(config: Json, large: bool) -> None:
    for number in range(2001 if large else 3):
        insert(config, "drop", f"one_more_{number}", "Activation", activation="linear")


def _infinite(config: Json, large: bool) -> None:
    layer(config, "to_float")["config"]["scale"] = float("inf") if large else 0.01


def _endless_number(config: Json, large: bool) -> None:
    layer(config, "convolution")["config"]["filters"] = 10**4000 if large else 4


BOUNDS = [
    (_wide, "a setting of a layer is 1000000000, out of range"),
    (_wide_convolution, "need more numbers than its weights file holds"),
    (_huge_kernel, "need more numbers than its weights file holds"),
    (_enlarged, "'to_float' enlarges to more than 1024 px"),
    (_huge_input, "its input is larger than 1024 px"),
    (_padded, r"'padded' computes \(20011, 20011, 4\) values"),
    (_many_layers, "does not have 1 to 2000 layers"),
    (_infinite, "a setting of a layer is inf, out of range"),
    (_endless_number, "a setting of a layer is 1000.*, out of range"),
]


@pytest.mark.parametrize(("attack", "match"), BOUNDS, ids=named)
def test_a_description_that_would_fill_the_memory_is_refused(
    attack: Callable[[Json, bool], None], match: str, run: Path, canary: Path
) -> None:
    """For its size alone: the same with small numbers is read."""
    whole = members(run / "model.keras")
    change_config(run / "model.keras", lambda config: attack(config, False))
    load_keras(run / "model.keras")
    write(run / "model.keras", whole)
    change_config(run / "model.keras", lambda config: attack(config, True))
    refused(run, canary, match)

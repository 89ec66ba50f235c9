"""The genuine file names are read exactly, and nothing else is taken for one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ductal.data.naming import PatchName, format_patch_name, parse_patch_name

NAME = "10254_idx5_x101_y1351_class0"


@pytest.mark.parametrize(
    "given_name",
    [
        NAME,
        f"{NAME}.png",
        f"{NAME}.PNG",
        f"{NAME}.tiff",
        f"IDC/10254/0/{NAME}.png",
        f"C:\\data\\{NAME}.png",
        Path("10254/0") / f"{NAME}.png",
    ],
)
def test_genuine_names_are_read(given_name: str | Path) -> None:
    assert parse_patch_name(given_name) == PatchName("10254", 101, 1351, 0)


@pytest.mark.parametrize(
    "given_name",
    [
        "",
        "photo.png",
        f"{NAME}.txt",
        f"{NAME}.png.bak",
        f"copy of {NAME}.png",
        f"{NAME}\n",
        "10254_idx5_x101_y1351_class2.png",
        "10254_idx5_x-1_y1351_class0.png",
        "10254_idx5_x0101_y1351_class0.png",
        "10254_idx5_x123456789_y1_class0.png",
        "_idx5_x1_y1_class0.png",
        "a/../_idx5_x1_y1_class0.png",
    ],
)
def test_other_names_are_not(given_name: str) -> None:
    assert parse_patch_name(given_name) is None


@given(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9-]{0,9}", fullmatch=True),
    st.integers(1, 99_999_999),
    st.integers(1, 99_999_999),
    st.integers(0, 1),
)
def test_format_and_parse_are_inverse(patient: str, x: int, y: int, label: int) -> None:
    assert parse_patch_name(format_patch_name(patient, x, y, label)) == (patient, x, y, label)

"""Functions of the page's scripts, by answers that are known."""

from __future__ import annotations

from typing import Any

import pytest

GRID = {
    "columns": 4, "rows": 3, "tile_mm2": 0.5, "last_column_share": 1, "last_row_share": 1,
    "probabilities": [0.9, 0.8, None, 0.2, 0.1, 0.7, None, 0.6, 0.0, 0.3, 0.5, 0.6],
}  # fmt: skip


def call(page: Any, module: str, expression: str, *values: Any) -> Any:
    """An expression over the names of a module, and over `values`."""
    script = f"async (values) => {{ const m = await import('/static/js/{module}'); return {expression} }}"
    return page.evaluate(script, values)


def test_areas_count_tiles_from_the_threshold_on(page: Any) -> None:
    assert call(page, "grid.js", "m.areas(values[0], 0.6)", GRID) == {"judged": 5.0, "above": 2.5, "tiles": 5}
    assert call(page, "grid.js", "m.areas(values[0], 0.95)", GRID)["above"] == 0
    cut = GRID | {"last_column_share": 0.5, "last_row_share": 0.2}  # tiles at the picture's edges are smaller
    assert call(page, "grid.js", "m.areas(values[0], 0.6)", cut)["above"] == pytest.approx(1.5 + 0.25 + 0.05)


def test_regions_touch_by_their_sides(page: Any) -> None:
    found = call(page, "grid.js", "m.regions(values[0], 0.5)", GRID)
    assert [each["tiles"] for each in found] == [3, 3]
    assert sorted(each["box"] for each in found) == [[0, 0, 2, 2], [2, 1, 4, 3]]
    first = next(each for each in found if each["box"] == [0, 0, 2, 2])
    assert first["mean"] == pytest.approx(0.8)
    assert first["highest"] == 0.9
    assert first["mm2"] == 1.5


def test_outlines_go_round_each_region(page: Any) -> None:
    assert len(call(page, "grid.js", "m.outlines(values[0], 0.5)", GRID)) == 8 + 8  # three tiles in an L
    assert call(page, "grid.js", "m.outlines(values[0], 0.95)", GRID) == []


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0, "< 0.1 %"), (0.004, "0.4 %"), (0.5, "50 %"), (0.994, "99.4 %"), (0.9999, "> 99.9 %"), (0.876, "88 %")],
)
def test_percent_is_never_0_or_100(page: Any, value: float, words: str) -> None:
    assert call(page, "format.js", "m.percent(values[0])", value) == words


def test_csv_quotes_and_disarms(page: Any) -> None:
    row = {"name": '=1+1,"x"', "found": None, "problem": {"title": "No", "detail": ""}}
    text = call(page, "csv.js", "m.asCsv(values)", row)
    assert text.split("\r\n")[1] == '"\'=1+1,""x""",,,,,,,,No'


def test_heat_is_blue_pale_and_red(page: Any) -> None:
    low, middle, high = (call(page, "heat.js", "m.heatColour(values[0])", value) for value in (0, 0.5, 1))
    assert low == [0x31, 0x36, 0x95]
    assert middle == [0xFF, 0xFF, 0xBF]
    assert high == [0xA5, 0x00, 0x26]

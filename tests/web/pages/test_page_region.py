"""A region through the page: heat map, sliders, keys, downloads, cancelling."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import TOKEN, give, open_page, until
from page_run import COLUMNS, ROWS, SQUARE, region, upload
from PIL import Image
from web_server import Server, png

TILE_MM2 = 0.2 * 0.2  # 50 px of 4 um
DARK_TILES = (SQUARE[2] - SQUARE[0]) * (SQUARE[3] - SQUARE[1])
FILE = upload("region.png", png(region()))


@pytest.fixture(scope="module")
def opened(browser: Any, server: Server) -> Iterator[Any]:
    """A tab with the region's result, which these tests share: computing it takes seconds."""
    with open_page(browser, server.url, token=TOKEN) as page:
        give(page, FILE)
        page.wait_for_selector("#region-done:visible")
        yield page


def area(page: Any) -> float:
    """What the page says, in mm2."""
    return float(page.inner_text("#region-area").split()[0])


def set_threshold(page: Any, percent: int) -> None:
    page.fill("#threshold", str(percent))
    page.wait_for_timeout(150)  # the list follows when the slider rests


def drawn(page: Any) -> str:
    """What the canvas holds, once it has followed."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return str(page.evaluate("document.querySelector('#canvas').toDataURL()"))


def saved(page: Any, button: str, tmp_path: Path) -> Path:
    """What the button downloads."""
    with page.expect_download() as waiting:
        page.click(button)
    path = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def pixel(page: Any, column: float, row: float) -> np.ndarray:
    """Colour on the canvas in the middle of a tile."""
    return np.array(page.evaluate(
        """([x, y]) => {
          const canvas = document.querySelector("#canvas");
          const scale = Math.min((canvas.clientWidth - 24) / 600, (canvas.clientHeight - 24) / 400);
          const [left, top] = [(canvas.clientWidth - 600 * scale) / 2, (canvas.clientHeight - 400 * scale) / 2];
          const ratio = devicePixelRatio;
          const at = [(left + 50 * x * scale) * ratio, (top + 50 * y * scale) * ratio];
          return [...canvas.getContext("2d").getImageData(...at.map(Math.round), 1, 1).data];
        }""",
        [column + 0.5, row + 0.5],
    )[:3])  # fmt: skip


def test_the_area_follows_the_threshold(opened: Any) -> None:
    set_threshold(opened, 50)
    assert area(opened) == pytest.approx(DARK_TILES * TILE_MM2, abs=0.005)
    assert f"of the {COLUMNS * ROWS * TILE_MM2:.2f} mm² judged" in opened.inner_text("#region-share")
    set_threshold(opened, 1)
    assert area(opened) > DARK_TILES * TILE_MM2
    set_threshold(opened, 50)
    opened.focus("#threshold")
    opened.keyboard.press("End")
    assert opened.inner_text("#threshold-value") == "99 %"
    assert "mm²" in opened.get_attribute("#threshold", "aria-valuetext")
    set_threshold(opened, 50)
    assert area(opened) == pytest.approx(DARK_TILES * TILE_MM2, abs=0.005)


def test_areas_are_listed_and_shown(opened: Any) -> None:
    opened.click("#zoom-fit")
    set_threshold(opened, 50)
    assert opened.locator("#found li").count() == 1
    before = drawn(opened)
    opened.click("#found li button")
    assert drawn(opened) != before
    opened.click("#zoom-fit")


def test_opacity_mixes_heat_and_tissue(opened: Any) -> None:
    opened.click("#zoom-fit")
    set_threshold(opened, 50)
    picture = region()
    colours = {}
    for opacity in (0, 100):
        opened.fill("#opacity", str(opacity))
        drawn(opened)
        colours[opacity] = (pixel(opened, 4, 3), pixel(opened, 0, 0))
    assert np.abs(colours[0][0] - picture[150:200, 200:250].mean(axis=(0, 1))).max() < 60  # the tissue itself
    dark, pale = colours[100]
    assert dark[0] > 140 and dark[2] < 80  # noqa: PT018 - red
    assert pale[2] > 120 and pale[0] < 120  # noqa: PT018 - blue
    opened.check("#only-above")
    drawn(opened)
    assert np.abs(pixel(opened, 0, 0) - colours[0][1]).max() < 3  # no heat below the threshold
    opened.uncheck("#only-above")
    opened.fill("#opacity", "50")


def test_keys_zoom_move_and_read_tiles(opened: Any) -> None:
    opened.click("#zoom-fit")
    opened.focus("#canvas")
    whole = drawn(opened)
    opened.keyboard.press("+")
    closer = drawn(opened)
    assert closer != whole
    opened.keyboard.press("ArrowRight")
    assert drawn(opened) != closer
    opened.keyboard.press("0")
    assert drawn(opened) == whole
    opened.keyboard.press("Shift+ArrowRight")
    first = opened.inner_text("#reading")
    opened.keyboard.press("Shift+ArrowRight")
    second = opened.inner_text("#reading")
    column = lambda text: int(re.search(r"Column (\d+)", text)[1])  # noqa: E731
    assert column(second) == column(first) + 1
    assert "threshold" in second
    assert opened.get_attribute("#reading", "aria-live") == "polite"


def test_the_mouse_reads_a_tile_drags_and_zooms(opened: Any) -> None:
    opened.click("#zoom-fit")
    box = opened.locator("#canvas").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    opened.mouse.move(*middle)
    assert "above the threshold" in opened.inner_text("#reading")  # the dark square is there
    opened.mouse.wheel(0, -400)
    before = drawn(opened)
    opened.mouse.down()
    opened.mouse.move(middle[0] + 90, middle[1] + 40)
    opened.mouse.up()
    assert drawn(opened) != before
    opened.click("#zoom-fit")


def test_tiles_are_downloaded_as_csv(opened: Any, tmp_path: Path) -> None:
    path = saved(opened, "#get-csv", tmp_path)
    assert path.name == "region-tiles.csv"
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    assert len(rows) == COLUMNS * ROWS
    above = [(int(row["column"]), int(row["row"])) for row in rows if float(row["probability"]) >= 0.5]
    left, top, right, bottom = SQUARE
    assert sorted(above) == [(x, y) for x in range(left, right) for y in range(top, bottom)]


def test_outlines_are_those_at_the_chosen_threshold(opened: Any, tmp_path: Path) -> None:
    def square_px(threshold: int) -> float:
        set_threshold(opened, threshold)
        path = saved(opened, "#get-geojson", tmp_path)
        assert path.name == f"region-threshold-{threshold / 100:g}.geojson"
        features = json.loads(path.read_text(encoding="utf-8"))["features"]
        return sum(each["properties"]["measurements"]["tiles"] for each in features)

    assert square_px(50) == DARK_TILES
    assert square_px(1) > DARK_TILES
    set_threshold(opened, 50)


def test_the_picture_is_downloaded_as_it_is_seen(opened: Any, tmp_path: Path) -> None:
    opened.click("#zoom-fit")
    path = saved(opened, "#get-png", tmp_path)
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        width = opened.evaluate("document.querySelector('#canvas').width")
        assert image.format == "PNG"
        assert image.width == width
        assert image.height > opened.evaluate("document.querySelector('#canvas').height")
        colours = np.asarray(image.convert("RGB")).astype(int)
    assert (colours[..., 0] - colours[..., 2] > 60).sum() > 1000  # heat is on it


def test_the_result_outlives_a_reload_and_is_gone_when_discarded(browser: Any, server: Server) -> None:
    with open_page(browser, server.url, token=TOKEN) as page:
        give(page, FILE)
        page.wait_for_selector("#region-done:visible")
        job = json.loads(page.evaluate("sessionStorage.getItem('ductal.job')"))["id"]
        page.reload()
        page.wait_for_selector("body[data-ready]")
        page.click("#resume button")
        page.wait_for_selector("#region-done:visible")
        assert area(page) == pytest.approx(DARK_TILES * TILE_MM2, abs=0.005)
        page.click("#region-discard")
        page.wait_for_selector("#view-start:visible")
        assert server.client.get(f"/api/v1/slides/{job}").status_code == 404
        assert page.evaluate("sessionStorage.getItem('ductal.job')") is None


def test_a_job_can_be_cancelled(page: Any, server: Server) -> None:
    give(page, FILE)
    until(page, "sessionStorage.getItem('ductal.job') !== null")
    job = json.loads(page.evaluate("sessionStorage.getItem('ductal.job')"))["id"]
    page.click("#region-cancel")
    page.wait_for_selector("#region-problem .problem")
    assert page.inner_text("#region-problem .problem__title") == "Cancelled"
    until(page, "sessionStorage.getItem('ductal.job') === null")
    page.wait_for_timeout(300)
    assert server.client.get(f"/api/v1/slides/{job}").status_code == 404
    assert not page.is_visible("#region-running")

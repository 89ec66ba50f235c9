"""Patches through the page: one, a broken one, many."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
from browser import give, until
from page_run import DARK, DOUBTFUL, HIGH, LOW, PALE, THRESHOLD, patch, upload
from web_server import Server, png, tissue

CUT = png(tissue(DARK))[:200]


def numbers(page: Any) -> float:
    """The probability that the page shows, in percent."""
    return float(page.inner_text("#patch-number").replace("%", "").strip(" <>"))


def test_a_patch_is_called_in_words_and_number(page: Any) -> None:
    give(page, patch("dark.png", DARK))
    page.wait_for_selector("#patch-done:visible")
    assert page.inner_text("#patch-title") == "Called cancer"
    assert page.inner_text("#patch-name") == "dark.png"
    assert numbers(page) > 100 * HIGH
    assert "threshold of 50 %" in page.inner_text("#patch-words")
    assert f"threshold {100 * THRESHOLD:.0f} %" in page.inner_text("#patch-scale")
    assert f"unsure, {100 * LOW:.0f} % to {100 * HIGH:.0f} %" in page.inner_text("#patch-scale")
    assert page.locator("#d4-views li").count() == 8
    assert "8 views" in page.inner_text("#d4-words")
    assert page.evaluate("document.activeElement.id") == "patch-title"


def test_a_pale_patch_is_not_cancer_and_a_doubtful_one_gets_no_call(page: Any) -> None:
    give(page, patch("pale.png", PALE))
    page.wait_for_selector("#patch-done:visible")
    assert page.inner_text("#patch-title") == "Called not cancer"
    assert numbers(page) < 100 * LOW
    give(page, patch("doubtful.png", DOUBTFUL))
    until(page, "document.querySelector('#patch-title').textContent.startsWith('Unsure')")
    assert 100 * LOW < numbers(page) < 100 * HIGH
    assert "no call" in page.inner_text("#patch-words")


def test_the_map_is_as_opaque_as_its_slider_says(page: Any) -> None:
    give(page, patch("dark.png", DARK))
    page.wait_for_selector("#patch-map:visible")
    opacity = "getComputedStyle(document.querySelector('#patch-map')).opacity"
    page.fill("#map-opacity", "25")
    assert float(page.evaluate(opacity)) == 0.25
    assert page.inner_text("#map-opacity-value") == "25 %"
    page.focus("#map-opacity")
    page.keyboard.press("ArrowRight")
    assert float(page.evaluate(opacity)) == 0.3
    assert "cancer" in page.inner_text("#map-words")


def test_a_broken_file_is_told_where_its_result_would_be(page: Any) -> None:
    give(page, upload("broken.png", CUT))
    page.wait_for_selector("#patch-problem .problem")
    assert page.inner_text("#patch-title") == "No result"
    assert page.get_attribute("#patch-problem .problem", "data-code") == "damaged"
    assert not page.is_visible("#patch-done")
    give(page, patch("pale.png", PALE))  # and the page goes on
    page.wait_for_selector("#patch-done:visible")
    assert not page.locator("#patch-problem .problem").count()


def test_a_file_that_is_no_picture_is_told(page: Any) -> None:
    give(page, upload("letter.png", b"Dear colleague"))
    page.wait_for_selector(".problem:visible")
    assert page.get_attribute(".problem:visible", "data-code") == "unsupported_format"


def test_a_tiff_that_browsers_cannot_show_is_shown_all_the_same(page: Any) -> None:
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(tissue(DARK)).save(content, "TIFF")
    give(page, upload("dark.tif", content.getvalue()))
    page.wait_for_selector("#patch-done:visible")
    until(page, "document.querySelector('#patch-image').naturalWidth === 50")
    assert page.is_visible("#patch-image")


def many() -> list[dict[str, Any]]:
    """40 patches from pale to dark, one of them broken: more than go into one request."""
    densities = np.linspace(PALE, DARK, 39)
    files = [patch(f"patch-{at:02d}.png", each, at) for at, each in enumerate(densities)]
    return [*files, upload("=broken,1.png", CUT)]


def column(page: Any, at: int) -> list[str]:
    """Texts of a column of the table, from the top."""
    return [text.split("\n")[0] for text in page.locator(f"#batch-body td:nth-child({at})").all_inner_texts()]


def classified(page: Any) -> None:
    give(page, *many())
    until(page, "document.querySelectorAll('#batch-body tr').length === 40")
    page.wait_for_selector("#batch-running", state="hidden")


def test_many_patches_are_counted_sorted_and_filtered(page: Any) -> None:
    classified(page)
    counts = dict(reversed(each.split("\n")) for each in page.locator("#batch-counts li").all_inner_texts())
    assert sum(map(int, counts.values())) == 40
    assert counts["Not classified"] == "1"
    assert column(page, 1)[0] == "patch-00.png"
    page.click("th[data-key=probability] button")
    assert page.get_attribute("th[data-key=probability]", "aria-sort") == "descending"
    shown = [float(each.replace("%", "").strip(" <>")) for each in column(page, 2)[:-1]]
    assert shown == sorted(shown, reverse=True)
    page.click("th[data-key=probability] button")
    assert page.get_attribute("th[data-key=probability]", "aria-sort") == "ascending"
    assert "damaged" in column(page, 2)[-1].lower()  # rows without a number come last either way
    page.check("input[name=call][value=cancer]", force=True)
    assert set(column(page, 3)) == {"Cancer"}
    assert len(column(page, 1)) == int(counts["Cancer"])
    page.check("input[name=call][value='']", force=True)
    page.fill("#batch-search", "patch-1")
    assert len(column(page, 1)) == 10
    assert page.inner_text("#batch-shown") == "10 of 40 pictures"


def test_the_histogram_has_the_same_numbers_as_a_table(page: Any) -> None:
    classified(page)
    assert page.locator("#histogram svg rect").count() > 2
    page.click("#histogram-figure summary")
    cells = page.locator("#histogram-table tbody tr td:nth-of-type(1)").all_inner_texts()
    assert sum(map(int, cells)) == 39
    assert "39 probabilities" in page.get_attribute("#histogram svg", "aria-label")


def test_the_csv_holds_what_the_table_shows(page: Any, tmp_path: Path) -> None:
    classified(page)
    with page.expect_download() as waiting:
        page.click("#batch-csv")
    waiting.value.save_as(tmp_path / "table.csv")
    rows = list(csv.DictReader((tmp_path / "table.csv").open(encoding="utf-8", newline="")))
    assert len(rows) == 40
    assert {row["call"] for row in rows[:-1]} == {"cancer", "not_cancer", "unsure"}
    assert all((float(row["probability"]) >= HIGH) == (row["call"] == "cancer") for row in rows[:-1])
    assert rows[-1]["file"] == "'=broken,1.png"  # no spreadsheet runs it
    assert rows[-1]["probability"] == ""
    assert rows[-1]["problem"]


def test_a_row_opens_its_patch_and_back_leads_to_the_table(page: Any) -> None:
    classified(page)
    page.click("text=patch-38.png")
    page.wait_for_selector("#patch-done:visible")
    assert page.inner_text("#patch-title") == "Called cancer"
    page.click("#patch-back")
    page.wait_for_selector("#batch-table:visible")  # the browser tells of a new address a moment later
    page.go_back()
    page.wait_for_selector("#patch-done:visible")


def test_samples_are_there_to_click_at_once(page: Any, server: Server) -> None:
    listed = server.client.get("/api/v1/samples").json()
    assert page.locator("#samples button").count() == len(listed)
    assert "drawn by a program" in page.inner_text("#samples-origin")
    page.click("#samples button[data-kind=patch] >> nth=0")
    page.wait_for_selector("#patch-done:visible")
    assert "label is" in page.inner_text("#patch-truth")


def test_pasted_pictures_and_dropped_ones_are_taken(page: Any) -> None:
    give_by = """([kind, bytes, name]) => {
      const data = new DataTransfer();
      data.items.add(new File([Uint8Array.from(bytes)], name, { type: "image/png" }));
      const settings = { bubbles: true, cancelable: true };
      document.dispatchEvent(kind === "paste"
        ? new ClipboardEvent(kind, { ...settings, clipboardData: data })
        : new DragEvent(kind, { ...settings, dataTransfer: data }));
    }"""
    page.evaluate(give_by, ["paste", list(png(tissue(DARK))), "pasted.png"])
    page.wait_for_selector("#patch-done:visible")
    assert page.inner_text("#patch-title") == "Called cancer"
    page.evaluate(give_by, ["drop", list(png(tissue(PALE))), "dropped.png"])
    until(page, "document.querySelector('#patch-title').textContent === 'Called not cancer'")
    assert page.inner_text("#patch-name") == "dropped.png"


def test_a_batch_can_be_cancelled_and_what_is_done_stays(page: Any) -> None:
    asked: list[Any] = []

    def second_waits(route: Any) -> None:
        asked.append(route)
        if len(asked) == 1:
            route.continue_()

    page.route("**/predict/batch*", second_waits)
    give(page, *many())
    until(page, "document.querySelectorAll('#batch-body tr').length === 32")
    page.click("#batch-cancel")
    page.wait_for_selector("#batch-problem .problem")
    assert page.inner_text("#batch-problem .problem__title") == "Cancelled"
    assert "32 of 40 pictures were classified before" in page.inner_text("#batch-problem")
    assert not page.is_visible("#batch-running")
    assert page.locator("#batch-body tr").count() == 32
    assert page.is_enabled("#batch-csv")

"""The pages by keyboard, on a phone, in the dark, for axe-core; and what they say when the server refuses."""

from __future__ import annotations

from typing import Any

import pytest
from browser import TOKEN, axe_script, give, open_page, sideways, until, violations
from page_run import DARK, PALE, patch, region, upload
from web_server import Server, png, tissue

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
FILES = [patch(f"patch-{at}.png", density) for at, density in enumerate((PALE, DARK, DARK))]
BROKEN = upload("broken.png", png(tissue(DARK))[:150])


def visit(page: Any) -> Any:
    """Yield the name of each state of the pages, with the page in it."""
    yield "start"
    give(page, BROKEN)
    page.wait_for_selector("#patch-problem .problem")
    yield "error"
    give(page, FILES[1])
    page.wait_for_selector("#patch-map:visible")
    yield "patch"
    give(page, *FILES, BROKEN)
    page.wait_for_selector("#batch-running", state="hidden")
    page.click("#histogram-figure summary")
    yield "batch"
    give(page, upload("region.png", png(region())))
    page.wait_for_selector("#region-running:visible")
    yield "region running"
    page.wait_for_selector("#region-done:visible")
    yield "region"
    page.goto(page.url.split("#")[0] + "model")
    page.wait_for_selector("body[data-ready]")
    page.click("#model-card-box summary")
    yield "model"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, server: Server, scheme: str) -> None:
    settings = {"color_scheme": scheme, "scripts": (axe_script(),)}
    with open_page(browser, server.url, token=TOKEN, **settings) as page:
        found = {state: violations(page) for state in visit(page)}
    assert len(found) == 7
    assert {state: each for state, each in found.items() if each} == {}


def test_nothing_scrolls_sideways_on_a_phone(browser: Any, server: Server) -> None:
    with open_page(browser, server.url, token=TOKEN, **PHONE) as page:
        wider = {state: sideways(page) for state in visit(page)}
    assert len(wider) == 7
    assert {state: pixels for state, pixels in wider.items() if pixels > 0} == {}


def test_a_finger_pinches_and_moves_the_picture(browser: Any, server: Server) -> None:
    with open_page(browser, server.url, token=TOKEN, **PHONE) as page:
        give(page, upload("region.png", png(region())))
        page.wait_for_selector("#region-done:visible")
        canvas = page.locator("#canvas")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        before = canvas.screenshot()
        assert page.evaluate("document.querySelector('#canvas').style.touchAction") == "pan-y"
        touch = page.context.new_cdp_session(page)
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for kind, half in (("touchStart", 30), ("touchMove", 60), ("touchMove", 90)):
            points = [{"x": x - half, "y": y, "id": 0}, {"x": x + half, "y": y, "id": 1}]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        page.wait_for_timeout(100)
        assert canvas.screenshot() != before
        assert page.evaluate("document.querySelector('#canvas').style.touchAction") == "none"


def test_the_keyboard_is_enough(page: Any) -> None:
    choosers: list[Any] = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))  # before the key: the browser hears late
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "choose"
    page.keyboard.press("Enter")
    for _ in range(300):
        if choosers:
            break
        page.wait_for_timeout(30)
    assert choosers[0].is_multiple()
    page.keyboard.press("Tab")
    assert "sample" in page.evaluate("document.activeElement.className")
    page.keyboard.press("Enter")
    page.wait_for_selector("#patch-done:visible")
    assert page.evaluate("document.activeElement.id") == "patch-title"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Another picture"
    page.keyboard.press("Enter")
    page.wait_for_selector("#view-start:visible")  # the browser tells of a new address a moment later
    until(page, "document.activeElement.id === 'start-title'")


def test_an_event_that_comes_late_does_not_take_the_focus(page: Any) -> None:
    give(page, FILES[0])
    page.wait_for_selector("#patch-done:visible")
    page.wait_for_timeout(400)  # the event of the address has come
    page.focus("#view-patch a[href='#start']")
    page.evaluate("window.dispatchEvent(new HashChangeEvent('hashchange'))")
    page.wait_for_timeout(400)
    assert page.evaluate("document.activeElement.textContent") == "Another picture"


def test_a_screen_reader_is_told_of_results(page: Any) -> None:
    give(page, FILES[1])
    until(page, "document.querySelector('#announcer').textContent.startsWith('Called cancer')")
    assert page.get_attribute("#announcer", "aria-live") == "polite"
    give(page, *FILES)
    until(page, "document.querySelector('#announcer').textContent.startsWith('3 pictures')")
    assert "2 called cancer, 1 not cancer" in page.inner_text("#announcer")


def test_the_token_is_asked_for_until_it_is_right(browser: Any, server: Server) -> None:
    with open_page(browser, server.url, ready=False) as page:
        page.wait_for_selector("#token-dialog[open]")
        page.fill("#token-value", "wrong")
        page.keyboard.press("Enter")
        until(page, "document.querySelector('#token-wrong').textContent !== ''")
        page.fill("#token-value", TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_selector("body[data-ready]")
        assert not page.is_visible("#token-dialog")
    with open_page(browser, server.url, ready=False) as page:
        page.click("#token-cancel")
        page.wait_for_selector("#start-problem .problem")
        assert "token" in page.inner_text("#start-problem").lower()


def test_a_server_that_is_gone_is_told_in_words(page: Any) -> None:
    page.context.set_offline(True)
    give(page, FILES[0])
    page.wait_for_selector("#patch-problem .problem")
    assert "does not answer" in page.inner_text("#patch-problem")
    page.context.set_offline(False)


def test_the_model_page_says_how_well_and_what_not(page: Any, server: Server) -> None:
    told = server.client.get("/api/v1/model").json()
    page.click("text=The model")
    page.wait_for_selector("body[data-ready]")
    assert page.inner_text("#model-title") == told["title"]
    assert page.locator("#model-limits li").count() == len(told["intended_limits"])
    auc = next(each for each in told["metrics"] if each["name"] == "roc_auc")
    assert f"{auc['value']:.3f}" in page.inner_text("#model-metrics")
    assert "On test patients" in page.inner_text("#model-metrics")
    widths = page.evaluate("[...document.querySelectorAll('#model-figures img')].map((each) => each.naturalWidth)")
    assert len(widths) == len(told["figures"]) > 0
    assert min(widths) > 0
    page.click("#model-figures button >> nth=0")
    assert page.is_visible("#figure-dialog")
    page.keyboard.press("Escape")
    page.click("#model-card-box summary")
    assert "Research use only" in page.inner_text("#model-card")
    assert page.locator("#model-card script, #model-card [style]").count() == 0
    assert "Research use only" in page.inner_text(".research")


def test_no_address_but_the_servers_own_is_asked(browser: Any, server: Server) -> None:
    asked: list[str] = []
    with open_page(browser, server.url, token=TOKEN) as page:
        page.on("request", lambda request: asked.append(request.url))
        page.reload()
        page.wait_for_selector("body[data-ready]")
        page.goto(f"{server.url}/model")
        page.wait_for_selector("body[data-ready]")
    assert len(asked) > 20
    assert {url for url in asked if not url.startswith((server.url, "blob:", "data:"))} == set()


def test_on_paper_there_is_the_result_and_nothing_to_press(page: Any) -> None:
    give(page, FILES[1])
    page.wait_for_selector("#patch-map:visible")
    page.emulate_media(media="print", color_scheme="dark")
    shown = "[...document.querySelectorAll('button, nav, footer, input')].filter((each) => each.checkVisibility())"
    assert page.evaluate(f"{shown}.map((each) => each.outerHTML)") == []
    assert page.is_visible(".research")
    assert page.is_visible("#patch-number")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    colours = page.evaluate(
        "['#patch-title', '#patch-words', '#patch-number', '.research'].map((each) => "
        "getComputedStyle(document.querySelector(each)).color.match(/[0-9.]+/g).slice(0, 3).map(Number))"
    )
    assert max(0.299 * red + 0.587 * green + 0.114 * blue for red, green, blue in colours) < 110  # dark on white
    assert page.pdf()[:5] == b"%PDF-"


@pytest.mark.parametrize(("motion", "moving"), [("reduce", 0), ("no-preference", 1)])
def test_nothing_turns_for_those_who_do_not_want_it(browser: Any, server: Server, motion: str, moving: int) -> None:
    with open_page(browser, server.url, token=TOKEN, reduced_motion=motion) as page:
        page.route("**/api/v1/predict*", lambda _: None)  # the answer does not come
        page.route("**/api/v1/explain*", lambda _: None)
        give(page, FILES[1])
        page.wait_for_selector("#view-patch .spinner:visible")
        assert page.evaluate("document.getAnimations().length") == moving

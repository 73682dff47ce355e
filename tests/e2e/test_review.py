"""The review page by keyboard, in a real Chromium."""

import numpy as np
import pytest
from support.chromium import CHROMIUM, PATIENCE_MS
from support.databases import a_record, opened
from support.server import running

from inkdigits.serving.api.keys import digest_of

pytest.importorskip("playwright")
from playwright.sync_api import expect

pytest_plugins = ["support.chromium"]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, in the path or CHROMIUM")

NUMBER = {
    "digit": None,
    "text": "42",
    "digits": ({"digit": 4}, {"digit": 2}),
    "ink": np.zeros((2, 28, 28), np.uint8),
}


@pytest.fixture
def store(tmp_path):
    with opened(f"sqlite:///{tmp_path / 'inkdigits.sqlite3'}", tmp_path) as made:
        yield made


@pytest.fixture
def page(chromium, store, tmp_path):
    settings = {"INKDIGITS_DATA_DIR": str(tmp_path), "INKDIGITS_WORKERS": "1"}
    with running(INKDIGITS_REVIEWERS=f"ada:{digest_of('ink_ada')}", **settings) as service:
        context = chromium.new_context(base_url=f"http://127.0.0.1:{service.port}/")
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.goto("sign-in")
        page.fill("input[name=token]", "ink_ada")
        page.click("button.primary")
        yield page
        context.close()


def keep(store, count, **changes):
    """Keep unsure readings, the surest last, and return their ids in the order of the queue."""
    records = [
        a_record(n, decision="review", confidence=0.5 + n / 1000, **changes) for n in range(count)
    ]
    for record in records:
        store.keep(record)
    return [record.id for record in records]


def test_sixty_labels_by_keyboard_are_all_kept(store, page):
    names = keep(store, 70)
    (number,) = keep(store, 1, **NUMBER)
    page.reload()
    labels = [str(n * 7 % 10) if n % 6 else "none" for n in range(60)]
    expect(page.locator("#read")).to_have_text("0")
    # The number is as unsure as the first, and younger.
    page.keyboard.press("s")
    expect(page.locator("#read")).to_have_text("42")
    for key in ("4", "1", "Backspace", "7", "Enter"):
        page.keyboard.press(key)
    page.keyboard.press("u")
    page.keyboard.type("407")
    page.keyboard.press("Enter")
    for label in labels:
        page.keyboard.press(label[0], delay=50)
    expect(page.locator("#done")).to_have_text("61", timeout=PATIENCE_MS)
    expect(page.locator("#left")).to_have_text("10")
    expect(page.locator("#problem")).to_have_text("")
    page.wait_for_load_state("networkidle")
    assert [store.get(name).label for name in names[1:61]] == labels
    assert [store.get(name).label for name in (names[0], number)] == [None, "407"]
    # What was skipped comes back with the next visit.
    page.reload()
    expect(page.locator("#read")).to_have_text("0")
    page.keyboard.press("u")
    expect(page.locator("#left")).to_have_text("10")


def test_a_label_that_the_service_cannot_keep_now_is_sent_again(store, page):
    names = keep(store, 3)
    page.reload()
    expect(page.locator("#read")).to_have_text("0")
    page.route("**/review/*", lambda route: route.fulfill(status=503, json={"error": {}}))
    page.keyboard.type("12")
    expect(page.locator("#problem")).to_contain_text("The label is not saved yet")
    page.unroute("**/review/*")
    expect(page.locator("#problem")).to_have_text("", timeout=PATIENCE_MS)
    expect(page.locator("#done")).to_have_text("2")
    page.wait_for_load_state("networkidle")
    assert [store.get(name).label for name in names] == ["1", "2", None]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_and_fits_a_small_screen(store, page, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    keep(store, 1, **NUMBER)
    page.emulate_media(color_scheme=scheme)
    for width in (320, 375, 1280):
        page.set_viewport_size({"width": width, "height": 640})
        page.reload()
        expect(page.locator("#read")).to_have_text("42")
        page.click("summary")
        found = axe.run(page).response["violations"]
        assert [(each["id"], each["nodes"][0]["html"]) for each in found] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width

"""The page in a real Chromium: of one process behind nginx, and of three services."""

import base64
import contextlib
from collections import namedtuple

import pytest
from PIL import Image, ImageDraw
from support.chromium import CHROMIUM, PATIENCE_MS
from support.databases import EmbeddedPostgres, needs_postgresql
from support.nginx import UNDER_A_PATH, nginx_before
from support.pictures import encoded
from support.server import REAL, running

from inkdigits.model.artifact import shipped_artifact

pytest.importorskip("playwright")
from playwright.sync_api import expect
from support.visitor import THREE, Visitor

pytest_plugins = ["support.chromium"]

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, in the path or at CHROMIUM"),
    pytest.mark.skipif(not shipped_artifact().is_file(), reason="needs the shipped model"),
]

PAGES = ("", "history", "dashboard", "model")
# Chromium's own words for an answer of status 4xx or 5xx, or for none.
NETWORK_ERROR = "Failed to load resource"


Site = namedtuple("Site", "url model")  # where its page is, and which service has the model


@pytest.fixture(scope="module", params=["one process under a path", "three services"])
def site(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    with contextlib.ExitStack() as stack:

        def start(name, **settings):
            data = {"INKDIGITS_DATA_DIR": str(folder / name)}
            return stack.enter_context(running(program=REAL, **data, **settings))

        if request.param == "one process under a path":
            service = start("all", INKDIGITS_TRUSTED_PROXIES="127.0.0.1")
            front = nginx_before(service.port, folder / "nginx", UNDER_A_PATH)
            yield Site(f"http://127.0.0.1:{stack.enter_context(front)}/digits/", service)
            return
        needs_postgresql()
        server = EmbeddedPostgres()
        stack.callback(server.remove)
        model = start("model", INKDIGITS_PAGE="off")
        url = f"http://127.0.0.1:{model.port}"
        web = start("web", MODEL_URL=url, DATABASE_URL=server.empty_database())
        yield Site(f"http://127.0.0.1:{web.port}/", model)


@pytest.fixture
def visit(chromium, site):
    with contextlib.ExitStack() as stack:

        def open_page(**options):
            visitor = Visitor(chromium, site.url, **options)
            stack.callback(visitor.context.close)
            visitor.page.goto("")
            return visitor

        yield open_page


def three_png():
    image = Image.new("L", (300, 300), 255)
    points = [(300 * x, 300 * y) for x, y in THREE]
    ImageDraw.Draw(image).line(points, fill=0, width=24, joint="curve")
    return encoded(image)


HAND_OVER = """([kind, text]) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "three.png", { type: "image/png" }));
  const init = { bubbles: true, cancelable: true };
  document.body.dispatchEvent(
    kind === "paste"
      ? new ClipboardEvent("paste", { ...init, clipboardData: data })
      : new DragEvent("drop", { ...init, dataTransfer: data }),
  );
}"""


def test_three_is_drawn_corrected_found_again_and_counted(visit):
    visitor = visit()
    page = visitor.page
    expect(page.locator("#decision")).to_have_text("Nothing drawn yet")
    visitor.draw()
    visitor.reads("3")
    expect(page.locator("#ink")).to_be_visible()
    expect(page.locator(".bars li.top")).to_have_attribute("data-digit", "3")
    page.click("#wrong")
    page.click('[data-label="8"]')
    expect(page.locator("#thanks")).to_have_text("Thank you. The label 8 was saved.")
    page.goto("history")
    for _ in range(2):
        expect(page.locator(".record")).to_have_count(1)
        expect(page.locator(".record .digit")).to_have_text("3")
        expect(page.locator(".record .bad")).to_have_text("✗ it is an 8")
        page.reload()
    page.goto("dashboard")
    expect(page.locator("#accuracy")).to_have_text("0.0 %")
    page.goto("history")
    page.click(".record summary")
    page.click(".record .danger")
    expect(page.locator(".record")).to_have_count(0)
    assert visitor.complaints == []


def test_three_is_drawn_by_touch_on_a_phone(visit):
    visitor = visit(viewport={"width": 375, "height": 667}, has_touch=True, is_mobile=True)
    visitor.touch()
    visitor.reads("3")


def test_three_is_drawn_by_keyboard_and_taken_back(visit):
    page = visit().page
    page.focus("#canvas")
    for keys in ("ArrowUp " * 8, " ", "ArrowDown " * 16, " "):
        for key in [" "] if keys == " " else keys.split():
            page.keyboard.press(key)
    expect(page.locator("#digit")).to_have_text("1", timeout=PATIENCE_MS)
    page.keyboard.press("Backspace")
    expect(page.locator("#decision")).to_have_text("Nothing drawn yet")


def test_drawing_that_goes_on_is_kept_once(visit):
    visitor = visit()
    visitor.draw()
    visitor.is_asked()
    visitor.draw()
    visitor.is_asked()
    visitor.page.goto("history")
    expect(visitor.page.locator(".record")).to_have_count(1)


def test_picture_is_uploaded_pasted_and_dropped(visit, tmp_path):
    visitor = visit()
    path = tmp_path / "three.png"
    path.write_bytes(three_png())
    visitor.page.set_input_files("#file", path)
    visitor.reads("3")
    for kind in ("paste", "drop"):
        visitor.page.click("#clear")
        expect(visitor.page.locator("#digit")).to_have_text("\N{EN DASH}")
        visitor.page.evaluate(HAND_OVER, [kind, base64.b64encode(three_png()).decode()])
        visitor.reads("3")
    visitor.page.goto("history")
    expect(visitor.page.locator(".record")).to_have_count(3)
    expect(visitor.page.get_by_text("uploaded", exact=False).first).to_be_visible()


def test_file_that_is_no_picture_is_said_to_be_none(visit, tmp_path):
    visitor, path = visit(), tmp_path / "notes.png"
    path.write_text("not a picture")
    visitor.draw()
    visitor.reads("3")
    visitor.page.set_input_files("#file", path)
    expect(visitor.page.locator("#problem")).to_contain_text("notes.png is not a picture")
    visitor.reads("3")  # the drawing is still there


def test_theme_follows_the_system_until_it_is_chosen(visit):
    page = visit(color_scheme="dark").page
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.click("#theme")
    expect(page.locator("#theme")).to_have_attribute("aria-label", "Theme: light")
    light = page.evaluate(background)
    assert light != dark
    page.reload()
    assert page.evaluate(background) == light
    page.click("#theme")
    assert page.evaluate(background) == dark


def test_pages_ask_nobody_else_and_complain_of_nothing(visit, site):
    visitor = visit()
    visitor.draw()
    visitor.is_asked()
    for path in PAGES[1:]:
        visitor.page.goto(path)
    foreign = [url for url in visitor.asked if not url.startswith((site.url, "data:", "blob:"))]
    assert foreign == []
    assert visitor.complaints == []


def test_model_that_is_unavailable_is_said_to_be_and_comes_back(visit, site):
    visitor = visit()
    page = visitor.page
    expect(page.locator("#unavailable")).to_be_hidden()
    site.model.stop()
    try:
        visitor.draw()
        expect(page.locator("#unavailable")).to_be_visible(timeout=PATIENCE_MS)
    finally:
        site.model.start()
    expect(page.locator("#unavailable")).to_be_hidden(timeout=PATIENCE_MS)
    visitor.reads("3")
    assert all(NETWORK_ERROR in complaint for complaint in visitor.complaints)

"""All pages at the sizes of phones and desktops: nothing overlaps, is cut off or is unreadable."""

import pytest
from support.chromium import CHROMIUM, PATIENCE_MS
from support.pictures import encoded, seven
from support.server import REAL, running

from inkdigits.model.artifact import shipped_artifact
from inkdigits.serving.api.keys import digest_of

pytest.importorskip("playwright")
from playwright.sync_api import expect
from support.visitor import Visitor

pytest_plugins = ["support.chromium"]
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, in the path or CHROMIUM"),
    pytest.mark.skipif(not shipped_artifact().is_file(), reason="needs the shipped model"),
]

PAGES = (
    "",
    "history",
    "history?since=2090-01-01",
    "dashboard?span=all",
    "model",
    "docs",
    "sign-in",
    "review",
    "nowhere",
)
# The last is 1280 by 800 at 200 %.
SIZES = [(320, 640), (375, 667), (740, 360), (1280, 800), (640, 400)]


def show_number(page):
    page.click('[aria-label="Example: 408"]')
    expect(page.locator("#decision")).to_contain_text("Several digits", timeout=PATIENCE_MS)
    page.click("#curl")


def show_several_files(page):
    names = ("one.png", f"a picture with {'a very ' * 12}long name.png")
    file = {"mimeType": "image/png", "buffer": encoded(seven())}
    page.set_input_files("#file", [{"name": name, **file} for name in names])
    expect(page.locator("#several tbody tr")).to_have_count(2, timeout=PATIENCE_MS)


def show_nothing(page):
    page.click("#clear")
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": b"no"})
    expect(page.locator("#problem")).to_contain_text("a.png is not a picture")


STATES = {
    "a number": show_number,
    "several files": show_several_files,
    "no picture": show_nothing,
}
"""What the page to draw on shows else, and how to come there."""

FAULTS = """() => {
  const faults = [];
  const { scrollWidth } = document.documentElement;
  if (scrollWidth > innerWidth) faults.push(`${scrollWidth} wide`);
  const isShown = (node) => node.checkVisibility({ visibilityProperty: true })
    && !getComputedStyle(node).clipPath.startsWith("inset") && !node.closest(".skip");
  const named = (node) => `${node.tagName} ${node.id || node.className} ${node.textContent.trim()}`;
  const controls = [...document.querySelectorAll(
    "a, button, input, select, summary, textarea, label.button, canvas#canvas")].filter(isShown);
  // A scrolled region shows a part of what is in it, and links in a text are as close as its lines.
  const free = controls.filter((node) => !node.closest(".scroll, p, code, .contents"));
  const boxes = free.map((node) => node.getBoundingClientRect());
  free.forEach((a, i) => free.forEach((b, j) => {
    if (j <= i || a.contains(b) || b.contains(a)) return;
    const wide = Math.min(boxes[i].right, boxes[j].right) - Math.max(boxes[i].left, boxes[j].left);
    const high = Math.min(boxes[i].bottom, boxes[j].bottom) - Math.max(boxes[i].top, boxes[j].top);
    if (wide > 1 && high > 1) faults.push(`${named(a)} overlaps ${named(b)}`);
  }));
  for (const node of document.body.querySelectorAll("*")) {
    const isText = [...node.childNodes].some(({ nodeType, data }) => nodeType === 3 && data.trim());
    if (!isText || !isShown(node) || node.closest("svg, .scroll, pre")) continue;
    const box = node.getBoundingClientRect();
    const isButton = node.matches("button, .button");
    const isHidden = isButton || getComputedStyle(node).overflowX !== "visible";
    const isCut = isHidden && node.scrollWidth > node.clientWidth + 1;
    if (isCut || box.left < -1 || box.right > innerWidth + 1) faults.push(`${named(node)} is cut`);
  }
  return faults;
}"""


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    data = {"INKDIGITS_DATA_DIR": str(tmp_path_factory.mktemp("data"))}
    reviewers = f"ada:{digest_of('ink_ada')}"
    settings = {"INKDIGITS_REVIEWERS": reviewers, "INKDIGITS_AUDIT": "1"}
    with running(program=REAL, **settings, **data) as service:
        yield f"http://127.0.0.1:{service.port}/"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_every_screen_and_is_accessible(chromium, url, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    visitor = Visitor(chromium, url, color_scheme=scheme)
    page, faults = visitor.page, []
    page.goto("sign-in")
    page.fill("input[name=token]", "ink_ada")
    page.click("button.primary")
    page.goto("")
    file = {"name": "seven.png", "mimeType": "image/png", "buffer": encoded(seven())}
    page.set_input_files("#file", file)
    visitor.reads("7")
    page.click("#wrong")
    page.click('[data-label="8"]')
    expect(page.locator("#thanks")).to_have_text("Thank you. The label 8 was saved.")
    for path in (*PAGES, *STATES):
        page.goto(path if path in PAGES else "")
        if path == "":
            visitor.reads("7")
            page.click("#why")
            expect(page.locator("#saliency")).to_be_visible(timeout=PATIENCE_MS)
        elif path in STATES:
            page.set_viewport_size({"width": 1280, "height": 800})
            STATES[path](page)
        if page.locator("summary").count():
            page.locator("summary").first.click()
        for width, height in SIZES:
            page.set_viewport_size({"width": width, "height": height})
            page.wait_for_timeout(100)  # until the canvas has its size
            faults += [(path, width, height, fault) for fault in page.evaluate(FAULTS)]
            if (width, height) in {(320, 640), (640, 400), (1280, 800)}:
                violations = axe.run(page).response["violations"]
                faults += [(path, width, v["id"], v["nodes"][0]["html"]) for v in violations]
    assert faults == []
    page.goto("")
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        page.evaluate("scrollTo(0, 0)")
        for name in ("#digit", ".bars", "#canvas"):
            box = page.locator(name).bounding_box()
            assert box is not None
            assert box["y"] + box["height"] <= height, (name, width, height)
        page.click('[aria-label="Example: 2"]')
        expect(page.locator("#canvas")).to_be_in_viewport(ratio=0.9)
    visitor.context.close()

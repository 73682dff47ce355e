"""A person at the page in a real Chromium, who draws."""

from typing import Any

from playwright.sync_api import BrowserContext, Page, expect
from support.chromium import PATIENCE_MS

THREE = (
    *((0.32, 0.27), (0.40, 0.20), (0.52, 0.18), (0.63, 0.24), (0.66, 0.34), (0.58, 0.43)),
    *((0.47, 0.47), (0.60, 0.51), (0.68, 0.61), (0.66, 0.73), (0.54, 0.82), (0.41, 0.81)),
    (0.31, 0.73),
)


class Visitor:
    """A browser with its own cookies; what its pages complain of is kept."""

    def __init__(self, chromium, url, **options):
        self.context: BrowserContext = chromium.new_context(base_url=url, **options)
        self.context.set_default_timeout(PATIENCE_MS)
        self.complaints: list[str] = []
        self.asked: set[str] = set()
        self.page: Page = self.context.new_page()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.add(request.url))

    def draw(self, points=THREE):
        first, *others = self._placed(points)
        mouse = self.page.mouse
        mouse.move(**first)
        mouse.down()
        for point in others:
            mouse.move(**point, steps=4)
        mouse.up()

    def touch(self):
        session = self.context.new_cdp_session(self.page)
        for i, point in enumerate(self._placed(THREE)):
            event = {"type": "touchMove" if i else "touchStart", "touchPoints": [point]}
            session.send("Input.dispatchTouchEvent", event)
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    def reads(self, digit):
        expect(self.page.locator("#digit")).to_have_text(digit, timeout=PATIENCE_MS)
        self.is_asked()

    def is_asked(self):
        """Wait for the question of whether it is right: the drawing is kept by then."""
        expect(self.page.locator("#feedback")).to_be_visible(timeout=PATIENCE_MS)

    def _placed(self, points):
        """Return points on the canvas in the page's coordinates."""
        canvas = self.page.locator("#canvas")
        canvas.scroll_into_view_if_needed()
        box: Any = canvas.bounding_box()
        return [
            {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in points
        ]

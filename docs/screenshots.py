"""Takes the documents' pictures of the page from a running service, into docs/images/.

    python docs/screenshots.py        # needs Chromium and the extra dev

It starts a service with an empty log, sends it digits and letters, and labels some. It also prints
how soon the draw page is painted.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import Browser, Page, sync_playwright

from inkdigits import Client
from inkdigits.data.pen_strokes import STYLES, spline
from inkdigits.data.pictures.foreground import draw_digits
from inkdigits.errors import ClientError

TOKEN = "for the screenshots only"
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 375, "height": 667}
LARGEST = 100_000  # bytes


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """Start a service on a free port with an empty log; yield its address."""
    with socket.socket() as probe, tempfile.TemporaryDirectory() as folder:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        probe.close()
        settings = {"INKDIGITS_DATA_DIR": folder, "INKDIGITS_ADMIN_TOKEN": TOKEN}
        settings |= {
            "INKDIGITS_WORKERS": "1",
            "INKDIGITS_AUDIT": "0.3",
            "INKDIGITS_LOG_LEVEL": "error",
        }
        command = [sys.executable, "-m", "inkdigits", "serve", "--port", url.rpartition(":")[2]]
        process = subprocess.Popen(command, env={**os.environ, **settings})
        try:
            yield url
        finally:
            process.terminate()
            process.wait()


def fill(url: str) -> None:
    """Have digits and letters read, and say of most digits what they are."""
    rng = np.random.default_rng(8)
    pictures, labels = draw_digits(40, rng)
    with Client(url) as client:
        for _ in range(300):
            with contextlib.suppress(ClientError):
                client.check()
                break
            time.sleep(0.2)
        for picture, label in zip(pictures, labels.tolist(), strict=True):
            prediction = client.predict(picture)
            if label % 3:
                client.feedback(prediction.id, label)
        for letter in "BkRwM":
            picture = Image.new("L", (200, 200), 255)
            ImageDraw.Draw(picture).text((50, 10), letter, 0, ImageFont.load_default(140))
            client.predict(picture)


def draw(page: Page, *digits: tuple[int, str]) -> None:
    """Draw digits beside each other with the mouse, and wait until they are read."""
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    wide = box["width"] / len(digits)
    high = min(0.6 * box["height"], wide)
    for place, (digit, style) in enumerate(digits):
        for stroke in STYLES[digit][style].strokes():
            line = np.concatenate([spline(np.array(piece)) for piece in stroke])
            line = (line - 0.5) * (0.65 * high, high)
            line += (box["x"] + (place + 0.5) * wide, box["y"] + 0.5 * box["height"])
            page.mouse.move(*line[0])
            page.mouse.down()
            for x, y in line[1:]:
                page.mouse.move(x, y)
            page.mouse.up()
    page.wait_for_timeout(3000)


def take(page: Page, path: Path) -> None:
    """Write what the window shows as WebP, of the best quality that fits."""
    image = Image.open(io.BytesIO(page.screenshot()))
    for quality in range(95, 30, -5):
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=quality, method=6)
        if len(buffer.getvalue()) < LARGEST:
            break
    path.write_bytes(buffer.getvalue())
    print(f"{path}: {image.width} by {image.height}, {len(buffer.getvalue()) // 1000} kB")


def measure(browser: Browser, url: str) -> None:
    """Print how soon the draw page is painted, and how much is sent for it, without a cache."""
    times, sizes = [], []
    for _ in range(9):
        context = browser.new_context(base_url=url, viewport=DESKTOP)
        page, answers = context.new_page(), []
        page.on("response", lambda answer, all_of=answers: all_of.append(answer))
        page.goto("/", wait_until="networkidle")
        paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        times.append(page.evaluate(paint))
        sizes.append(sum(len(answer.body()) for answer in answers))
        context.close()
    print(f"first paint after {median(times):.0f} ms (median of 9), {max(sizes) / 1000:.0f} kB")


def photograph(browser: Browser, url: str, out: Path) -> None:
    for scheme, size, suffix in (("light", DESKTOP, ""), ("dark", PHONE, "-phone")):
        scale = 1.5 if size is DESKTOP else 2
        context = browser.new_context(
            base_url=url, viewport=size, color_scheme=scheme, device_scale_factor=scale
        )
        page = context.new_page()
        page.goto("/")
        draw(page, (3, "round"))
        take(page, out / f"page{suffix}.webp")
        page.reload()
        page.click("#clear")
        draw(page, (4, "open"), (2, "loop"))
        take(page, out / f"several{suffix}.webp")
        page.goto("/sign-in")
        page.fill("[name=token]", TOKEN)
        page.click("form .primary")
        for path in ("history", "review", "model"):
            page.goto(f"/{path}")
            page.wait_for_timeout(1000)
            take(page, out / f"{path}{suffix}.webp")
        context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    out = parser.parse_args().out
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with serving() as url, sync_playwright() as playwright:
        fill(url)
        quiet = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=chromium, args=quiet)
        measure(browser, url)
        photograph(browser, url, out)


if __name__ == "__main__":
    main()

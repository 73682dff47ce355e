"""A fixture: a real Chromium. Put ``pytest_plugins = ["support.chromium"]`` in a test module.

PYTEST_DONT_REWRITE: a test module imports from here before pytest reads its ``pytest_plugins``.
"""

import os
import shutil

import pytest

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
PATIENCE_MS = 30_000
# What Chromium would ask of the network by itself.
_QUIET = (
    *("--disable-quic", "--disable-sync", "--no-first-run", "--disable-background-networking"),
    "--disable-component-update",
)


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", *_QUIET]
        )
        yield browser
        browser.close()

"""The documentation site builds without a warning, and loads nothing from elsewhere."""

import re
import subprocess
import sys
import tomllib

import pytest
from support.repository import REPOSITORY

pytest.importorskip("zensical")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("site") / "docs"
    command = [sys.executable, "docs/site.py", "--out", str(out)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def entries(nav):
    for entry in nav:
        for target in entry.values():
            yield from entries(target) if isinstance(target, list) else [target]


def test_navigation_has_every_page_of_docs(folder):
    nav = set(entries(tomllib.loads((folder / "zensical.toml").read_text())["project"]["nav"]))
    assert [page for page in sorted(nav) if not (folder / "pages" / page).is_file()] == []
    pages = {f"docs/{page.name}" for page in (folder / "pages" / "docs").glob("*.md")}
    assert sorted(pages - {"docs/README.md"} - nav) == [], "add it to nav in docs/zensical.toml"


def test_site_has_the_references_and_loads_nothing_from_elsewhere(folder):
    html = {page.name: page.read_text() for page in (folder / "site").rglob("*.html")}
    assert "predict_batch" in html["python.html"]
    assert "inkdigits models promote" in html["cli.html"]
    for name, text in html.items():
        loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"(\w+:[^\"]*)", text)
        assert [url for url in loaded if not url.startswith("data:")] == [], name

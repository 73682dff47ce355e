"""Builds the documentation site: the pages of the repository, the Python and the command reference.

    pip install '.[docs]'
    python docs/site.py        # then open build/docs/site/index.html

A broken link, or anything else that Zensical warns of, is an error.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click

import inkdigits
from inkdigits.cli.main import main as group

REPOSITORY = Path(__file__).resolve().parent.parent
TOP = ("README", "MODEL_CARD", "CHANGELOG", "CONTRIBUTING", "SECURITY")
BESIDE = ("benchmarks/README", "examples/README")


def python_reference() -> str:
    parts = [f"::: inkdigits.{name}" for name in inkdigits.__all__]
    return "\n\n".join(
        ["# Python", "What `import inkdigits` offers.", *parts, "::: inkdigits.errors"]
    )


def command_reference(command: click.Command, names: str, level: int = 1) -> str:
    """Return the help of a command and of those below it, as Markdown."""
    settings = {**group.context_settings, "terminal_width": 100, "max_content_width": 100}
    context = click.Context(command, info_name=names, **settings)
    text = f"{'#' * level} {names}\n\n```text\n{command.get_help(context)}\n```\n"
    for name, child in getattr(command, "commands", {}).items():
        text += "\n" + command_reference(child, f"{names} {name}", 2)
    return text


def gather(pages: Path) -> None:
    """Copy the pages, and the files that they link to, with the paths that they have here."""
    found = [REPOSITORY / f"{name}.md" for name in (*TOP, *BESIDE)]
    found += (REPOSITORY / "docs").rglob("*.md")
    for page in list(found):
        links = re.findall(r"(?:\]\(|src=\")([\w./-]+)[#)\"]", page.read_text(encoding="utf-8"))
        found += (page.parent / link for link in links)
    for path in {path.resolve() for path in found if path.is_file()}:
        target = pages / path.relative_to(REPOSITORY)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (pages / "docs" / "python.md").write_text(python_reference(), encoding="utf-8")
    (pages / "docs" / "cli.md").write_text(command_reference(group, "inkdigits"), encoding="utf-8")


def build(out: Path) -> int:
    """Write the site to `out`/site; return Zensical's exit status, 0 without a fault."""
    shutil.rmtree(out, ignore_errors=True)
    gather(out / "pages")
    (out / "src").symlink_to(REPOSITORY / "src")
    shutil.copy(REPOSITORY / "docs" / "zensical.toml", out)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    return subprocess.run(command, cwd=out, check=False).returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/docs"))
    sys.exit(build(parser.parse_args().out))


if __name__ == "__main__":
    main()

"""A virtual environment for each contender, kept from one run to the next.

What was installed is noted beside it; an environment is made again when what it should hold has
changed. Its size is taken before this project is added to a peer's environment, which is done only
so that the peer's server can be given our reader.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent.parent
_NOTE = "installed.json"


class InstallError(Exception):
    """A contender can't be installed here; the message says why."""


@dataclass(frozen=True, slots=True)
class Environment:
    """An environment that is there.

    Attributes:
        folder: of the virtual environment.
        site_packages_mb: megabytes (10^6 bytes) of its site-packages, without pip's own and
            without what was added to a peer's for our reader.
        versions: of the distributions that were asked for.
    """

    folder: Path
    site_packages_mb: float
    versions: dict[str, str]


def default_folder() -> Path:
    """Where environments are kept unless ``--envs`` says otherwise."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(home) if Path(home).is_absolute() else Path.home() / ".cache"
    return base / "inkdigits" / "serving-envs"


def prepare(folder: Path, name: str, requirements: tuple[str, ...]) -> Environment:
    """Make a contender's environment, or take the one that is there.

    Args:
        folder: of all environments.
        name: the contender's.
        requirements: what pip is asked for; ``REPOSITORY`` as text stands for this project.

    Raises:
        InstallError: pip or venv failed; the message has the end of what it said.
    """
    where = folder / name
    wanted = {"requirements": list(requirements), "python": sys.version.split()[0]}
    known = _noted(where)
    if {key: known.get(key) for key in wanted} != wanted:
        shutil.rmtree(where, ignore_errors=True)
        where.parent.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", str(where)], name)
        _pip(where, name, *requirements)
        known = {
            **wanted,
            "site_packages_mb": round(_site_packages_mb(where), 1),
            "versions": _versions(where, name, requirements),
        }
        if str(REPOSITORY) in requirements:
            known["source"] = source_digest()
        _note(where, known)
    elif str(REPOSITORY) in requirements and add_ours(where):
        known = _noted(where) | {"site_packages_mb": round(_site_packages_mb(where), 1)}
        _note(where, known)
    return Environment(where, known["site_packages_mb"], known["versions"])


def add_ours(where: Path) -> bool:
    """Install this project, and what it depends on, into an environment that is there.

    Returns:
        False where it was there already, of this state of the source.

    Raises:
        InstallError: pip failed.
    """
    known = _noted(where)
    if known.get("source") == source_digest():
        return False
    # pip installs a folder again though its version is the same.
    _pip(where, where.name, str(REPOSITORY))
    _note(where, {**known, "source": source_digest()})
    return True


def _noted(where: Path) -> dict[str, Any]:
    note = where / _NOTE
    found: dict[str, Any] = json.loads(note.read_text()) if note.is_file() else {}
    return found


def _note(where: Path, known: dict[str, Any]) -> None:
    (where / _NOTE).write_text(json.dumps(known, indent=2) + "\n")


def source_digest() -> str:
    """SHA-256 of what is installed of this project."""
    digest = hashlib.sha256()
    for path in (REPOSITORY / "pyproject.toml", *sorted((REPOSITORY / "src").rglob("*"))):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(str(path.relative_to(REPOSITORY)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _pip(where: Path, name: str, *arguments: str) -> None:
    pip = [str(where / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "install", *arguments], name)


def _run(command: list[str], name: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InstallError(f"{name} can't be installed: {done.stderr.strip()[-500:]}")


def _site_packages_mb(where: Path) -> float:
    total = 0
    for packages in where.glob("lib/python*/site-packages"):
        for path in packages.rglob("*"):
            own = path.relative_to(packages).parts[0]
            # What venv itself puts there.
            if own == "pip" or own.startswith("pip-"):
                continue
            if path.is_file() and not path.is_symlink():
                total += path.stat().st_size
    return total / 1e6


def _versions(where: Path, name: str, requirements: tuple[str, ...]) -> dict[str, str]:
    done = subprocess.run(
        [where / "bin" / "python", "-m", "pip", "list", "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InstallError(f"{name}: pip list failed: {done.stderr.strip()[-500:]}")
    asked = {requirement_name(one) for one in requirements}
    found = {one["name"]: one["version"] for one in json.loads(done.stdout)}
    return {k: v for k, v in sorted(found.items()) if requirement_name(k) in asked}


def requirement_name(requirement: str) -> str:
    """The distribution that a requirement is for, normalised: ``Ray[serve]>=2`` → ``ray``."""
    if requirement == str(REPOSITORY):
        return "inkdigits"
    end = next((i for i, c in enumerate(requirement) if c in "[=<>!~ ;"), len(requirement))
    return requirement[:end].lower().replace("_", "-")

"""The rules of the house that no linter knows: rooms, sizes, one home for each kind of thing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from support.repository import REPOSITORY, TESTS

PACKAGE = REPOSITORY / "src" / "inkdigits"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_FOLDERS, MAX_FILES, MAX_MODULES, MAX_LINES = 12, 9, 14, 400
MAX_FUNCTION_LINES, MAX_LEVELS = 60, 3
BAGS = {"utils", "util", "misc", "common", "helpers", "tools", "stuff"}
LEVELS = (ast.For, ast.While, ast.If, ast.With, ast.Try, ast.AsyncFor, ast.AsyncWith)


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def visible(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.name != "__pycache__"]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def levels(node: ast.AST) -> int:
    """How deep loops, conditions, contexts and tries are nested; ``elif`` is no deeper."""
    deepest = 0
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.FunctionDef | ast.ClassDef):
                continue
            chained = isinstance(node, ast.If) and field == "orelse" and isinstance(child, ast.If)
            own = isinstance(child, LEVELS) and not chained
            deepest = max(deepest, levels(child) + own)
    return deepest


def public_functions(path: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node


def test_front_of_the_package_shows_the_path() -> None:
    there = visible(PACKAGE)
    assert sum(p.is_dir() for p in there) <= MAX_FOLDERS
    assert sum(p.is_file() for p in there) <= MAX_FILES


def test_no_room_is_crowded_and_none_is_a_bag() -> None:
    for folder in {path.parent for path in MODULES}:
        modules = [p for p in folder.glob("*.py") if not p.name.startswith("__")]
        assert len(modules) <= MAX_MODULES, folder
    assert not {p.stem for p in MODULES} & BAGS
    assert not {p.parent.name for p in MODULES} & BAGS


def test_modules_and_functions_are_short() -> None:
    long = [name_of(p) for p in MODULES if len(p.read_text().splitlines()) > MAX_LINES]
    assert not long
    long = [
        f"{name_of(path)}:{f.name}"
        for path in MODULES
        for f in functions(path)
        if (f.end_lineno or 0) - f.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert not long


def test_functions_are_at_most_three_levels_deep() -> None:
    deep = [
        f"{name_of(p)}:{f.name}" for p in MODULES for f in functions(p) if levels(f) > MAX_LEVELS
    ]
    assert not deep


def test_errors_and_types_have_one_home() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and node.name.endswith(("Error", "Exception")):
                assert path.name == "errors.py", f"{name_of(path)}: {node.name}"
    aliases: dict[str, str] = {}
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias":
                name = ast.unparse(node.target)
                assert name not in aliases, f"{name}: {name_of(path)} and {aliases[name]}"
                aliases[name] = name_of(path)


def test_every_public_function_has_an_example() -> None:
    """Commands, routes and hooks have none: their help and the tests of them are their examples."""
    without = [
        f"{name_of(path)}:{f.name}"
        for path in MODULES
        if not {"cli", "web", "migrations"} & set(path.parts)
        for f in public_functions(path)
        if f.name not in ("blueprint", "install")
        if ">>>" not in (ast.get_docstring(f) or "")
    ]
    assert not without


def test_every_module_has_its_tests() -> None:
    without = [
        name_of(path)
        for path in MODULES
        if not path.stem.startswith("__")
        and path.name not in ("types.py", "bodies.py")
        and "migrations" not in path.parts
        and not (TESTS / path.relative_to(PACKAGE).parent / f"test_{path.name}").is_file()
    ]
    assert not without


def test_no_test_imports_from_a_test() -> None:
    for path in TESTS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                last = (node.module or "").rpartition(".")[2]
                assert not last.startswith(("test_", "conftest")), path

"""The documents have the figures of the shipped run, and their links and names exist."""

import json
import re
import shutil

import pytest
from support.repository import REPOSITORY

TOP = ("README.md", "MODEL_CARD.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
DOCUMENTS = [
    REPOSITORY / name for name in (*TOP, "benchmarks/README.md", "examples/README.md")
] + sorted((REPOSITORY / "docs").rglob("*.md"))
PACKAGE = REPOSITORY / "src" / "inkdigits"


def anchors(path):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def names(path):
    return str(path.relative_to(REPOSITORY))


@pytest.mark.parametrize("path", DOCUMENTS, ids=names)
def test_links_and_paths_lead_to_files_and_headings_that_exist(path):
    whole = path.read_text(encoding="utf-8")
    paths = re.findall(r"`((?:src|tests|benchmarks|docs|deploy|examples)/[\w./-]+)`", whole)
    assert [name for name in paths if not (REPOSITORY / name).exists()] == []
    text = re.sub(r"```.*?```", "", whole, flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text)
    broken = []
    for target in (first or second for first, second in targets):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        page = (path.parent / name).resolve() if name else path
        if not page.exists() or (anchor and anchor not in anchors(page)):
            broken.append(target)
    assert broken == []


def test_the_architecture_names_each_room_and_only_modules_that_exist():
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    found = set(re.findall(r"`(\w+(?:/\w+)*(?:\.py|/))`", text))
    assert len(found) > 40
    roots = (PACKAGE, REPOSITORY)
    assert [n for n in sorted(found) if not any((root / n).exists() for root in roots)] == []
    rooms = [path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name[0] != "_"]
    assert [room for room in rooms if f"`{room}/`" not in text] == []


@pytest.mark.parametrize("folder", ["experiments", "decisions"])
def test_each_page_is_dated_and_in_the_index(folder):
    pages = sorted((REPOSITORY / "docs" / folder).glob("*.md"))
    index = (REPOSITORY / "docs" / folder / "README.md").read_text(encoding="utf-8")
    for page in pages:
        if page.name != "README.md":
            assert re.match(r"\d{4}-\d{2}-\d{2}-", page.name), page.name
            assert f"]({page.name})" in index, page.name


def test_pictures_of_the_page_are_small_and_each_is_shown():
    shown = "".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    pictures = sorted((REPOSITORY / "docs" / "images").glob("*.webp"))
    assert [path.name for path in pictures if path.stat().st_size >= 100_000] == []
    assert [path.name for path in pictures if f"images/{path.name}" not in shown] == []


@pytest.fixture
def documents(benchmarks):
    """The script benchmarks/documents.py."""
    return benchmarks("documents")


@pytest.fixture
def copy(documents, tmp_path):
    """What the script reads and writes, to be changed."""
    for name in (documents.RUN, *documents.DOCUMENTS, *documents.RESULTS.values()):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, target)
    return tmp_path


def test_documents_have_the_figures_of_the_shipped_run_and_of_the_results(documents):
    for name, text in documents.rewritten(REPOSITORY).items():
        assert (REPOSITORY / name).read_text() == text, f"run benchmarks/documents.py for {name}"


def test_another_run_changes_the_documents(documents, copy):
    path = copy / documents.RUN
    run = json.loads(path.read_text())
    run["test"]["n_correct"] = 9876
    run["test"]["accuracy"] = {"value": 0.9876, "low": 0.9111, "high": 0.9999}
    path.write_text(json.dumps(run))
    path = copy / "benchmarks" / "inputs.json"
    inputs = json.loads(path.read_text())
    inputs["rows"][-1]["accuracy"] = 0.4321
    path.write_text(json.dumps(inputs))
    texts = documents.rewritten(copy)
    assert "| accuracy | 98.76 % (9,876 of 10,000) | 91.11 to 99.99 % |" in texts["MODEL_CARD.md"]
    assert "in a corner, …) | 10,000 | 43.21 % correct" in texts["README.md"]


def test_result_of_another_model_is_an_error_that_names_it(documents, copy):
    path = copy / "benchmarks" / "inputs.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "model_version": "mnist-classifier-000000000000"}))
    with pytest.raises(ValueError, match=r"inputs\.json is of mnist-classifier-000000000000"):
        documents.rewritten(copy)


def test_mark_that_no_figures_have_is_an_error(documents, copy):
    path = copy / "README.md"
    path.write_text(path.read_text().replace("<!-- figures: rates -->", "<!-- figures: rate -->"))
    with pytest.raises(ValueError, match="no figures are called 'rate'"):
        documents.rewritten(copy)

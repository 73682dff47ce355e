from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.repository import REPOSITORY


@pytest.fixture
def documents(benchmarks: Any) -> ModuleType:
    """The script benchmarks/documents.py."""
    script: ModuleType = benchmarks("documents")
    return script


@pytest.fixture
def copy(documents: ModuleType, tmp_path: Path) -> Path:
    """What the script reads and writes, to be changed."""
    results = [f"benchmarks/{name}.json" for name in documents.RESULTS]
    for name in (documents.RUN, documents.CARD, documents.README, *results):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, target)
    return tmp_path


def test_documents_have_the_figures_of_the_shipped_run_and_of_the_results(
    documents: ModuleType,
) -> None:
    for name, text in documents.rewritten(REPOSITORY).items():
        assert (REPOSITORY / name).read_text() == text, f"run benchmarks/documents.py for {name}"


def test_another_run_changes_both_documents(documents: ModuleType, copy: Path) -> None:
    path = copy / documents.RUN
    run = json.loads(path.read_text())
    run["test"]["accuracy"] = {"value": 0.9876, "low": 0.9111, "high": 0.9999}
    path.write_text(json.dumps(run))
    for text in documents.rewritten(copy).values():
        assert "| accuracy | 98.76 % " in text
        assert "91.11 to 99.99 %" in text


def test_result_of_another_model_is_refused_by_name(documents: ModuleType, copy: Path) -> None:
    path = copy / "benchmarks" / "inputs.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "model_version": "mnist-classifier-000000000000"}))
    with pytest.raises(ValueError, match=r"inputs\.json is of mnist-classifier-000000000000"):
        documents.rewritten(copy)


@pytest.mark.parametrize("lost", ["| Risk | Accepted from |", "Temperature "])
def test_table_or_passage_that_is_gone_is_an_error(
    documents: ModuleType, copy: Path, lost: str
) -> None:
    path = copy / documents.CARD
    path.write_text(path.read_text().replace(lost, "| Something else |"))
    with pytest.raises(ValueError, match="there must be one"):
        documents.rewritten(copy)

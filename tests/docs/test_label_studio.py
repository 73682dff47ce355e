"""The example for Label Studio, asked as its ML backend is asked, and given an export."""

import json
import runpy
import sys

import pytest
from support.repository import REPOSITORY

from inkdigits.data.labelled import read_labelled
from inkdigits.ink.png import encode_png

EXAMPLE = str(REPOSITORY / "examples" / "label_studio.py")
CONFIG = '<View><Image name="image" value="$image"/><Choices name="digit" toName="image"/></View>'


def task(number, image, **more):
    return {"id": number, "created_at": f"2026-11-0{number}T08:00:00Z", "project": 1,
            "data": {"image": image}, **more}  # fmt: skip


def annotation(label, **more):
    value = {"from_name": "digit", "to_name": "image", "type": "choices"}
    result = [{**value, "id": "a", "origin": "manual", "value": {"choices": [label]}}]
    return {"id": 1, "completed_by": 3, "result": result, "was_cancelled": False, **more}


@pytest.fixture
def files(digits, tmp_path, monkeypatch):
    """Label Studio's folder of uploads, with two pictures."""
    inks, _ = digits
    for name, ink in (("one 1.png", inks[0]), ("two.png", inks[3])):
        path = tmp_path / "media" / "upload" / "1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(255 - ink))
    monkeypatch.setenv("LABEL_STUDIO_FILES", str(tmp_path / "media"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_tasks_get_suggestions_in_their_order(files, digits):
    client = runpy.run_path(EXAMPLE)["app"].test_client()
    assert client.get("/health").json["status"] == "UP"
    setup = {"project": "1.1763280000", "schema": CONFIG, "hostname": "http://localhost:8080"}
    version = client.post("/setup", json=setup).json["model_version"]
    images = ("/data/upload/1/one%201.png", "/data/local-files/?d=upload/1/two.png",
              "/data/upload/1/gone.png", "/data/../../etc/hosts")  # fmt: skip
    tasks = [task(n, image) for n, image in enumerate(images, 1)]
    asked = {"tasks": tasks, "label_config": CONFIG, "project": setup["project"],
             "params": {"login": None, "password": None, "context": None}}  # fmt: skip
    results = client.post("/predict", json=asked).json["results"]
    for found, label in zip(results, digits[1][[0, 3]], strict=False):
        (result,) = found["result"]
        assert result["value"]["choices"] == [str(label)]
        assert (result["from_name"], result["to_name"]) == ("digit", "image")
        assert 0.5 < found["score"] <= 1
        assert found["model_version"] == version
    assert [found["result"] for found in results[2:]] == [[], []]
    event = {"action": "ANNOTATION_CREATED", "project": {"id": 1, "label_config": CONFIG}}
    assert client.post("/webhook", json=event).status_code == 200


def test_an_export_becomes_a_source(files, monkeypatch):
    skipped = annotation("9", was_cancelled=True)
    export = [
        task(1, "/data/upload/1/one%201.png", annotations=[annotation("3"), annotation("4")]),
        task(2, "/data/local-files/?d=upload/1/two.png", annotations=[annotation("none"), skipped]),
        task(3, "/data/upload/1/two.png", annotations=[skipped]),
    ]
    (files / "export.json").write_text(json.dumps(export))
    monkeypatch.setattr(sys, "argv", [EXAMPLE, "export.json", "own.csv"])
    runpy.run_path(EXAMPLE, run_name="__main__")
    pictures = read_labelled(["own.csv"]).inks()
    assert pictures.labels.tolist() == [4, -1]
    assert [one.at for one in pictures.examples] == [f"2026-11-0{n}T08:00:00Z" for n in (1, 2)]

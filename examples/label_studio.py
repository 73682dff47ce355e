"""Serve Label Studio as its ML backend, and turn its JSON export into rows to learn from."""

import csv
import json
import os
import sys
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from flask import Flask, request
from werkzeug.security import safe_join

import inkdigits
from inkdigits.errors import ImageError

FILES = str(Path(os.environ.get("LABEL_STUDIO_FILES", ".")).resolve())
reader = inkdigits.load(os.environ.get("MODEL_PATH"))
app = Flask(__name__)


def path_of(task):
    """Return the file of a task's picture: an upload, or one of the local files."""
    url = urlsplit(task["data"]["image"])
    name = parse_qs(url.query).get("d", [unquote(url.path).removeprefix("/data/")])[0]
    return safe_join(FILES, name) or os.devnull


def rows(export):
    """Yield the path, label, writer and time of each task, by its last annotation."""
    for task in export:
        for said in [one for one in task["annotations"] if not one["was_cancelled"]][-1:]:
            writer, at = task["data"].get("writer"), task["created_at"]
            for result in said["result"]:
                yield path_of(task), result["value"]["choices"][0], writer, at


@app.get("/health")
def health():
    return {"status": "UP"}


@app.post("/setup")
@app.post("/webhook")
def state():
    return {"model_version": reader.model_version}


@app.post("/predict")
def predict():
    answers = reader.predict_batch([*map(path_of, request.json["tasks"])], on_error="return")
    return {"results": [suggestion(answer) for answer in answers]}


def suggestion(answer):
    if isinstance(answer, ImageError):
        return {"result": [], "score": 0.0}
    label = "none" if answer.decision == "reject" else str(answer.digit)
    chosen = {"from_name": "digit", "to_name": "image", "type": "choices"}
    result = [{**chosen, "value": {"choices": [label]}}]
    return {"result": result, "score": answer.confidence, "model_version": answer.model_version}


if __name__ == "__main__":
    found = rows(json.loads(Path(sys.argv[1]).read_bytes()))
    with Path(sys.argv[2]).open("w", newline="") as table:
        csv.writer(table).writerows([("path", "label", "writer", "at"), *found])

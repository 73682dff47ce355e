"""The floor: a Flask application that answers the same to everybody, by our own ``serve``."""

from __future__ import annotations

from types import SimpleNamespace

from flask import Flask

from inkdigits.serving import gunicorn as server
from inkdigits.settings import Settings

app = Flask(__name__)


@app.post("/predict")
def predict():
    return {"prediction": 7}


if __name__ == "__main__":
    # The same configuration, checks and workers; only the application is another.
    server.create_app = lambda *_: app
    server.serve(Settings.from_env(), lambda _: SimpleNamespace(model_version="none"))

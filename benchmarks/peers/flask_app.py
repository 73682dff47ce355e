"""Flask, for Gunicorn."""

from flask import Flask, request
from reading import make_reader

app = Flask(__name__)
read = make_reader()


@app.post("/predict")
def predict():
    return {"prediction": read(request.get_json()["image"])}

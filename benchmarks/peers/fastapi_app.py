"""FastAPI, for Uvicorn: a plain function, which FastAPI runs in its thread pool."""

from fastapi import FastAPI
from pydantic import BaseModel
from reading import make_reader

app = FastAPI()
read = make_reader()


class Picture(BaseModel):
    image: str


@app.post("/predict")
def predict(picture: Picture):
    return {"prediction": read(picture.image)}

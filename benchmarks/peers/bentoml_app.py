"""BentoML: a service whose method takes the picture, with two worker processes."""

import bentoml
from reading import make_reader


@bentoml.service(workers=2)
class Digits:
    def __init__(self) -> None:
        self.read = make_reader()

    @bentoml.api
    def predict(self, image: str) -> dict:
        return {"prediction": self.read(image)}

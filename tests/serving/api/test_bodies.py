import msgspec
import pytest
from support.answers import as_base64
from support.fakes import drawn_digit, send_digit

from inkdigits.serving.api import bodies


@pytest.mark.parametrize("query", ["", "?risk=0.01&ink=true&explain=true"])
def test_real_answers_are_of_the_documented_types(client, query):
    answer = send_digit(client, f"/predict{query}").json
    msgspec.convert(answer, bodies.Prediction)
    assert set(answer) <= set(bodies.Prediction.__annotations__)
    msgspec.convert(client.post("/predict").json, bodies.ErrorBody)
    msgspec.convert(client.get("/health").json, bodies.Health)
    msgspec.convert(client.get("/health/ready").json, bodies.Status)
    tensor = {"name": "picture", "datatype": "BYTES", "shape": [1]}
    inference = {"inputs": [{**tensor, "data": [as_base64(drawn_digit())]}]}
    msgspec.convert(inference, bodies.InferenceRequest)
    answer = client.post("/v2/models/inkdigits/infer", json=inference).json
    msgspec.convert(answer, bodies.InferenceAnswer)

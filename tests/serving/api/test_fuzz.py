import json
import re
import sys

import pytest
from support.answers import as_base64
from support.fakes import drawn_digit, empty_png

from inkdigits.ink.normalize import Limits
from inkdigits.reader import load
from inkdigits.serving.app import create_app
from inkdigits.settings import Settings

SEED = 7


def test_cases_are_the_same_for_a_seed_and_differ_otherwise(benchmarks):
    mutations = benchmarks("mutations")
    first = list(mutations.cases(SEED, 40))
    assert first == list(mutations.cases(SEED, 40))
    assert first != list(mutations.cases(SEED + 1, 40))
    assert {case.kind for case in first} == {"raw", "json", "form", "tensors", "binary"}


def test_sound_pictures_that_cases_are_made_of_are_all_read(benchmarks):
    read = load().predict_batch(benchmarks("mutations").seeds())
    assert len(read) > 100
    assert all(prediction.digit is not None for prediction in read)


@pytest.mark.skipif(sys.platform != "linux", reason="it looks at /proc")
@pytest.mark.e2e
def test_service_answers_whatever_it_is_sent_and_lives(benchmarks):
    report, wrong = benchmarks("fuzz").fuzz(count=300, seed=SEED)
    assert (wrong, report["cases"]) == ([], 300)
    assert report["answers"]["200"] > 0


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of damaged EXIF, for one
def test_every_status_is_one_that_the_document_promises(benchmarks):
    client = create_app(Settings(page="off"), load()).test_client()
    paths = client.get("/openapi.json").json["paths"]
    for number, case in enumerate(benchmarks("mutations").cases(SEED, 300)):
        path = re.sub(r"/models/\w+/", "/models/{name}/", case.path.partition("?")[0])
        promised = paths[path]["post"]["responses"]
        response = client.post(case.path, data=case.body, headers=case.headers)
        assert str(response.status_code) in promised, number
        assert response.status_code < 500, number
        assert response.mimetype in promised[str(response.status_code)]["content"], number


LIMITS = Settings(page="off", max_bytes=20_000, max_batch=3, max_pixels=5000)


@pytest.fixture(scope="module")
def limited():
    reader = load(limits=Limits(max_bytes=LIMITS.max_bytes, max_pixels=LIMITS.max_pixels))
    return create_app(LIMITS, reader).test_client()


def sent(client, body, kind="image/png"):
    response = client.post("/predict", data=body, content_type=kind)
    return response.status_code, response.json.get("error", {}).get("code")


def inference(client, model, tensor, binary):
    """Return the status of an inference on one binary tensor."""
    size = {"binary_data_size": len(binary)}
    head = json.dumps({"inputs": [{**tensor, "parameters": size}]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return client.post(f"/v2/models/{model}/infer", data=head + binary, headers=headers).status_code


def test_limits_on_bytes_and_pixels_are_where_the_settings_say(limited):
    digit = drawn_digit().ljust(LIMITS.max_bytes, b"\0")
    assert sent(limited, digit)[0] == 200
    assert sent(limited, digit + b"\0") == (413, "body_too_large")
    # The picture may be within the limit, and its base64 beyond it.
    body = json.dumps({"image": as_base64(digit)}).encode()
    assert sent(limited, body, "application/json") == (413, "body_too_large")
    assert sent(limited, drawn_digit(size=(50, 100)))[0] == 200
    assert sent(limited, empty_png(50, 101)) == (413, "image_too_large")
    picture = empty_png(5001, 1)
    tensor = {"name": "picture", "datatype": "BYTES", "shape": [1]}
    binary = len(picture).to_bytes(4, "little") + picture
    assert inference(limited, "inkdigits", tensor, binary) == 413


def test_limit_on_pictures_is_where_the_settings_say(limited):
    for count, outcome in ((3, (200, None)), (4, (413, "too_many_pictures"))):
        body = json.dumps({"images": [as_base64(drawn_digit())] * count}).encode()
        assert sent(limited, body, "application/json") == outcome
        tensor = {"name": "ink", "datatype": "FP32", "shape": [count, 1, 28, 28]}
        assert inference(limited, "mnist", tensor, bytes(4 * 784 * count)) == outcome[0]


def test_limit_on_parts_of_a_form_is_where_the_settings_say(limited):
    def form(parts):
        other = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * (parts - 1)
        head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        return other + head + drawn_digit() + b"\r\n--x--\r\n"

    kind = "multipart/form-data; boundary=x"
    assert sent(limited, form(16), kind) == (422, "wrong_shape")
    assert sent(limited, form(17), kind) == (413, "body_too_large")

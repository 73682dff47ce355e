"""The whole circle with the real service and model: corrections become a better model, safely."""

import contextlib
import json
import os
import re
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageDraw
from support.artifacts import worse
from support.chromium import CHROMIUM, PATIENCE_MS
from support.commands import run
from support.pictures import encoded
from support.processes import wait_until
from support.server import REAL, running

import inkdigits
from inkdigits.model.artifact import ARTIFACT_NAME, read_artifact, write_atomically
from inkdigits.model.registry import Registry

pytest_plugins = ["support.chromium"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="Gunicorn needs POSIX"),
]

GATE = """
[[on]]
name = "Arabic-Indic sevens"
data = "fresh"
min_accuracy = 0.9
max_wrong_of_accepted = 0.02
[[on]]
name = "MNIST"
data = "{mnist}"
limit = 2000
max_accuracy_drop = 0.005
"""


def arabic_seven(rng):
    """A seven of Arabic-Indic digits, which is like a "V", as a user's picture."""
    image = Image.new("L", (480, 480), 255)
    points = [(22, 20), (60, 104), (98, 20)]
    places = [tuple(4 * (np.array(point) + rng.normal(0, 3, 2))) for point in points]
    width = 4 * int(rng.integers(5, 10))
    ImageDraw.Draw(image).line(places, int(rng.integers(0, 60)), width, joint="curve")
    return encoded(image.resize((120, 120), Image.Resampling.BOX))


@pytest.fixture
def models(tmp_path, mnist_root):
    """A folder of models of which the shipped one is current, a gate, and digits to check with."""
    registry = Registry(tmp_path / "models")
    write_atomically(registry.folder / "first" / ARTIFACT_NAME, read_artifact())
    worse(registry.folder / "worse" / ARTIFACT_NAME)
    registry.promote("first", {"without_gate": True})
    rng = np.random.default_rng(2)
    for number in range(100):
        path = registry.folder / "fresh" / "7" / f"{number}.png"
        write_atomically(path, arabic_seven(rng))
    gate = GATE.format(mnist=mnist_root)
    (registry.folder / "gate.toml").write_text(gate)
    return registry


def by_page(service, pictures):
    """Upload and correct pictures by the page's routes, with a cookie and the page's token."""
    url = f"http://127.0.0.1:{service.port}/"
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    page = opener.open(urllib.request.Request(url, headers={"Accept": "text/html"})).read()
    (token,) = re.findall(r'name="csrf-token" content="([^"]+)"', page.decode())

    def post(path, body, kind):
        headers = {"X-CSRF-Token": token, "Content-Type": kind, "Accept": "application/json"}
        asked = urllib.request.Request(url + path, body, headers, method="POST")
        return json.loads(opener.open(asked).read())

    for picture in pictures:
        read = post("history?kind=uploaded", picture, "image/png")
        form = "application/x-www-form-urlencoded"
        assert post(f"history/{read['id']}/feedback", b"label=7", form)["label"] == "7"
        yield read["prediction"]


def by_browser(chromium, service, pictures):
    """Upload and correct pictures as people do, each with a browser of their own."""
    for picture in pictures:
        with contextlib.closing(
            chromium.new_page(base_url=f"http://127.0.0.1:{service.port}")
        ) as page:
            page.set_default_timeout(PATIENCE_MS)
            page.goto("/")
            upload = {"name": "seven.png", "mimeType": "image/png", "buffer": picture}
            page.set_input_files("#file", upload)
            page.wait_for_selector("#feedback", state="visible")
            read = page.text_content("#digit")
            if read == "7":
                page.click("#right")
            else:
                if page.is_visible("#wrong"):
                    page.click("#wrong")
                page.click("[data-label='7']")
            page.locator("#thanks", has_text="saved").wait_for()
            yield int(read) if read.isdigit() else None


def right_of(client, pictures):
    return sum(client.predict(picture).digit == 7 for picture in pictures)


def test_corrections_become_a_better_model_that_is_promoted_and_rolled_back(
    models, mnist_root, tmp_path, monkeypatch, request
):
    monkeypatch.setenv("INKDIGITS_DATA_DIR", str(tmp_path / "log"))
    monkeypatch.chdir(tmp_path)
    settings = {
        "MODEL_PATH": str(models.folder / "current"),
        "INKDIGITS_WATCH": "on",
        "INKDIGITS_DATA_DIR": str(tmp_path / "log"),
    }
    rng = np.random.default_rng(1)
    with running(program=REAL, **settings) as service:
        client = inkdigits.Client(f"http://127.0.0.1:{service.port}")
        drawn = [arabic_seven(rng) for _ in range(100)]
        before = []
        for one in map(client.predict, drawn[:60]):
            client.feedback(one.id, 7)
            before.append(one.digit)
        before += by_page(service, drawn[60:98])
        if CHROMIUM is None:
            before += by_page(service, drawn[98:])
        else:
            before += by_browser(request.getfixturevalue("chromium"), service, drawn[98:])
        assert before.count(7) < 10
        run("history", "export", "log.csv", "--feedback", "given")
        found = json.loads(run("evaluate", "--data", "log.csv", "--json").stdout)
        # What the page read as a number is learned from too.
        assert found["scores"][0]["n"] == 100

        run(
            *("train", "--init", "shipped", "--add", "log.csv", "--data", mnist_root),
            *("--no-download", "--limit", 1000, "--epochs", 3, "--synthetic", 600),
            *("--out", models.folder / "tuned", "--device", "cpu"),
        )
        folder, gate = ("--models", models.folder), ("--gate", models.folder / "gate.toml")
        failed = run("models", "compare", "current", "worse", *gate, *folder, exit_code=1)
        assert "MNIST: the loss of accuracy" in failed.stderr
        assert "does not pass" in run("models", "promote", "worse", *folder, exit_code=1).stderr
        run("models", "compare", "current", "tuned", *gate, *folder)

        first, tuned = (
            inkdigits.load(models.version(n).path).model_version for n in ("first", "tuned")
        )
        seen = under_load(service, first, lambda: run("models", "promote", "tuned", *folder), tuned)
        assert seen == {first, tuned}
        fresh = [arabic_seven(rng) for _ in range(50)]
        assert right_of(client, fresh) >= 45
        seen = under_load(service, tuned, lambda: run("models", "rollback", *folder), first)
        assert seen == {first, tuned}
        assert right_of(client, fresh) < 5


def under_load(service, old, change, new):
    """Change the model while it is asked; return the versions that answered. None may fail."""
    is_over = threading.Event()

    def ask():
        versions = set()
        while not is_over.is_set():
            status, answer = service.predict()
            assert status == 200
            versions.add(answer["model_version"])
        return versions

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        try:
            wait_until(lambda: service.predict()[1]["model_version"] == old)
            change()
            wait_until(lambda: service.predict()[1]["model_version"] == new)
        finally:
            is_over.set()
    return set.union(*(one.result() for one in asking))

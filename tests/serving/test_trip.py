"""The way of a picture through the service, counted: few modules, and no way back."""

import sys
from pathlib import Path

import pytest
from support.fakes import drawn_digit

import inkdigits
from inkdigits.serving.app import create_app
from inkdigits.serving.preflight import open_store
from inkdigits.settings import Settings

PACKAGE = Path(inkdigits.__file__).parent
MAX_MODULES = 20
# These hold the thread while the rooms work one after the other.
HOLDS_THE_THREAD = {"serving", "reader"}


def trip(call):
    """Modules of the package in the order in which the calling thread enters their functions."""
    entered: list[str] = []

    def profile(frame, event, _):
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            entered.append(str(path.relative_to(PACKAGE).with_suffix("")))

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return entered


@pytest.fixture(scope="module")
def entered(tmp_path_factory):
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"))
    store = open_store(settings)
    assert store is not None
    client = create_app(settings, inkdigits.load(), store).test_client()

    def predict():
        answer = client.post("/predict", data=drawn_digit(), content_type="image/png")
        assert (answer.status_code, answer.json["kept"]) == (200, "database")

    predict()
    modules = trip(predict)
    store.close()
    return modules


def test_clean_png_passes_few_modules(entered):
    assert len(set(entered)) <= MAX_MODULES, sorted(set(entered))


def test_no_room_is_called_again_after_another_one(entered):
    rooms = [name.partition("/")[0] for name in entered]
    rooms = [room for room in rooms if room not in HOLDS_THE_THREAD]
    order = [room for i, room in enumerate(rooms) if i == 0 or rooms[i - 1] != room]
    assert len(order) == len(set(order)), order

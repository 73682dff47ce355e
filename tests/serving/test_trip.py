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


def module_of(frame):
    """The package's module in which a frame, or the nearest one that called it, is."""
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            return str(path.relative_to(PACKAGE).with_suffix(""))
        frame = frame.f_back
    return ""


def trip(call):
    """Modules of the package in the order in which the calling thread enters their functions.

    Each is a pair, with the module that called it.
    """
    entered: list[tuple[str, str]] = []

    def profile(frame, event, _):
        if event == "call" and Path(frame.f_code.co_filename).is_relative_to(PACKAGE):
            entered.append((module_of(frame), module_of(frame.f_back)))

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
    modules = {name for name, _ in entered}
    assert len(modules) <= MAX_MODULES, sorted(modules)


def test_no_room_is_called_again_after_another_one(entered):
    # A room may use the arithmetic of one below it.
    pairs = [(name.partition("/")[0], caller.partition("/")[0]) for name, caller in entered]
    rooms = [room for room, by in pairs if by in HOLDS_THE_THREAD and room not in HOLDS_THE_THREAD]
    order = [room for i, room in enumerate(rooms) if i == 0 or rooms[i - 1] != room]
    assert len(order) == len(set(order)), order

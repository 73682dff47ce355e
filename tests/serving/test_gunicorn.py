import os
import subprocess
import sys

import pytest

if os.name != "posix":
    pytest.skip("Gunicorn needs POSIX", allow_module_level=True)

from inkdigits.serving.api.health import warm_up_picture
from inkdigits.serving.gunicorn import gunicorn_options, load_reader
from inkdigits.settings import Settings


def test_options_follow_the_settings():
    options = gunicorn_options(Settings(workers=3, threads=2, graceful_timeout=9))
    assert (options["workers"], options["threads"], options["graceful_timeout"]) == (3, 2, 9)
    # Each worker has a socket of its own, among which the kernel spreads connections.
    assert options["reuse_port"] is True


def test_risk_of_the_settings_holds_where_a_request_states_none():
    reader = load_reader(Settings(risk=1e-9))
    assert reader.predict(warm_up_picture()).risk == 1e-9
    assert reader.predict(warm_up_picture(), risk=0.05).risk == 0.05


def test_service_without_a_log_does_without_its_library():
    program = "import sys, inkdigits.serving.gunicorn; print('sqlalchemy' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert result.stdout == b"False\n"

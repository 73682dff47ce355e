import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from gunicorn.config import Config
from support.pictures import seven

if os.name != "posix":
    pytest.skip("Gunicorn needs POSIX", allow_module_level=True)

from inkdigits.errors import BackendUnavailableError
from inkdigits.serving.gunicorn import _stop_quickly
from inkdigits.serving.preflight import load_reader
from inkdigits.settings import Settings


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_quick_stop_does_not_exit_from_within_the_code_that_it_interrupts(number):
    stopped = []
    kinds = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
    former = {kind: signal.getsignal(kind) for kind in kinds}
    worker = SimpleNamespace(cfg=Config())
    try:
        signal.signal(signal.SIGTERM, lambda kind, _frame: stopped.append(kind))
        _stop_quickly(worker)
        signal.raise_signal(number)
    finally:
        for kind, handler in former.items():
            signal.signal(kind, handler)
    assert stopped == [signal.SIGTERM]
    assert worker.cfg.graceful_timeout == 0


def test_risk_of_the_settings_holds_where_a_request_states_none():
    reader = load_reader(Settings(risk=1e-9))
    assert reader.predict(seven()).risk == 1e-9
    assert reader.predict(seven(), risk=0.05).risk == 0.05


def test_service_without_a_log_does_without_its_library():
    program = "import sys, inkdigits.serving.gunicorn; print('sqlalchemy' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert result.stdout == b"False\n"


@pytest.mark.heavy
def test_device_reads_with_pytorch_and_an_absent_one_is_an_error(monkeypatch):
    read = load_reader(Settings(device="cpu", page="off")).predict(seven())
    assert (read.digit, read.decision) == (7, "accept")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(BackendUnavailableError, match="'cuda' is not on this machine; it has cpu"):
        load_reader(Settings(device="cuda"))
    assert Settings(device="cuda").worker_count == 1

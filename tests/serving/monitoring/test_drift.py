import itertools
import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Gauge
from support.drifting_service import Inky
from support.fakes import FakeReader, drawn_digit, send_digit
from support.processes import wait_until
from support.scrape import fetch, parse, value
from support.server import running

from inkdigits.decision.drift import STATISTICS, DriftReference
from inkdigits.serving.app import create_app
from inkdigits.serving.monitoring.drift import MOST_PER_PERIOD, DriftMetrics
from inkdigits.serving.monitoring.metrics import Metrics
from inkdigits.settings import Settings


@pytest.fixture(scope="module")
def inks():
    """Upright and leaning strokes of several widths: (120, 28, 28) uint8."""
    made = np.zeros((120, 28, 28), np.uint8)
    for k, row in itertools.product(range(120), range(4, 24)):
        start = 8 + (k % 5) * (row - 4) // 20
        made[k, row, start : start + 2 + k % 3] = 255
    return made


@pytest.fixture(scope="module")
def reference(inks):
    return DriftReference.from_inks_and_confidences(inks, np.linspace(0.5, 1, len(inks)))


def read_some(reader, pictures=5, metrics=None):
    client = create_app(Settings(page="off"), reader, metrics=metrics).test_client()
    for _ in range(pictures):
        send_digit(client)
    return parse(client.get("/metrics").text)


def test_drift_is_among_the_metrics_if_the_artifact_has_a_reference(reference, inks):
    shown = read_some(Inky(inks, {"drift_reference": reference.to_dict()}))
    assert value(shown, "inkdigits_drift_pictures") == pytest.approx(5, rel=0.01)
    for name in STATISTICS:
        assert ("inkdigits_drift_psi", (("statistic", name),)) in shown
    # The fake is 0.91 sure of everything.
    sure = reference.statistics["confidence"]
    shift = value(shown, "inkdigits_drift_mean_shift", statistic="confidence")
    assert shift == pytest.approx((0.91 - sure.mean) / sure.deviation)


@pytest.mark.parametrize("provenance", [{}, {"drift_reference": {"n": 1}}])
def test_without_a_valid_reference_drift_is_not_measured(provenance, inks):
    assert not any("drift" in name for name, _ in read_some(Inky(inks, provenance)))


def test_busy_worker_measures_the_last_of_its_pictures(reference, inks):
    def gauge(name, meaning, *labels):
        return Gauge(f"inkdigits_{name}", meaning, labels, registry=CollectorRegistry())

    drift = DriftMetrics(reference, gauge)
    prediction = FakeReader().predict(drawn_digit())
    # Blank ink, which a reader may give a digit only by mistake, has no stroke to measure.
    for ink in [*inks, *inks, np.zeros((28, 28), np.uint8)]:
        drift.recent.append(replace(prediction, ink=ink))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drift.flush()
        drift.flush()
    *_, pictures = drift.derived(drift._bins.collect())
    assert pictures.samples[0].value == pytest.approx(MOST_PER_PERIOD - 1, rel=0.05)


def test_pictures_of_a_former_model_do_not_count_for_the_next(reference, inks):
    reader = Inky(inks, {"drift_reference": reference.to_dict()})
    metrics = Metrics()
    for pictures in (5, 3, 0):
        shown = value(read_some(reader, pictures, metrics), "inkdigits_drift_pictures")
        assert shown == pytest.approx(pictures, rel=0.01)
        metrics.compare_with_reference(reader.metadata)


@pytest.mark.e2e
def test_windows_of_all_workers_are_added_up(reference):
    program = ["-m", "support.drifting_service", json.dumps(reference.to_dict())]
    with running(program=program, INKDIGITS_WORKERS="2") as service:
        answered: list[str] = []

        def both_have_answered():
            answered.append(service.predict()[1]["model_version"])
            return len(set(answered)) == 2

        wait_until(both_have_answered)

        def shown():
            return value(fetch(service), "inkdigits_drift_pictures")

        # What the worker that is not asked has read last may wait until it reads another.
        wait_until(lambda: shown() >= 2 - 0.1)
        assert shown() <= len(answered)

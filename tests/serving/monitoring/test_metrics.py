import errno
import json
import os
import re
import signal
import tempfile
from collections import Counter, defaultdict

import numpy as np
import pytest
import yaml
from prometheus_client.mmap_dict import MmapedDict
from support.drifting_service import Inky
from support.fakes import FakeReader, blank_picture, drawn_digit, send_digit
from support.processes import wait_until
from support.repository import REPOSITORY
from support.scrape import fetch, parse, value
from support.server import running

from inkdigits.decision.drift import PROVENANCE, DriftReference
from inkdigits.errors import ConfigError
from inkdigits.log.review import Audit
from inkdigits.serving.app import create_app
from inkdigits.serving.monitoring.metrics import Metrics, forget_process, shared_folder
from inkdigits.settings import Settings

FOLDER = REPOSITORY / "docs" / "operate"


def scrape(client):
    response = client.get("/metrics")
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parse(response.text)


def send_some_of_everything(client):
    for picture in (drawn_digit(), blank_picture(), b"text"):
        client.post("/predict", data=picture, content_type="image/png")
    client.post("/predict", json={"images": ["!", "QQ=="]})


def test_requests_and_what_is_read_and_denied_are_counted_and_timed(client):
    send_some_of_everything(client)
    client.get("/no/such/path")
    client.open("/predict", method="INVENTED")
    samples = scrape(client)
    predict = {"method": "POST", "route": "/predict"}
    other = {"method": "other", "route": "none"}
    for name, labels, count in (
        ("requests_total", {**predict, "status": "200"}, 3),
        ("requests_total", {**predict, "status": "400"}, 1),
        ("requests_total", {**other, "status": "404"}, 1),
        ("requests_total", {**other, "status": "405"}, 1),
        ("requests_in_flight", {}, 1),  # the one that asks
        ("decisions_total", {"decision": "accept"}, 1),
        ("decisions_total", {"decision": "reject"}, 1),
        ("rejects_total", {"reason": "blank"}, 1),
        ("model_readings_total", {"model_version": "fake-1", "decision": "reject"}, 1),
        # One denied request, and one picture of the batch.
        ("errors_total", {"code": "not_an_image"}, 2),
        ("errors_total", {"code": "invalid_base64"}, 1),
        ("confidence_count", {}, 1),
        ("confidence_bucket", {"le": "0.9"}, 0),
        ("confidence_bucket", {"le": "0.95"}, 1),
        ("stage_duration_seconds_count", {"stage": "preprocessing"}, 2),
        ("stage_duration_seconds_sum", {"stage": "preprocessing"}, 0.0005),
        ("stage_duration_seconds_count", {"stage": "inference"}, 1),
        ("stage_duration_seconds_sum", {"stage": "inference"}, 0.0005),
        ("stage_duration_seconds_count", {"stage": "total"}, 4),
    ):
        assert value(samples, f"inkdigits_{name}", **labels) == count, (name, labels)
    assert value(samples, "inkdigits_stage_duration_seconds_sum", stage="total") > 0
    assert not any("/no/such/path" in str(key) or "INVENTED" in str(key) for key in samples)


def models(samples):
    """1 for the versions that answer, and 0 for others, by version."""
    return {
        dict(labels)["model_version"]: number
        for (name, labels), number in samples.items()
        if name == "inkdigits_model_info"
    }


def test_model_that_answers_is_shown_and_its_predecessor_is_not():
    reader = FakeReader()
    client = create_app(Settings(), reader).test_client()
    reader.model_version = "fake-2"
    send_digit(client)
    assert models(scrape(client)) == {"fake-1": 0, "fake-2": 1}


def test_shared_folder_is_removed_by_its_maker_only():
    before = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    maker = os.getpid()
    try:
        with shared_folder() as folder:
            assert os.environ["PROMETHEUS_MULTIPROC_DIR"] == str(folder)
            child = os.fork()
            if child == 0:
                raise SystemExit
            assert os.waitpid(child, 0)[1] == 0
            assert folder.is_dir()
    finally:
        if os.getpid() != maker:
            # The worker has left through the "with" and must not go on as a second pytest.
            os._exit(0)
    assert not folder.exists()
    assert os.environ.get("PROMETHEUS_MULTIPROC_DIR") == before


def test_folder_of_a_killed_service_is_removed_and_that_of_a_running_one_is_not(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with shared_folder() as running:
        killed = running.with_name(f"{running.name}-killed")
        killed.mkdir()
        (killed / "model.onnx").touch()
        with shared_folder() as other:
            assert set(tmp_path.iterdir()) == {running, other}


def test_counts_of_workers_that_ended_are_added_up_in_one_file_of_each_kind(tmp_path):
    for pid, counts in ((7, {"a": 1.0, "b": 2.0}), (8, {"a": 4.0})):
        file = MmapedDict(str(tmp_path / f"counter_{pid}.db"))
        for key, count in counts.items():
            file.write_value(key, count, 0.0)
        file.close()
        (tmp_path / f"gauge_livesum_{pid}.db").write_bytes(b"\0" * 4096)
        # Killed while it made the file.
        (tmp_path / f"histogram_{pid}.db").touch()
    forget_process(tmp_path, 7)
    assert (tmp_path / "counter_8.db").exists()
    forget_process(tmp_path, 8)
    assert [path.name for path in tmp_path.iterdir()] == ["counter_past.db"]
    kept = MmapedDict.read_all_values_from_file(str(tmp_path / "counter_past.db"))
    assert {key: value for key, value, *_ in kept} == {"a": 5.0, "b": 2.0}


def test_full_disk_is_named_at_the_start(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(ConfigError, match=rf"{tmp_path}: No space left on device; .* TMPDIR"):
        Metrics(tmp_path)


@pytest.mark.e2e
def test_workers_are_added_up_and_a_killed_ones_counts_stay_until_the_service_stops(tmp_path):
    read = {"method": "POST", "route": "/predict", "status": "200"}
    answered = Counter()

    def both_have_answered():
        answered[service.predict()[1]["model_version"]] += 1
        return len(answered) == 2

    def is_replaced():
        try:
            answering = {version for version, number in models(fetch(service)).items() if number}
        except OSError:  # a connection that the killed worker had accepted
            return False
        return victim not in answering and len(answering) == 2

    def figure(name, **labels):
        return value(fetch(service), f"inkdigits_{name}", **labels)

    with running(INKDIGITS_WORKERS="2", TMPDIR=str(tmp_path)) as service:
        wait_until(both_have_answered)
        # A worker writes what it has counted a moment later, unless it is the one that is asked.
        wait_until(lambda: figure("requests_total", **read) == answered.total())
        for _ in range(4):
            assert figure("requests_total", **read) == answered.total()
            assert figure("decisions_total", decision="accept") == answered.total()
        victim = next(iter(answered))
        os.kill(int(victim.removeprefix("fake-")), signal.SIGKILL)
        wait_until(is_replaced)
        assert figure("requests_total", **read) == answered.total()
        wait_until(lambda: figure("requests_in_flight") == 1)
        assert service.predict()[0] == 200
        wait_until(lambda: figure("requests_total", **read) == answered.total() + 1)
        assert list(tmp_path.glob("inkdigits-run-*"))
        service.process.terminate()
        assert service.process.wait(60) == 0
        assert not list(tmp_path.glob("inkdigits-run-*"))


@pytest.fixture(scope="module")
def known():
    """Every sample's name that there is, and its labels."""
    ink = np.zeros((100, 28, 28), np.uint8)
    ink[:, 4:24, 13:16] = 255
    reference = DriftReference.from_inks_and_confidences(ink, np.linspace(0.5, 1, 100))
    reader = Inky(ink, {PROVENANCE: reference.to_dict()})
    metrics = Metrics()
    metrics.show_audit(Audit.of(100, 1, 5), 0.001)
    metrics.count("shadow", "fake-2", "differs")
    metrics.count("rate_limits", "process")
    client = create_app(Settings(), reader, metrics=metrics).test_client()
    send_some_of_everything(client)
    names = defaultdict(set)
    for name, labels in scrape(client):
        names[name].update(label for label, _ in labels)
    return names


def expressions():
    dashboard = json.loads((FOLDER / "grafana.json").read_text(encoding="utf-8"))
    found = {
        f"panel {panel['title']} {target['refId']}": target["expr"]
        for panel in dashboard["panels"]
        for target in panel["targets"]
    }
    groups = yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        found[f"alert {rule['alert']}"] = rule["expr"]
    return found


@pytest.mark.parametrize(("name", "expression"), expressions().items())
def test_dashboard_and_alerts_name_only_figures_and_labels_that_exist(known, name, expression):
    used = re.findall(r"inkdigits_\w+", expression)
    assert used
    assert set(used) <= set(known)
    labels = set(re.findall(r"[{,]\s*(\w+)\s*[!=]", expression))
    for listed in re.findall(r"(?:by|on|ignoring) \(([^)]*)\)", expression):
        labels.update(label.strip() for label in listed.split(","))
    assert labels <= set().union(*(known[one] for one in used)) | {"instance"}
    assert expression.count("(") == expression.count(")")


def test_every_figure_is_on_the_dashboard(known):
    shown = " ".join(expressions().values())
    ours = {re.sub(r"_(bucket|count|sum)$", "", name) for name in known}
    assert [name for name in ours if not (name in shown or name.endswith("_created"))] == []

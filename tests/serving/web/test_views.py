import importlib.util
import re
import tempfile
from dataclasses import replace

import pytest
from support.answers import as_base64, code_of
from support.browser import HTML, Browser
from support.databases import PATIENT, a_record
from support.fakes import FakeReader, SeesSeveral, blank_picture, drawn_digit, send_digit

from inkdigits.decision.policy import DecisionPolicy
from inkdigits.errors import OutboxError, StoreUnavailableError
from inkdigits.log.record import Shares
from inkdigits.log.statistics import CalibrationBin, Proportion
from inkdigits.log.store import Store
from inkdigits.model.artifact import ArtifactMetadata, shipped_version
from inkdigits.serving.api.access import CONTENT_SECURITY_POLICY
from inkdigits.serving.app import create_app
from inkdigits.serving.web import views

PAGES = ["/", "/history", "/dashboard", "/model", "/sign-in", "/nowhere", "/history?digit=<script>"]


def test_browsers_get_pages_and_programs_json_as_everybody_from_the_api(app):
    client = app.test_client()
    page = client.get("/", headers=HTML)
    assert (page.mimetype, "Accept" in page.headers["Vary"]) == ("text/html", True)
    for accept in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
        assert client.get("/", headers=accept).json["name"] == "inkdigits"
    assert "Not found" in client.get("/nowhere", headers=HTML).text
    assert code_of(client.get("/nowhere")) == (404, "not_found")
    assert code_of(client.get("/predict", headers=HTML)) == (405, "method_not_allowed")


def test_page_can_be_off_with_predictions_still_kept(settings, store):
    client = create_app(replace(settings, page="off"), FakeReader(), store).test_client()
    assert client.get("/", headers=HTML).json["name"] == "inkdigits"
    assert client.get("/history", headers=HTML).status_code == 404
    send_digit(client)
    assert len(store.page().records) == 1


@pytest.mark.parametrize("path", PAGES)
def test_every_page_has_the_policy_and_nothing_that_it_forbids(app, path):
    response = app.test_client().get(path, headers=HTML)
    assert response.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert response.headers["X-Frame-Options"] == "DENY"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", response.text)
    assert not re.search(r'<(?!a )[^>]*(src|href)="(https?:)?//', response.text)
    assert 'href="/docs"' in response.text
    # What a query brings is escaped.
    assert ("&lt;script&gt;" in response.text) is ("<script>" in path)


def test_finished_drawing_is_kept_for_its_browser_with_its_picture_only_if_so_configured(
    browser, store, settings
):
    answer = browser.draw("kind=uploaded")
    assert (answer["prediction"], answer["kept"]) == (7, "database")
    assert answer["ink"].startswith("data:image/png;base64,")
    record = store.get(answer["id"])
    assert (record.digit, record.input_kind, record.picture) == (7, "uploaded", None)
    assert browser.ids() == [answer["id"]]
    folder = settings.outbox_folder
    with Store(settings.log_url, outbox_dir=folder, keep_pictures=True, options=PATIENT) as keeping:
        answer = Browser(create_app(settings, FakeReader(), keeping)).draw()
        assert keeping.get(answer["id"]).picture == drawn_digit()


def test_several_digits_are_kept_as_the_number_that_they_are(settings, store):
    browser = Browser(create_app(settings, SeesSeveral(), store))
    answer = browser.draw("kind=uploaded&risk=0.001")
    assert (answer["reason"], answer["number"]["text"]) == ("several_digits", "77")
    (record,) = store.page().records
    assert (record.id, record.text, record.input_kind) == (answer["id"], "77", "uploaded")
    assert (len(record.inks), len(record.ink)) == (2, 3)
    assert browser.see().count('class="ink"') == 2


def test_rejected_picture_has_no_digit_in_the_history(app, store):
    store.keep(a_record(8, digit=8, decision="reject", reason="not_a_digit"))
    page = Browser(app).signed_in().see()
    assert 'class="digit">\N{EN DASH}<' in page
    assert "Not a digit" in page
    assert "closest: 8" in page


def test_live_readings_are_not_kept_and_those_of_the_api_are(browser, store):
    assert "ink" in send_digit(browser.client, "/predict?ink=true&record=false").json
    assert store.page().records == ()
    answer = send_digit(browser.client).json
    assert "ink" not in answer
    (record,) = store.page().records
    assert (record.id, record.input_kind, record.owner) == (answer["id"], "api", None)
    assert browser.ids() == []
    assert send_digit(browser.client, "/predict?record=perhaps").status_code == 422
    images = {"images": [as_base64(drawn_digit()), "!", as_base64(drawn_digit())]}
    first, _, last = browser.client.post("/predict", json=images).json["predictions"]
    kept = {record.id for record in store.page().records}
    assert kept == {answer["id"], first["id"], last["id"]}


def test_drawing_that_goes_on_replaces_what_its_browser_kept_without_feedback(app, browser):
    first = browser.draw()["id"]
    Browser(app).draw(f"replaces={first}")
    assert browser.ids() == [first]
    second = browser.draw(f"replaces={first}")["id"]
    assert browser.ids() == [second]
    browser.label(second, "3")
    third = browser.draw(f"replaces={second}")["id"]
    assert browser.ids() == [third, second]


def test_answer_needs_no_log_and_the_page_neither_log_nor_model(
    browser, reader, store, monkeypatch, caplog
):
    def fail(row):
        raise OutboxError("the disk is full")

    # The store looks by itself whether the database is back, at any time.
    monkeypatch.setattr(store._database, "recover", lambda began: None)
    store._database.fail("the disk is full")
    monkeypatch.setattr(store._outbox, "put", fail)
    answer = browser.draw()
    assert (answer["prediction"], answer["kept"]) == (7, "lost")
    assert "a prediction is lost" in caplog.text
    store.close()
    reader.failure = RuntimeError("asked")
    assert browser.see("/")


def test_page_says_what_it_was_in_a_label_that_it_knows(browser, store):
    record_id = browser.draw()["id"]
    for said, kept, was_right in (("7", "7", True), ("3", "3", False), ("none", "none", False)):
        response = browser.label(record_id, said)
        assert response.json == {"id": record_id, "label": kept, "was_right": was_right}
        assert store.get(record_id).label == kept
        browser.label(record_id, "")
        assert store.get(record_id).label is None
    for said in ("x", "-1", "٣", "7 ", "1" * 65):
        assert code_of(browser.label(record_id, said)) == (422, "wrong_value"), said
    # A form without script comes back to the same page.
    form = {"label": "1", "digit": "7", "csrf_token": browser.token["X-CSRF-Token"]}
    response = browser.client.post(f"/history/{record_id}/feedback", data=form)
    assert (response.status_code, response.location) == (303, "/history?digit=7")


def test_browsers_see_and_change_only_their_own(app, browser):
    record_id = browser.draw()["id"]
    other = Browser(app)
    assert other.ids() == []
    for path in (f"/history/{record_id}/feedback", f"/history/{record_id}/delete"):
        assert other.post(path, label="1").status_code == 404
    assert record_id not in other.client.get("/history/export", buffered=True).text
    other.post("/history/delete", sure="yes")
    assert browser.ids() == [record_id]
    assert record_id in browser.client.get("/history/export", buffered=True).text


def test_pages_lead_through_all_of_it_and_back(browser):
    def linked(page, direction):
        return re.search(rf'rel="{direction}" href="/history\?([^"]+)"', page)[1]

    drawn = [browser.draw()["id"] for _ in range(30)][::-1]
    assert browser.ids() == drawn[:24]
    older = linked(browser.see(), "next")
    assert browser.ids(older) == drawn[24:]
    assert browser.ids(linked(browser.see(f"/history?{older}"), "prev")) == drawn[:24]


def test_filters_narrow_it(browser, reader):
    seven = browser.draw()["id"]
    reader.digit = 2
    two = browser.draw()["id"]
    browser.label(two, "3")
    sent = {"data": blank_picture(), "content_type": "image/png"}
    blank = browser.client.post("/history", headers=browser.token, **sent).json["id"]
    for query, ids in {
        "digit=7": [seven],
        "digit=none": [blank],
        "decision=reject": [blank],
        "feedback=wrong": [two],
        "feedback=none": [blank, seven],
        "until=2020-01-01": [],
        "since=2020-01-01&digit=": [blank, two, seven],
    }.items():
        assert browser.ids(query) == ids, query


def test_one_and_all_can_be_deleted(browser):
    first, second = browser.draw()["id"], browser.draw()["id"]
    assert browser.post(f"/history/{first}/delete").json == {"deleted": 1}
    assert browser.post("/history/delete").status_code == 400
    assert browser.ids() == [second]
    assert browser.post("/history/delete", sure="yes").json == {"deleted": 1}
    assert browser.ids() == []


def test_export_is_a_file_and_needs_no_folder_for_temporary_ones(browser, monkeypatch):
    monkeypatch.setattr(views, "_EXPORT_MEMORY", 1)
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    browser.draw()
    files = {
        "csv": ("text/csv", b"id,created_at"),
        "parquet": ("application/vnd.apache.parquet", b"PAR1"),
    }
    for form, (kind, begins) in files.items():
        response = browser.client.get(f"/history/export?format={form}", buffered=True)
        assert response.mimetype == kind
        assert response.headers["Content-Disposition"].startswith("attachment; filename=inkdigits")
        assert response.data.startswith(begins)
    assert browser.client.get("/history/export?format=xls").status_code == 400
    wrong = browser.client.get("/history/export?digits=7")  # which would export all
    assert "digits" in wrong.json["error"]["message"]


@pytest.mark.parametrize("is_there", [True, False])
def test_formats_are_offered_if_they_can_be_made(settings, store, monkeypatch, is_there):
    found = importlib.util.find_spec("json") if is_there else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    browser = Browser(create_app(settings, FakeReader(), store))
    browser.draw()
    assert ("format=parquet" in browser.see()) is is_there


def test_database_that_is_unavailable_is_said_on_the_page(browser, store, monkeypatch):
    def fail(*args, **kwargs):
        raise StoreUnavailableError("the database is unavailable: secret host")

    for path, method in (("/history", "page"), ("/dashboard", "statistics")):
        monkeypatch.setattr(store, method, fail)
        response = browser.client.get(path, headers=HTML)
        assert (response.status_code, "secret host" in response.text) == (503, False)
        assert "is unavailable" in response.text


def test_dashboard_counts_what_was_read_and_corrected(browser):
    assert "There are no readings in this period" in browser.see("/dashboard")
    for said in ("7", "7", "3", "none"):
        browser.label(browser.draw()["id"], said)
    for span in ("day", "month", "all"):
        page = browser.see(f"/dashboard?span={span}")
        assert re.search(r'id="accuracy">66\.6\s%<', page)
        assert "2 of 3; 95 % interval" in page
        assert f'span={span}" aria-current="true"' in page
        assert 'class="shade5 diagonal">2<' in page
        assert "0 of 1 pictures without a digit were rejected." in page
    assert browser.client.get("/dashboard?span=x").status_code == 400


def metadata(version, threshold=0.9, **more):
    policy = DecisionPolicy(threshold, 0.002, 0.95)
    return ArtifactMetadata(version, "MNISTClassifier", 1.25, policy, **more)


def test_model_page_shows_the_artifacts_own_figures(browser, reader):
    assert "has no metadata" in browser.see("/model")
    assert browser.client.get("/api/model").status_code == 404
    reader.metadata = metadata("v1", threshold=None)
    assert "every reading needs a check" in browser.see("/model")
    figure = {"value": 0.994, "low": 0.9923, "high": 0.9953}
    figures = dict.fromkeys(("accuracy", "ece", "nll", "brier"), figure)
    provenance = {
        "test": {"n": 10000, "n_correct": 9940, "level": 0.95, **figures},
        "device": "cuda",
        "hardware": {"cpu": "Example CPU", "accelerator": "Example GPU"},
    }
    reader.metadata = metadata("v1", provenance=provenance)
    page = browser.see("/model")
    for shown in (
        *(
            "99.40 %",
            "9,940 of 10,000 test pictures; 95 % interval 99.23 to 99.53 %",
            "Temperature 1.250",
        ),
        *("test-time augmentation", "Example GPU", "clean American digits only"),
    ):
        assert shown in page
    assert "Example CPU" not in page
    assert '<svg class="chart' not in page  # the run is of the shipped model, and this is another
    assert browser.client.get("/api/model").json["policy"]["accept_threshold"] == 0.9


def test_model_page_shows_the_shipped_models_run(browser, reader, monkeypatch):
    bins = {"clean": [CalibrationBin(0.9, 1.0, 0.95, Proportion.of(19, 20))]}
    of = {"n": 4000, "n_accepted": 3000, "n_wrong": 2}
    groups = {"pupils": {**of, "decides": True}, "other hands": {**of, "keeps_risk": False}}
    run = {**views._figures()["run"], "accepted_by_group": groups}
    figures = {**views._figures(), "reliability": bins, "run": run}
    reader.model_version = shipped_version()
    reader.metadata = metadata(
        shipped_version(), second_look_margin=0.0, provenance={"synthesis": [{"digits": 100}]}
    )
    page = browser.see("/model")
    assert "test-time augmentation" not in page  # its margin is 0
    assert "numbers in one line" in page
    assert page.count('<svg class="chart" height') == 2
    assert page.count('<svg class="chart row"') > 20
    assert page.count('class="confusion"') == 1
    assert "The accuracy is lowest for" in page
    monkeypatch.setattr(views, "_figures", lambda: figures)
    page = browser.see("/model")
    assert page.count('<svg class="chart square"') == 1
    for shown in (
        "75.0\N{NO-BREAK SPACE}%",
        "2 of 3,000",
        "(no threshold meets the risk)",
        "The highlighted group",
    ):
        assert shown in page


def test_operators_history_names_what_is_no_digit(app, store):
    record = a_record()
    store.keep(record)
    store.give_feedback(record.id, "none", "page")
    assert "it is not a digit" in Browser(app).signed_in().see()


def test_history_is_sorted_by_confidence_and_counted(app, browser, store):
    operator = Browser(app).signed_in()
    shares = [0.9, 0.2, 0.7, 0.2, 0.5] * 6
    records = [a_record(n, confidence=share) for n, share in enumerate(shares)]
    for record in records:
        store.keep(record)
    expected = [r.id for r in sorted(records, key=lambda r: (r.confidence, r.id))]
    first = operator.see("/history?sort=confidence")
    assert "30 readings of all browsers, least sure first" in first
    assert operator.ids("sort=confidence") == expected[:24]
    (more,) = re.findall(r'rel="next" href="/history\?([^"]+)"', first)
    more = more.replace("&amp;", "&")
    assert operator.ids(more) == expected[24:]
    (back,) = re.findall(r'rel="prev" href="/history\?([^"]+)"', operator.see(f"/history?{more}"))
    assert operator.ids(back.replace("&amp;", "&")) == expected[:24]
    assert "3 of 30 readings" in operator.see("/history?digit=7")
    for query in ("sort=luck", "sort=confidence&cursor=o.nan.x"):
        assert browser.client.get(f"/history?{query}").status_code == 400


def test_dashboard_shows_the_audit_to_the_operator_and_says_when_it_is_broken(
    settings, browser, store
):
    settings = replace(settings, risk=0.05)
    store.reviews.shares = Shares(audit=1.0, twice=0.0)
    for n in range(40):
        record = a_record(n, model_version="fake-1")
        store.keep(record)
        store.reviews.give(record.id, "ada", "none" if n < 9 else str(record.digit))
    store.keep(a_record(1, model_version="fake-1"))
    operator = Browser(create_app(settings, FakeReader(), store)).signed_in()
    page = operator.see("/dashboard?span=all")
    said = "9 of 40 audited readings of this model are wrong. With 95 % confidence, the rate is at "
    said += "most 35.98 %."
    assert said in page.replace("\N{NO-BREAK SPACE}", " ")
    assert "1 reading waits for" in page
    assert 'role="alert">This model exceeds the risk' in page
    assert "by audit" not in browser.see("/dashboard")


def test_dashboard_shows_both_sides_of_a_change_of_the_model(app, store):
    for n in range(8):
        record = a_record(n, model_version="old" if n < 6 else "new", decision="review")
        store.keep(record)
        store.give_feedback(record.id, str(n if n != 1 else 7), "page")
    page = Browser(app).signed_in().see("/dashboard?span=all")
    rows = re.findall(r'<tr><th scope="row">(old|new)</th>(.*?)</tr>', page)
    assert [name for name, _ in rows] == ["new", "old"]
    assert "83.3\N{NO-BREAK SPACE}% of 6" in rows[1][1]

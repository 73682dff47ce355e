"""The review queue on both databases: its order, its labels, and the figures that come of them."""

from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score
from support.databases import a_record, opened, rows_of

from inkdigits.decision.prediction import NumberReading
from inkdigits.errors import RecordError, RecordNotFoundError, StoreUnavailableError
from inkdigits.log.record import Record, Shares, new_id, to_row
from inkdigits.log.review import Audit, _cohen_kappa

pytest_plugins = ["support.databases"]

ALL = Shares(audit=1.0, twice=0.0)
TWICE = Shares(audit=1.0, twice=1.0)


@pytest.fixture
def shares():
    return ALL


@pytest.fixture
def store(database_url, tmp_path, shares):
    with opened(database_url, tmp_path, shares=shares) as made:
        yield made


def keep(store, number=0, **changes):
    record = a_record(number, **changes)
    assert store.keep(record) == "database"
    return record


def ids(store, reviewer="ada", **more):
    return [record.id for record, _ in store.reviews.next(reviewer, **more)]


def test_the_least_sure_come_first_and_the_audit_last(store):
    audited = [keep(store, n, confidence=0.99 - n / 100) for n in range(3)]
    unsure = keep(store, 3, decision="review", confidence=0.7)
    rejected = keep(store, 4, decision="reject", reason="unreadable", confidence=0.4)
    keep(store, 5, decision="reject", reason="blank", digit=None, confidence=0.0)
    expected = [rejected.id, unsure.id, *(record.id for record in audited)]
    assert ids(store) == expected
    assert [ids(store, limit=2), ids(store, limit=2, after=expected[1])] == [
        expected[:2],
        expected[2:4],
    ]
    assert ids(store, why="unsure") == [unsure.id]
    assert ids(store, why="audit", after=audited[1].id) == [audited[2].id]
    queued = {record.queued for record, _ in store.reviews.next("ada")}
    assert queued == {"rejected", "unsure", "audit"}


@pytest.mark.parametrize("is_kept", [False, True])
def test_a_number_that_was_not_read_is_queued_only_with_its_picture(store, is_kept):
    store._keep_pictures = is_kept
    unread = NumberReading("", (), 0.0, "reject", "several_lines", model_version="m")
    store.keep(Record.of(unread, picture=b"a picture", record_id=new_id()))
    assert len(ids(store)) == is_kept


def test_a_stable_share_is_audited_whatever_is_read(tmp_path):
    shares = Shares(audit=0.1, twice=0.5)
    rows: list[dict[str, Any]] = []
    rng = np.random.default_rng(0)
    for _ in range(5000):
        digest = rng.bytes(32).hex()
        row = {"ink_sha256": digest, "decision": "accept", "reason": None, "ink": b"ink"}
        shares.place(row)
        again = {**row, "queued": None, "reviews_due": None}
        shares.place(again)
        assert again["queued"] == row.get("queued")
        rows.append(row)
    audited = [row for row in rows if row.get("queued")]
    assert stats.binomtest(len(audited), len(rows), 0.1).pvalue > 0.001
    twice = sum(row["reviews_due"] == 2 for row in audited)
    assert stats.binomtest(twice, len(audited), 0.5).pvalue > 0.001


def test_a_label_leaves_the_queue_and_comes_back_when_it_is_undone(store):
    record = keep(store, 3)
    other = keep(store, 4, decision="review")
    store.give_feedback(record.id, "8", "page")
    for label in ("5", "3"):
        given = store.reviews.give(record.id, "ada", label)
        assert (given.label, given.feedback_by, given.reviews_due) == (label, "review:ada", None)
    assert store.get(record.id) == given
    assert ids(store) == [other.id]
    back = store.reviews.undo(record.id, "ada")
    # What the user said holds again.
    assert (back.label, back.feedback_by, back.reviews_due) == ("8", "page", 1)
    assert ids(store) == [other.id, record.id]
    assert store.reviews.undo(other.id, "ada").label is None


def test_feedback_that_comes_after_a_review_waits_beside_it(store):
    record = keep(store, 3)
    store.reviews.give(record.id, "ada", "5")
    assert store.give_feedback(record.id, "8", "page").label == "5"
    assert store.get(record.id).feedback_by == "review:ada"
    back = store.reviews.undo(record.id, "ada")
    assert (back.label, back.feedback_by) == ("8", "page")
    # There is nothing of this reviewer's to undo any more.
    assert store.reviews.undo(record.id, "ada").label == "8"
    store.reviews.give(record.id, "ada", "5")
    assert store.give_feedback(record.id, None, "page").label == "5"
    assert store.reviews.undo(record.id, "ada").label is None


def test_an_undo_without_a_label_leaves_the_feedback_of_the_user(store):
    record = keep(store, 3)
    store.give_feedback(record.id, "8", "page")
    assert store.reviews.undo(record.id, "ada").label == "8"
    store.give_feedback(record.id, None, "page")
    assert store.reviews.undo(record.id, "ada").label is None


@pytest.mark.parametrize("shares", [TWICE])
def test_two_label_without_seeing_each_other_and_a_third_decides(store):
    record = keep(store, 3)
    assert store.reviews.give(record.id, "ada", "3").reviews_due == 1
    assert (ids(store, "ada"), ids(store, "bob")) == ([], [record.id])
    given = store.reviews.give(record.id, "bob", "5")
    assert (given.label, given.reviews_due) == ("5", 1)
    assert (ids(store, "bob"), ids(store, "eve")) == ([], [record.id])
    given = store.reviews.give(record.id, "eve", "3")
    assert (given.label, given.reviews_due) == ("3", None)


def test_wrong_labels_reviewers_and_records_change_nothing(store):
    record = keep(store)
    for wrong in ("", "x", "1" * 65):
        with pytest.raises(RecordError):
            store.reviews.give(record.id, "ada", wrong)
    with pytest.raises(RecordError):
        store.reviews.give(record.id, "a b", "3")
    for name in ("7", new_id()):
        with pytest.raises(RecordNotFoundError):
            store.reviews.give(name, "ada", "3")
        with pytest.raises(RecordNotFoundError):
            store.reviews.undo(name, "ada")
    assert store.get(record.id).label is None
    store._database.fail("unplugged")
    with pytest.raises(StoreUnavailableError):
        store.reviews.give(record.id, "ada", "3")


def test_labels_go_with_their_predictions(store, database_url):
    old, deleted = keep(store, 1), keep(store, 2)
    for record in (old, deleted):
        store.reviews.give(record.id, "ada", "3")
    store.delete(deleted.id)
    assert rows_of(database_url, "prediction_id", "labels") == [old.id]
    store._retention_days = 1
    store.purge()
    assert rows_of(database_url, "prediction_id", "labels") == []


@pytest.mark.parametrize("shares", [TWICE])
def test_progress_counts_what_is_left_and_who_agrees(store):
    rng = np.random.default_rng(3)
    records = [keep(store, n, decision="review") for n in range(40)]
    said: dict[str, list[str]] = {"ada": [], "bob": []}
    for record in records[:30]:
        for name in said:
            label = record.read if rng.random() < 0.8 else str(rng.integers(10))
            said[name].append(str(label))
            store.reviews.give(record.id, name, str(label))
    found = store.reviews.progress("ada")
    ties = sum(one != other for one, other in zip(*said.values(), strict=True))
    assert found.due == {"unsure": 10}
    assert store.reviews.progress("eve").left == 10 + ties
    for name, labels in said.items():
        same = sum(r.read == x for r, x in zip(records, labels, strict=False))
        assert found.labelled[name] == (30, same)
    (agreement,) = found.agreements
    assert (agreement.reviewers, agreement.pictures, agreement.same) == (
        ("ada", "bob"),
        30,
        30 - ties,
    )
    assert agreement.kappa == pytest.approx(cohen_kappa_score(*said.values()))


def test_kappa_is_undefined_where_chance_always_agrees():
    assert _cohen_kappa({("3", "3"): 9}) is None
    assert _cohen_kappa({}) is None


def test_the_audit_measures_the_accepted_of_a_model(store):
    records = [keep(store, n) for n in range(50)]
    keep(store, 7, model_version="another")
    unsure = keep(store, 8, decision="review")
    store.reviews.give(unsure.id, "ada", "none")
    for record in records[:40]:
        store.reviews.give(record.id, "ada", str(record.read))
    store.reviews.give(records[0].id, "ada", "9")
    # What a user says is no audit.
    store.give_feedback(records[45].id, "1", "page")
    found = store.reviews.audit("test-1")
    assert (found.labelled, found.wrong, found.waiting) == (40, 1, 10)
    bound = stats.binomtest(1, 40).proportion_ci(0.90, method="exact")
    assert (found.low, found.high) == pytest.approx((bound.low, bound.high))
    assert not found.breaks(0.01)
    assert Audit.of(1000, 30, 0).breaks(0.01)
    assert store.reviews.audit("nothing") == Audit(0, 0, 0)
    assert not Audit(0, 0, 0).breaks(0.001)


def test_what_a_second_model_reads_otherwise_is_noted_and_queued(database_url, tmp_path):
    with opened(database_url, tmp_path, shares=Shares(audit=0.0, twice=0.0)) as store:
        accepted, unsure = keep(store, 1), keep(store, 2, decision="review")
        for record in (accepted, unsure):
            store.reviews.differ(record.id, {"model_version": "b", "text": "9"})
        assert [store.get(r.id).queued for r in (accepted, unsure)] == ["differs", "unsure"]
        assert ids(store, why="differs") == [accepted.id]
        assert store.get(unsure.id).shadow == {"model_version": "b", "text": "9"}
        store.reviews.differ(new_id(), {"text": "3"})  # deleted meanwhile


def test_the_queue_and_the_audit_read_only_what_is_queued_or_labelled(plans_of):
    def ask(store):
        store.reviews.next("ada")
        store.reviews.progress("ada")
        store.reviews.audit("test-1")

    scans = [line for line in plans_of(ask) if line.startswith("SCAN predictions")]
    assert scans
    assert all("USING COVERING INDEX ix_predictions_queue" in line for line in scans)


def test_what_is_said_of_a_row_in_the_outbox_moves_with_it_and_leaves_reviews_alone(
    database_url, tmp_path
):
    shadow = {"model_version": "b", "text": "9"}
    with opened(database_url, tmp_path, shares=Shares(audit=0.0, twice=0.0)) as store:
        waiting, in_both = a_record(1), keep(store, 2, decision="review")
        store._writer._tend = lambda: None  # the log's thread leaves the outbox alone
        store._writer.run(lambda: None)  # and what it had begun is over
        for record in (waiting, in_both):
            # As where a commit was late: the second is in the database too, and reviewed there.
            store._outbox.put(to_row(record))
        store.reviews.give(in_both.id, "ada", "5")
        for record in (waiting, in_both):
            store.reviews.differ(record.id, shadow)
            assert store.give_feedback(record.id, "8", "page").label == "8"
        store.flush_outbox()
        assert store.waiting() == 0
        first, second = store.get(waiting.id), store.get(in_both.id)
        assert (first.label, first.queued, first.shadow) == ("8", "differs", shadow)
        assert (second.label, second.queued, second.shadow) == ("5", "unsure", shadow)
        assert store.reviews.undo(in_both.id, "ada").label == "8"

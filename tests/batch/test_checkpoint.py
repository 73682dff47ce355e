import pytest
from support.batches import part

from inkdigits.batch.checkpoint import Checkpoint, write_part
from inkdigits.errors import BatchError

RUN = {"model": "a", "sources": [1], "hints": None}


@pytest.fixture
def first(tmp_path):
    """The checkpoint of a run that has begun."""
    checkpoint = Checkpoint(tmp_path / "out.csv", resume=False)
    checkpoint.begin(RUN)
    return checkpoint


def test_run_is_not_resumed_with_another_model_or_source(first):
    with pytest.raises(BatchError, match=r"the model changed since .* \('a', now 'b'\)"):
        first.begin({"model": "b", "sources": [1]})
    first.begin(RUN)


def test_part_is_only_used_for_the_pictures_of_which_it_is(first, tmp_path):
    name, is_there = first.listed(["a.png"])
    assert not is_there
    assert write_part(first.folder / name, part("a.png", error="bad")) == (1, 1)
    for sources in (["a.png"], ["b.png"]):
        again = Checkpoint(tmp_path / "out.csv", resume=True)
        again.begin(RUN)
        assert again.listed(sources)[1] == (sources == ["a.png"])
    with pytest.raises(BatchError, match="lacks 1 of 1 parts, such as 00000000"):
        again.finish()
    assert not (tmp_path / "out.csv").exists()
    totals = first.finish()
    assert (totals.pictures, totals.failures) == (1, [("a.png", "bad")])
    assert (tmp_path / "out.csv").read_text().endswith("a.png,,,,,,,,bad\n")


def test_damaged_description_of_a_run_is_named(first):
    (first.folder / "run.json").write_text("{")
    with pytest.raises(BatchError, match=r"run\.json is damaged"):
        first.begin(RUN)


def test_commands_that_began_at_once_with_other_sources_are_not_merged(first, tmp_path):
    with pytest.raises(BatchError, match="no command has read all its pictures"):
        first.publish()
    first.finish(shard=(0, 2))
    (first.folder / "run.json").unlink()  # as if neither saw the other's
    other = Checkpoint(tmp_path / "out.csv", resume=None)
    other.begin({**RUN, "sources": [2]})
    with pytest.raises(BatchError, match="had other pictures, models or options"):
        other.finish(shard=(1, 2))

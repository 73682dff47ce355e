from contextlib import closing

import pytest
from support.batches import part

from inkdigits.batch.checkpoint import Checkpoint, write_part
from inkdigits.errors import BatchError


@pytest.fixture
def first(tmp_path):
    """The checkpoint of a run that has begun."""
    with closing(Checkpoint(tmp_path / "out.csv", resume=False)) as checkpoint:
        checkpoint.begin({"model": "a", "sources": [1], "hints": None})
        yield checkpoint


def test_two_runs_do_not_write_the_same_file(first, tmp_path):
    with pytest.raises(BatchError, match="another process is writing"):
        Checkpoint(tmp_path / "out.csv", resume=True)
    first.close()
    Checkpoint(tmp_path / "out.csv", resume=True).close()


def test_run_is_not_resumed_with_another_model_or_source(first):
    done = write_part(first.folder, "csv", 0, part("a.png"))
    assert first.listed(0, ["a.png"], mine=True) == done
    assert (done.pictures, done.failed, done.failures) == (1, 0, [])
    assert first.listed(1, ["a.png"], mine=True) is None
    with pytest.raises(BatchError, match=r"around b\.png changed"):
        first.listed(0, ["b.png"], mine=True)
    with pytest.raises(BatchError, match=r"the model changed since .* \('a', now 'b'\)"):
        first.begin({"model": "b", "sources": [1]})
    first.begin({"model": "a", "sources": [1], "hints": None})


def test_result_is_not_put_together_without_all_parts(first, tmp_path):
    write_part(first.folder, "csv", 0, part("a.png"))
    with pytest.raises(BatchError, match="part 00000001"):
        first.finish({"shards": 2})
    assert not (tmp_path / "out.csv").exists()


def test_damaged_description_of_a_run_is_named(first):
    (first.folder / "run.json").write_text("{")
    with pytest.raises(BatchError, match=r"run\.json is damaged"):
        first.begin({"model": "a"})


def test_commands_that_began_at_once_with_other_sources_are_not_merged(tmp_path):
    for number in range(2):
        checkpoint = Checkpoint(tmp_path / "out.csv", resume=None, shard=(number, 2))
        (checkpoint.folder / "run.json").unlink(missing_ok=True)  # as if neither saw the other's
        checkpoint.begin({"model": "a", "sources": [number], "hints": None})
        checkpoint.finish({"shards": 0, "pictures": 0, "failed": 0})
        checkpoint.close()
    with (
        closing(Checkpoint(tmp_path / "out.csv", resume=True)) as joined,
        pytest.raises(BatchError, match="had other pictures, models or options"),
    ):
        joined.merge()

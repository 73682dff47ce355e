import signal

from support.processes import killed_afterwards

from inkdigits.log.locks import file_lock


def hold(path, is_held):
    with file_lock(path):
        is_held.set()
        signal.pause()


def test_a_lock_of_a_killed_process_is_free(tmp_path):
    with (
        killed_afterwards(hold, tmp_path / "lock"),
        file_lock(tmp_path / "lock", wait_s=0.02) as is_mine,
    ):
        assert not is_mine
    with file_lock(tmp_path / "lock") as is_mine:
        assert is_mine

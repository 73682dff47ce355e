import signal
from concurrent.futures import ThreadPoolExecutor

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


def test_a_waiting_thread_gets_the_lock_when_it_is_free(tmp_path):
    def wait():
        with file_lock(tmp_path / "lock", wait_s=60) as is_held:
            return is_held

    with ThreadPoolExecutor(1) as pool:
        with file_lock(tmp_path / "lock"):
            waiting = pool.submit(wait)
        assert waiting.result()

import io

import pytest

from inkdigits.cli.options import needs_training_extra, progress_bar


def test_module_that_is_no_training_package_is_not_blamed_on_the_extra():
    def command():
        raise ModuleNotFoundError(name="somebody_elses")

    with pytest.raises(ModuleNotFoundError) as caught:
        needs_training_extra(command)()
    assert caught.type is ModuleNotFoundError


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_has_share_and_details_on_a_terminal_only(monkeypatch):
    for stream, quiet in ((io.StringIO(), False), (Terminal(), True), (Terminal(), False)):
        monkeypatch.setattr("sys.stderr", stream)
        with progress_bar(quiet=quiet) as show:
            show(2500, 10_000, "1,234 pictures/s")
            written = stream.getvalue()
            show(2600, None)
        if quiet or not stream.isatty():
            assert stream.getvalue() == ""
    assert "2500/10000" in written
    assert "1,234 pictures/s" in written
    assert "2600/2601" in stream.getvalue()

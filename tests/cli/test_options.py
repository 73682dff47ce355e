import io

from inkdigits.cli.options import progress_bar


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

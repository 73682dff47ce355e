import io

from inkdigits.batch.run import Progress
from inkdigits.cli.progress import printable, progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_has_share_rate_and_failures():
    terminal = Terminal()
    with progress_bar(terminal, quiet=False) as show:
        show(Progress(2500, 3, 10_000, 1234.5))
        written = terminal.getvalue()
        show(Progress(2600, 3, None, 10.0))
    assert "2500/10000" in written
    assert "1,234 pictures/s, 3 cannot be read" in written
    assert "2600/2601" in terminal.getvalue()


def test_progress_is_for_terminals_only():
    for stream, quiet in ((io.StringIO(), False), (Terminal(), True)):
        with progress_bar(stream, quiet) as show:
            assert show is None
        assert stream.getvalue() == ""
    assert printable("a\x1b[2J\nb é") == "a\\x1b[2J\\nb é"

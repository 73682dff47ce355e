import io

from inkdigits.batch.run import Progress
from inkdigits.cli.progress import ProgressLine, as_line, printable


def test_progress_has_rate_and_time_left_where_the_end_is_known():
    line = as_line(Progress(2500, 3, 10_000, 1234.5, 3725.0))
    assert "[######------------------]  25 %" in line
    assert "2,500 of 10,000" in line
    assert "1,234/s" in line
    assert "1:02:05 left" in line
    assert "3 cannot be read" in line
    assert as_line(Progress(2500, 0, None, 10.0, None)) == "2,500 pictures  10/s"
    assert "99 %" in as_line(Progress(9999, 0, 10_000, 1.0, 1.0))


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_for_terminals_only_and_leaves_the_line_empty():
    progress = Progress(1, 0, 2, 1.0, 1.0)
    for stream, quiet in ((io.StringIO(), False), (Terminal(), True)):
        with ProgressLine(stream, quiet) as line:
            line.show(progress)
        assert not line.on
        assert stream.getvalue() == ""
    terminal = Terminal()
    with ProgressLine(terminal, quiet=False) as line:
        line.show(progress)
        written = terminal.getvalue()
    assert written.count("\r") == 1
    assert terminal.getvalue().removeprefix(written).strip() == ""
    assert printable("a\x1b[2J\nb é") == "a\\x1b[2J\\nb é"

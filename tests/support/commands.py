"""The command line, called in this process."""

from click.testing import CliRunner, Result

from inkdigits.cli.main import main


def run(*arguments: object, exit_code: int = 0, answer: str | bytes | None = None) -> Result:
    """Call ``inkdigits`` and check its exit code."""
    result = CliRunner().invoke(main, [str(a) for a in arguments], input=answer)
    assert result.exit_code == exit_code, result.output
    return result

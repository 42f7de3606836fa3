"""The command line, called in this process."""

from typer.testing import CliRunner

from heinfer_cli.main import app


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error; whatever is not an exit is raised."""
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"})
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr

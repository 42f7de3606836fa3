"""What compiling says while it is under way, and that it can be stopped."""

import io
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import small_model

from heinfer.compiler.progress import shown

BESIDE = Path(small_model.__file__).parent  # a script given to Python as text imports from where it runs

COMPILE = """
from small_model import small_model
print("begun", flush=True)
while True:
    model = small_model()
    print("done", model, flush=True)
"""


def test_nothing_is_shown_where_nobody_looks(capfd: pytest.CaptureFixture[str]) -> None:
    with shown("compile tiny") as tell:
        tell("plan", 0, 0)
    assert capfd.readouterr() == ("", "")


def on_a_terminal(script: str, until: bytes) -> tuple[bytes, int]:
    """What a script shows on a terminal until some text is there and it is interrupted, and how it ends."""
    ours, theirs = pty.openpty()
    heard = ["env", "--default-signal=INT", sys.executable, "-c", script]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(heard, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=BESIDE)
    os.close(theirs)
    text = b""
    with io.FileIO(ours, "r") as terminal:
        while until not in text:
            text += terminal.read(4096) or b""
        process.send_signal(signal.SIGINT)
        try:
            while more := terminal.read(4096):
                text += more
        except OSError:  # the other end is closed
            pass
    return text, process.wait(timeout=60)


@pytest.mark.slow
def test_a_terminal_shows_the_steps_and_ctrl_c_ends_them() -> None:
    text, _ = on_a_terminal(COMPILE, b"calibrate")
    assert b"compile small: plan" in text
    assert text.rstrip().endswith(b"KeyboardInterrupt")
    assert b"\x1b[?25h" in text  # the cursor is back


COMMAND = """
import sys
from types import SimpleNamespace
from small_model import small_model
from heinfer.zoo import checkpoint, reference

def compile_forever(*_):
    while True:
        small_model()

checkpoint.read_metadata = lambda _path: SimpleNamespace(name="small")
reference.compile_reference = compile_forever
reference.requirements_for = lambda _name: reference.REQUIREMENTS
from heinfer_cli.main import app
sys.exit(app(["compile", "small", "--out", {out!r}]))
"""


@pytest.mark.slow
def test_ctrl_c_ends_the_command_without_a_traceback(tmp_path: Path) -> None:
    text, status = on_a_terminal(COMMAND.format(out=str(tmp_path / "small.heinfer")), b"calibrate")
    assert b"compile small: plan" in text
    assert b"Traceback" not in text
    assert status == 130
    assert not list(tmp_path.iterdir())


def test_what_is_told_may_be_anything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Names of layers come from outside: they are shown as they are."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    log = tmp_path / "log"
    with log.open("w") as stderr, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        with shown("compile tiny") as tell:
            tell("lower [red]conv[/red]", 1, 2)
    assert "lower [red]conv[/red], 1 of 2" in log.read_text()

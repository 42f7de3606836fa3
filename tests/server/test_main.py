"""The start of the service as a process, as far as it comes when something is wrong."""

import logging
import socket

import pytest
from tiny_model import tiny_bundle

from heinfer.errors import SettingError
from heinfer.formats import bundle as bundles
from heinfer_server import Settings
from heinfer_server.__main__ import main
from heinfer_server.main import run


@pytest.fixture(autouse=True)
def logging_as_before():
    """Services that begin to run in this process send its log to standard error."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    for handler in [handler for handler in root.handlers if handler not in before]:
        root.removeHandler(handler)
        handler.close()
    root.handlers[:] = before
    root.setLevel(level)


def test_an_address_that_is_taken_is_refused_before_workers_load_models(tmp_path, monkeypatch):
    monkeypatch.setattr("heinfer_server.main.create_app", None)  # it is not called
    bundles.save(tiny_bundle(), tmp_path / "a")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(bundles=(tmp_path / "a",), no_auth=True, port=taken.getsockname()[1])
        with pytest.raises(SettingError, match=r"port \d+ \(Address already in use\): set HEINFER_SERVER_PORT"):
            run(settings)
    for host in ("nowhere.invalid", "x" * 64):
        with pytest.raises(SettingError, match=rf"cannot listen on {host}, .* or HEINFER_SERVER_HOST"):
            run(settings.model_copy(update={"host": host}))


def test_the_command_names_the_setting_that_is_wrong(monkeypatch, capsys):
    monkeypatch.setenv("HEINFER_SERVER_BUNDLES", "missing.heinfer")
    assert main() == 2
    assert "HEINFER_SERVER_NO_AUTH" in capsys.readouterr().err
    monkeypatch.setenv("HEINFER_SERVER_NO_AUTH", "1")
    assert main() == 2
    assert "missing.heinfer" in capsys.readouterr().err
    monkeypatch.setenv("HEINFER_SERVER_WORKERS", "many")
    assert main() == 2
    assert "HEINFER_SERVER_WORKERS" in capsys.readouterr().err

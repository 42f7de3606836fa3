"""Settings: from the environment, checked against each other, misspelt ones refused."""

import os

import pytest
from pydantic import ValidationError

from heinfer_server import Settings
from heinfer_server.__main__ import main


def test_settings_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("HEINFER_SERVER_BUNDLES", os.pathsep.join(["a.heinfer", "b.heinfer"]))
    monkeypatch.setenv("HEINFER_SERVER_KEY_MEMORY", "512MiB")
    monkeypatch.setenv("HEINFER_SERVER_PORT", "0")
    monkeypatch.setenv("HEINFER_SERVER_NO_AUTH", "1")
    settings = Settings()
    assert [path.name for path in settings.bundles] == ["a.heinfer", "b.heinfer"]
    assert (settings.key_memory, settings.port) == (512 << 20, 0)
    assert settings.workers >= 1


@pytest.mark.parametrize(
    "wrong", [{"port": 70_000}, {"workers": 0}, {"bundles": ()}, {"evaluation_timeout": 0}, {"colour": "red"}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        Settings(**{"bundles": ("a",), "no_auth": True, **wrong})


@pytest.mark.parametrize(("name", "meant"), [("KEY_FODLER", "KEY_FOLDER"), ("key_qota", "KEY_QUOTA")])
def test_a_misspelt_variable_is_refused_with_what_may_be_meant(name, meant, monkeypatch, capsys):
    monkeypatch.setenv(f"HEINFER_SERVER_{name}", "1")
    assert main() == 2
    assert f"HEINFER_SERVER_{name} is no setting: did you mean HEINFER_SERVER_{meant}?" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["INTERNAL_SERVICE_HOST", "INTERNAL_PORT_9464_TCP_ADDR", "COLOUR"])
def test_a_variable_that_somebody_else_has_set_is_ignored(name, monkeypatch):
    monkeypatch.setenv(f"HEINFER_SERVER_{name}", "10.0.0.1")  # as Kubernetes does for each of its services
    assert Settings(bundles=("a",), no_auth=True).port == 8000


def test_what_is_set_twice_over_is_said_to_contradict():
    with pytest.raises(ValidationError, match=r"contradict .* HEINFER_SERVER_NO_AUTH"):
        Settings(bundles=("a",), no_auth=True, tenants="a")


def test_a_folder_for_constants_must_be_writable(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write everywhere
    with pytest.raises(ValidationError, match="cannot be written"):
        Settings(bundles=("a",), no_auth=True, constants_folder=tmp_path)

"""A service under a prefix: the same paths with it and without, its own addresses always with it."""

import httpx
import pytest
from in_process import URL, running_service
from pydantic import ValidationError
from test_server import assert_problem
from tiny_model import tiny_bundle

from heinfer.errors import SettingError
from heinfer_server import Settings, create_app
from heinfer_server.admission.tenants import TenantFile
from heinfer_server.models import load_models

PREFIX = "/he/v1"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    file = TenantFile(folder / "tenants.json")
    key = file.add("alice")
    with running_service(folder, [tiny_bundle()], tenants=folder / "tenants.json", root_path=PREFIX) as service:
        service.key = key
        yield service


@pytest.fixture
def alice(running) -> httpx.Client:
    return httpx.Client(transport=running.transport, base_url=URL, headers={"Authorization": f"Bearer {running.key}"})


@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_paths_are_the_same_with_it_and_without(running, http, alice, prefix):
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert http.get(prefix + path).status_code == 200
    assert_problem(http.get(f"{prefix}/models"), 401, "unauthorized")
    assert alice.get(f"{prefix}/models").json()["models"][0]["manifest"] == f"{PREFIX}/models/tiny/manifest"
    assert alice.get(f"{prefix}/models/tiny/manifest").status_code == 200
    wrong = alice.get(f"{prefix}/nothing")
    assert_problem(wrong, 404, "not-found")
    assert f"{PREFIX}/openapi.json describes" in wrong.json()["detail"]


@pytest.mark.parametrize("path", ["", "models", f"{PREFIX}/models", "/", "//models"])
def test_it_is_taken_off_once_and_as_a_whole(alice, path):
    assert_problem(alice.get(f"{PREFIX}{path}"), 404, "not-found")


def test_openapi_names_it_as_the_server(http):
    description = http.get(f"{PREFIX}/openapi.json").json()
    assert description["servers"] == [{"url": PREFIX}]
    assert "/models" in description["paths"]


@pytest.mark.parametrize(
    "wrong",
    ["he", "/", "/he/", "//", "/a//b", "/..", "/a/../b", "/.", "/a b", "/ä", "/a?b", "/a%2Fb", "/a\n", "http://a"],
)
def test_what_is_no_prefix_is_refused(wrong):
    with pytest.raises(ValidationError, match="written like /he"):
        Settings(bundles=("a",), no_auth=True, root_path=wrong)


@pytest.mark.parametrize("wrong", ["/models", "/jobs/a", "/healthz", "/openapi.json"])
def test_a_prefix_like_a_path_of_its_own_is_refused(running, wrong):
    chosen = Settings(bundles=running.service.settings.bundles, no_auth=True, root_path=wrong)
    with pytest.raises(SettingError, match=r"a path /.* of its own"):
        create_app(chosen, load_models(chosen.bundles))

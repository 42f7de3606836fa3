"""What is served: opened from bundles, and refused where keys could never be registered."""

import pytest
from tiny_model import tiny_bundle

from heinfer.errors import BundleError, SettingError
from heinfer.formats import bundle as bundles
from heinfer_server import Settings, create_app
from heinfer_server.models import load_models


def test_bundles_must_be_there_whole_and_of_different_manifests(tmp_path):
    path, twin, broken = (tmp_path / name for name in ("a", "b", "c"))
    bundles.save(tiny_bundle(), path)
    bundles.save(tiny_bundle(), twin)
    broken.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SettingError, match="there is no bundle"):
        load_models([tmp_path / "missing"])
    with pytest.raises(SettingError, match="two bundles have the same manifest, of tiny 1: serve one"):
        load_models([path, twin])
    with pytest.raises(BundleError):
        load_models([broken])


def test_memory_for_keys_must_hold_one_clients(tmp_path):
    path = tmp_path / "a"
    bundles.save(tiny_bundle(), path)
    for name, others in (
        ("KEY_MEMORY", {"no_auth": True}),
        ("KEY_QUOTA", {"no_auth": True}),
        ("KEY_DISK", {"no_auth": True, "key_folder": tmp_path / "keys"}),
    ):
        settings = Settings(bundles=(path,), **others, **{name.lower(): 100_000})
        with pytest.raises(SettingError, match=f"is 100000: raise HEINFER_SERVER_{name}"):
            create_app(settings, load_models(settings.bundles))

"""What ``import heinfer`` offers, and what it does not load for that."""

import subprocess
import sys

import numpy as np
import pytest
from small_model import small_model

import heinfer
from heinfer.errors import BundleError
from heinfer.formats import bundle
from heinfer.formats.manifest import Preprocessing
from heinfer.planner import requirements


def test_a_compiled_model_and_its_bundle_are_saved_and_loaded(tmp_path):
    model = small_model()
    heinfer.save(model, tmp_path / "a.heinfer")
    heinfer.save(model.bundle, str(tmp_path / "b.heinfer"))
    assert (tmp_path / "a.heinfer").read_bytes() == (tmp_path / "b.heinfer").read_bytes()
    loaded = heinfer.load(tmp_path / "a.heinfer")
    assert isinstance(loaded, heinfer.Bundle)
    assert bundle.to_bytes(loaded) == bundle.to_bytes(model.bundle)


@pytest.mark.parametrize("thing", ["mine.heinfer", None, np.zeros(3), small_model])
def test_what_has_no_bundle_is_not_saved(thing, tmp_path):
    with pytest.raises(BundleError, match=f"can be saved, not a {type(thing).__name__}$"):
        heinfer.save(thing, tmp_path / "x.heinfer")
    assert not list(tmp_path.iterdir())


def test_names_are_those_of_the_modules():
    assert heinfer.Preprocessing is Preprocessing
    assert (heinfer.Limits, heinfer.Requirements) == (requirements.Limits, requirements.Requirements)
    assert (heinfer.load, heinfer.save) == (bundle.load, bundle.save)
    assert set(heinfer.__all__) <= set(dir(heinfer))
    with pytest.raises(AttributeError, match="has no attribute 'sav'"):
        _ = heinfer.sav


def loaded_by(script: str) -> set[str]:
    command = [sys.executable, "-c", f"import sys; {script}; print(*sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("names", ["", "Limits, Requirements", "Preprocessing", "load, save, Bundle"])
def test_nothing_is_loaded_that_is_not_asked_for(names):
    modules = loaded_by(f"from heinfer import {names}" if names else "import heinfer")
    assert not modules & {
        "torch",
        "scipy",
        "tenseal",
        "heinfer.network",
        "heinfer.compiler.compile",
        "httpx",
        "fastapi",
    }
    assert names or "numpy" not in modules


@pytest.mark.parametrize("package", ["scipy", "torch"])
def test_who_compiles_without_what_it_takes_learns_what_to_install(package):
    script = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "import heinfer, numpy\n"
        "try:\n"
        "    heinfer.compile(None, numpy.zeros((1, 1)), name='a', preprocessing=None)\n"
        "except heinfer.errors.SettingError as error:\n"
        "    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"{package} is not installed: pip install 'heinfer[train]'\n"

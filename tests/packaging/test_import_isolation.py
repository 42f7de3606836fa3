"""What the packages load, each asked in a process of its own."""

import subprocess
import sys

import pytest
from installed import INSTALLED

LOADED = "import {module}, sys; print(*sorted(sys.modules))"


def loaded_by(module: str) -> set[str]:
    script = LOADED.format(module=module)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return set(result.stdout.split())


def within(modules: set[str], packages: set[str]) -> set[str]:
    return {
        module for module in modules for package in packages if module == package or module.startswith(package + ".")
    }


COMPILER = {
    "torch",
    "scipy",
    "heinfer.nn",
    "heinfer.convert",
    "heinfer.frontend",
    "heinfer.compiler",
    "heinfer.planner",
}


def test_the_client_loads_no_compiler_no_web_framework_and_no_server():
    modules = loaded_by("heinfer_client.client") | loaded_by("heinfer_client.async_client")
    assert not within(modules, COMPILER | {"fastapi", "starlette", "uvicorn", "heinfer_server"})
    assert "heinfer.ckks.secret" in modules  # the test would notice it in a server


def test_the_server_loads_no_secret_key_no_compiler_no_client_and_no_crypto_library():
    modules = loaded_by("heinfer_server.main")
    assert not within(modules, COMPILER | {"heinfer.ckks.secret", "heinfer_client", "tenseal", "heinfer_native"})
    assert "fastapi" in modules


def worker_modules(backend: str) -> set[str]:
    """What a worker process has loaded once its model is encoded."""
    open_runtime = (
        "from heinfer.formats import bundle; from heinfer.zoo import bundle_path; "
        "import heinfer_server.evaluation.worker_process as w; from heinfer_server.evaluation.tasks import Setup; "
        "from heinfer_server.models import ServedModel; import sys; "
        "model = ServedModel.of(bundle.load(bundle_path('mnist-ffconv'))); "
        "w.Evaluator(Setup((model,), {backend!r})); print(*sorted(sys.modules))"
    )
    command = [sys.executable, "-c", open_runtime.format(backend=backend)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return set(result.stdout.split())


@pytest.mark.parametrize("backend", INSTALLED)
def test_a_worker_loads_its_backend_alone_and_no_secret_key(backend):
    modules = worker_modules(backend)
    assert not within(modules, COMPILER | {"heinfer.ckks.secret", "heinfer.ckks.secret_file", "heinfer_client"})
    assert not within(modules, {"fastapi", "uvicorn", "asyncio"})
    assert ("tenseal" in modules, "heinfer_native" in modules) == (backend == "tenseal", backend == "native")

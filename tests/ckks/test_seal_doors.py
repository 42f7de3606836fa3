"""SEAL's loaders have faults that newer releases mend: nothing but what our own writer made ever comes to them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from owner import Owner, binding_of
from tiny_model import tiny_bundle

import heinfer
import heinfer_client
import heinfer_server
from heinfer.backends import open_runtime
from heinfer.backends.seal import program as seal
from heinfer.ckks import evaluation, secret
from heinfer.errors import FormatError, ServiceError
from heinfer.formats.frames import decode_ciphertexts, decode_keys, encode_ciphertexts
from heinfer_client import codec

PACKAGES = [Path(package.__file__).parent for package in (heinfer, heinfer_server, heinfer_client)]
MODEL = tiny_bundle()
PARAMETERS = MODEL.manifest.to_parameters()
IMAGE = np.full((1, 4, 4), 100, dtype=np.uint8)


# By reading ------------------------------------------------------------------------------------


def sources() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            yield path.relative_to(package.parent).as_posix(), ast.parse(path.read_text())


def imported(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def calls(tree: ast.AST, name: str) -> Iterator[tuple[str, ast.Call]]:
    """Calls of a function or method of some name, each with the innermost function that it is in."""
    where: dict[ast.AST, str] = {}
    for outer in ast.walk(tree):  # outermost first
        if isinstance(outer, ast.FunctionDef):
            where |= dict.fromkeys(ast.walk(outer), outer.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            if name == (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", None)):
                yield where[node], node


def test_few_files_know_seal_and_one_function_calls_its_loaders():
    knowing = {name: tree for name, tree in sources() if any(of.startswith("tenseal") for of in imported(tree))}
    assert knowing.keys() == {
        "heinfer/backends/seal/program.py",
        "heinfer/ckks/evaluation.py",
        "heinfer/ckks/seal.py",
        "heinfer/ckks/secret.py",
    }
    assert {of for tree in knowing.values() for of in imported(tree) if of.startswith("tenseal")} == {"tenseal.sealapi"}
    loaders = {
        (name, where)
        for name, tree in knowing.items()
        for loader in ("load", "unsafe_load", "load_members", "context_from")
        for where, call in calls(tree, loader)
        if ast.unparse(call.func) != "secret_file.load"
    }
    assert loaders == {("heinfer/ckks/seal.py", "from_bytes")}


def test_what_comes_to_a_loader_is_what_the_writer_made():
    by_file = dict(sources())
    loading = {
        (name, where)
        for name, tree in by_file.items()
        if any(of == "heinfer.ckks.seal.from_bytes" for of in imported(tree))
        for where, _ in calls(tree, "from_bytes")
    }
    assert loading == {
        ("heinfer/ckks/evaluation.py", "load_keys"),
        ("heinfer/ckks/evaluation.py", "load_ciphertext"),
        ("heinfer/ckks/secret.py", "decrypt"),
        ("heinfer/ckks/secret.py", "load"),  # the owner's own key, from a file that nobody else may read
    }
    assert not any("heinfer.ckks.seal" in imported(tree) for tree in by_file.values())  # no other name for it
    for name in ("load_ciphertext", "load_keys"):
        given = [
            ast.unparse(call.args[0])
            for file, tree in by_file.items()
            if file in ("heinfer/backends/seal/program.py", "heinfer/measurement/tenseal.py")
            for _, call in calls(tree, name)
        ]
        assert given
        assert all(argument.startswith(("write_ciphertext(", "*write_keys(")) for argument in given)
    decrypting = [
        ast.unparse(call)
        for file, tree in by_file.items()
        if file.startswith("heinfer_client")
        for _, call in calls(tree, "decrypt")
        if ast.unparse(call.func) == "secret.decrypt"
    ]
    assert decrypting == ["secret.decrypt(write_ciphertext(frame, self.parameters))"]


# By running ------------------------------------------------------------------------------------


@pytest.fixture
def doors(monkeypatch) -> tuple[list[bytes], set[bytes]]:
    """What came to SEAL's loaders, and what our writer wrote."""
    came: list[bytes] = []
    written: set[bytes] = set()
    for module in (evaluation, secret):
        load = module.from_bytes

        def loading(empty, context, data, load=load):
            came.append(bytes(data))
            return load(empty, context, data)

        monkeypatch.setattr(module, "from_bytes", loading)
    for module, name in ((seal, "write_ciphertext"), (seal, "write_keys"), (codec, "write_ciphertext")):
        write = getattr(module, name)

        def writing(frames, parameters, write=write):
            made = write(frames, parameters)
            written.update(map(bytes, [made] if not isinstance(made, tuple) else filter(None, made)))
            return made

        monkeypatch.setattr(module, name, writing)
    return came, written


def test_a_call_from_end_to_end_loads_what_the_writer_wrote_and_nothing_else(doors):
    came, written = doors
    owner, plan = Owner(MODEL), MODEL.manifest.input
    runtime = open_runtime(MODEL.typed, backend="tenseal")
    sent, binding = owner.inputs(IMAGE), bytes(range(32))
    assert not came  # the client's own objects never are bytes of SEAL that it reads again
    of_keys = MODEL.manifest.keys_binding
    keys = runtime.load_keys(decode_keys(owner.keys, PARAMETERS, of_keys, MODEL.manifest.keys.levels))
    inputs = decode_ciphertexts(
        sent, PARAMETERS, binding_of(sent), count=1, level=plan.level, scale=plan.scale, seeded=True
    )
    outputs = runtime.save_outputs(runtime.run(runtime.load_inputs(inputs), keys))
    answer = encode_ciphertexts(PARAMETERS, binding, outputs)
    assert owner.scores(answer).shape == (4,)
    assert len(came) == 4  # rotation keys, the relinearization key, the input; the client, the output
    assert set(came) == written

    for length in (0, 100, len(answer) - 1):
        with pytest.raises(ServiceError):
            owner.codec.decrypt(owner.secret, answer[:length], 1, binding)
    damaged = bytearray(owner.keys)
    damaged[-8:] = b"\xff" * 8
    for bad in (damaged, owner.keys[:-1], b"\x5e\xa1" + owner.keys[2:]):
        with pytest.raises(FormatError):
            decode_keys(bytes(bad), PARAMETERS, of_keys, MODEL.manifest.keys.levels)
    assert len(came) == 4

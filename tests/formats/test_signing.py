"""Signed bundles: who is believed, what is signed, and that nothing of an unsigned bundle is read."""

import base64
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from in_process import running_service
from tiny_model import tiny_bundle
from typer.testing import CliRunner

from heinfer.errors import SettingError, UntrustedBundleError
from heinfer.formats import bundle as bundles
from heinfer.formats.signature import public_key, signature_path, signed, signer_of
from heinfer_cli.main import app
from heinfer_server import Settings
from heinfer_server.models import load_models

serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")


def openssl(*arguments: object) -> bytes:
    return subprocess.run(["openssl", *map(str, arguments)], capture_output=True, check=True, timeout=60).stdout


def key_pair(folder: Path, name: str, *protected: str) -> tuple[Path, Path]:
    """Files of a private and a public key, made as the documents say."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    openssl("genpkey", "-algorithm", "ed25519", *protected, "-out", private)
    private.chmod(0o600)
    opens = ["-passin", "pass:open sesame"] if protected else []
    openssl("pkey", "-in", private, *opens, "-pubout", "-out", public)
    return private, public


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, Path]:
    return key_pair(tmp_path_factory.mktemp("keys"), "ours")


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> tuple[Path, Path]:
    return key_pair(tmp_path_factory.mktemp("others"), "other")


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "tiny.heinfer"
    bundles.save(tiny_bundle(), path)
    return path


def heinfer(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    return result.exit_code, result.output


def flat(text: str) -> str:
    return " ".join(text.split())


# What is signed --------------------------------------------------------------------------------


def test_a_signed_bundle_verifies_and_says_what_was_signed(file, pair, other):
    private, public = pair
    code, told = heinfer("sign", file, "--key", private)
    assert code == 0
    assert sha256(file.read_bytes()).hexdigest() in told
    code, told = heinfer("verify", file, "--trust", other[1], "--trust", public)
    assert code == 0
    assert f"is signed by {public}: {sha256(file.read_bytes()).hexdigest()}" in flat(told)
    code, told = heinfer("verify", file, "--trust", other[1])
    assert code == 2
    assert "error untrusted-bundle" in told


def test_openssl_alone_verifies_a_signature(file, pair, tmp_path):
    """What is signed, and how, is as documented: another program finds the same."""
    private, public = pair
    assert heinfer("sign", file, "--key", private)[0] == 0
    message, signature = tmp_path / "message", tmp_path / "signature"
    message.write_bytes(b"heinfer bundle signature 1\0" + sha256(file.read_bytes()).digest())
    signature.write_bytes(base64.b64decode(signature_path(file).read_bytes()))
    verify = ("pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", public, "-in", message, "-sigfile", signature)
    assert b"Verified Successfully" in openssl(*verify)
    signature.write_bytes(bytes(64))
    with pytest.raises(subprocess.CalledProcessError):
        openssl(*verify)


def test_a_signature_of_other_content_or_another_file_is_refused(file, pair):
    private, public = pair
    data = file.read_bytes()
    for content in (sha256(data).digest(), data, b"heinfer bundle signature 2\0" + sha256(data).digest()):
        raw = serialization.load_pem_private_key(private.read_bytes(), None).sign(content)
        signature_path(file).write_bytes(base64.b64encode(raw))
        with pytest.raises(UntrustedBundleError, match="is not signed by"):
            signer_of(file, data, [public])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10**6), bit=st.integers(0, 7), of_signature=st.booleans())
def test_any_bit_that_changes_is_noticed(file, pair, position, bit, of_signature):
    data = file.read_bytes()
    raw = base64.b64decode(signed(data, pair[0], lambda: ""))
    changed = bytearray(raw if of_signature else data)
    changed[position % len(changed)] ^= 1 << bit
    signature_path(file).write_bytes(base64.b64encode(bytes(changed) if of_signature else raw))
    with pytest.raises(UntrustedBundleError):
        signer_of(file, data if of_signature else bytes(changed), [pair[1]])


@pytest.mark.parametrize("content", [b"", b"\n", b"no base64!", b"AAAA", base64.b64encode(bytes(65)), bytes(10**5)])
def test_a_file_that_is_no_signature_is_refused(file, pair, content):
    signature_path(file).write_bytes(content)
    with pytest.raises(UntrustedBundleError):
        signer_of(file, file.read_bytes(), [pair[1]])


def test_nobody_signs_what_is_no_bundle(tmp_path, pair):
    broken = tmp_path / "broken.heinfer"
    broken.write_bytes(b"heinferB\x03\0 and so on")
    assert heinfer("sign", broken, "--key", pair[0]) == (2, f"error bad-bundle: {broken}: the bundle is damaged\n")
    assert not signature_path(broken).exists()


# Keys ------------------------------------------------------------------------------------------


def test_a_key_with_a_passphrase_signs(file, tmp_path, monkeypatch):
    private, public = key_pair(tmp_path, "protected", "-aes256", "-pass", "pass:open sesame")
    code, told = heinfer("sign", file, "--key", private)
    assert code == 2
    assert "run this at a terminal, or set HEINFER_SIGNING_PASSPHRASE" in flat(told)
    monkeypatch.setenv("HEINFER_SIGNING_PASSPHRASE", "wrong")
    assert "does not open with this passphrase" in flat(heinfer("sign", file, "--key", private)[1])
    monkeypatch.setenv("HEINFER_SIGNING_PASSPHRASE", "open sesame")
    assert heinfer("sign", file, "--key", private)[0] == 0
    assert heinfer("verify", file, "--trust", public)[0] == 0


def test_wrong_keys_are_refused_by_name(file, tmp_path, pair):
    private, public = pair
    curve, curve_public = tmp_path / "curve.pem", tmp_path / "curve.pub.pem"
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", curve)
    curve.chmod(0o600)
    openssl("pkey", "-in", curve, "-pubout", "-out", curve_public)
    nothing = tmp_path / "nothing.pem"
    nothing.write_bytes(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    nothing.chmod(0o600)
    for key in (curve, nothing, public):
        with pytest.raises(SettingError, match=f"{key.name} is no private Ed25519 key.*openssl genpkey"):
            signed(b"", key, lambda: "")
    for key in (curve_public, nothing):
        with pytest.raises(SettingError, match=f"{key.name} is no public Ed25519 key.*openssl pkey"):
            public_key(key)
    with pytest.raises(SettingError, match="is a private key, which only who signs may have"):
        public_key(private)
    with pytest.raises(SettingError, match="cannot be read"):
        public_key(tmp_path / "none")
    private.chmod(0o640)
    with pytest.raises(SettingError, match="others may read: chmod 600"):
        signed(b"", private, lambda: "")
    private.chmod(0o600)


def test_without_the_library_the_extra_is_named(file, pair):
    script = "import sys; sys.modules['cryptography'] = None; from heinfer_cli import main; main()"
    for verb, option in (("sign", "--key"), ("verify", "--trust")):
        command = [sys.executable, "-c", script, verb, str(file), option, str(pair[verb == "verify"])]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 2
        assert "heinfer[signing]" in result.stderr


# The service -----------------------------------------------------------------------------------


def test_only_what_a_trusted_key_signed_is_opened(file, pair, other, monkeypatch):
    private, public = pair
    with monkeypatch.context() as patch:
        patch.setattr(bundles, "from_bytes", lambda data: pytest.fail("it was parsed"))
        with pytest.raises(UntrustedBundleError, match=r"tiny\.heinfer is not signed.*heinfer sign"):
            load_models([file], [public])
        assert heinfer("verify", file, "--trust", public)[0] == 2
        signature_path(file).write_bytes(signed(file.read_bytes(), other[0], lambda: ""))
        with pytest.raises(UntrustedBundleError, match=r"tiny\.heinfer is not signed by .*ours\.pub\.pem"):
            load_models([file], [public])
    signature_path(file).write_bytes(signed(file.read_bytes(), private, lambda: ""))
    (model,) = load_models([file], [other[1], public])
    assert model.file_digest == sha256(file.read_bytes()).hexdigest()


def test_what_is_verified_is_what_is_opened(file, pair, monkeypatch):
    """A file that is exchanged after it was read changes nothing: it is read once."""
    good = file.read_bytes()
    signature_path(file).write_bytes(signed(good, pair[0], lambda: ""))
    first = bundles.read

    def exchanged(path):
        data = first(path)
        bundles.save(tiny_bundle("another"), path)
        return data

    monkeypatch.setattr(bundles, "read", exchanged)
    (model,) = load_models([file], [pair[1]])
    assert (model.name, model.file_digest) == ("tiny", sha256(good).hexdigest())


def test_a_service_that_trusts_a_key_does_not_start_with_anything_else(file, pair):
    _, public = pair
    command = [sys.executable, "-m", "heinfer", "serve", str(file), "--no-auth", "--port", "0", "--trust", str(public)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert "error untrusted-bundle" in result.stderr
    assert "heinfer sign" in result.stderr
    variables = {"TRUST": str(public), "BUNDLES": str(file), "NO_AUTH": "1"}
    environment = os.environ | {f"HEINFER_SERVER_{name}": value for name, value in variables.items()}
    command = [sys.executable, "-m", "heinfer_server"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode
    assert "is not signed" in result.stderr


def test_trust_in_nothing_is_refused(file, monkeypatch):
    monkeypatch.setenv("HEINFER_SERVER_TRUST", "")
    with pytest.raises(ValueError, match="names no file of a public key: name one, or unset it"):
        Settings(bundles=(file,), no_auth=True)
    monkeypatch.delenv("HEINFER_SERVER_TRUST")
    with pytest.raises(ValueError, match="names no file: name bundles"):
        Settings(bundles="", no_auth=True)


def test_the_list_of_models_has_the_digests_of_the_files(tmp_path):
    with running_service(tmp_path, [tiny_bundle(), tiny_bundle("other")]) as running:
        models = running.http.get("/models").json()["models"]
        digests = {name: sha256((tmp_path / f"{name}.heinfer").read_bytes()).hexdigest() for name in ("tiny", "other")}
        assert {model["name"]: model["bundle"] for model in models} == digests

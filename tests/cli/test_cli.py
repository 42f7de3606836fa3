"""The command line as a user meets it, but for what takes long."""

import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from command_line import run
from PIL import Image
from small_model import small_model
from tiny_model import tiny_bundle
from typer.testing import CliRunner

import heinfer_client
from heinfer import __version__, zoo
from heinfer.baselines.names import Policy
from heinfer.costs.tables import OPERATIONS, CostTable, cost_table, load_costs, save_costs
from heinfer.errors import ServiceUnavailableError, SettingError, UnknownModelError
from heinfer.extras import needs
from heinfer.formats import bundle as bundles
from heinfer.measurement import measure
from heinfer.planner.requirements import NO_LIMITS, Limits, Objective, Requirements
from heinfer.zoo import checkpoint, reference
from heinfer_cli import comparison
from heinfer_cli.local_server import local_server
from heinfer_cli.main import app
from heinfer_cli.options import parse_bytes

VERBS = ("train", "compile", "plan", "calibrate", "serve", "predict", "keys", "demo")


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.heinfer"
    bundles.save(tiny_bundle(), path)
    return path


# Help and errors ---------------------------------------------------------------------------------


def test_the_version_is_told():
    code, out, err = run("--version")
    assert (code, out, err) == (0, f"heinfer {__version__}\n", "")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb):
    code, out, _ = run(verb, "--help")
    assert code == 0
    assert f"heinfer {verb}" in out or "Usage" in out
    assert "--started" not in out  # that one is make's


def test_the_bare_command_lists_the_verbs():
    _, out, err = run()
    assert all(verb in out + err for verb in VERBS)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["plan", "no-such-model"], "bad-setting", "there are"),
        (["plan", "missing.heinfer"], "bad-bundle", "missing.heinfer cannot be read"),
        (
            ["plan", "no-such-network", "--policy", "lola"],
            "bad-setting",
            "choose one of mnist-plain,",
        ),
        (["plan", __file__], "bad-bundle", "no bundle of heinfer"),
        (["train", "lenet"], "bad-setting", "choose one of mnist-plain, mnist-ffconv"),
        (["plan", "mnist-ffconv", "--costs", "missing.json"], "bad-format", "missing.json cannot be read"),
        (["compile", "mnist-plain", "--out", "x"], "data-missing", "train the network first"),
        (["compile", "missing.safetensors", "--out", "x"], "data-missing", "no file that `heinfer train` of this"),
        (["compile", __file__, "--out", "x"], "data-missing", "compiled in Python, by heinfer.compile(): docs/your-"),
        (["compile", "x", "--out", "x", "--batch", "3"], "bad-setting", "a power of two of images, not 3"),
        (["compile", "x", "--out", "x", "--objective", "beauty"], "bad-setting", "choose one of time, "),
        (["compile", "x", "--out", "x", "--max-key-bytes", "20TB"], "bad-setting", "write it like 300000, 300kB"),
        (["calibrate", "--backend", "abacus"], "bad-setting", "there are native, tenseal"),
        (["calibrate", "--ring-degree", "4096", "--ring-degree", "5000"], "bad-setting", "use one of 4096, 8192,"),
        (["calibrate", "--out", "missing/costs.json"], "bad-setting", "there is no folder missing"),
        (["serve", "missing.heinfer", "--no-auth"], "bad-setting", "there is no bundle missing.heinfer"),
        (["serve", "missing.heinfer"], "bad-setting", "heinfer tenant add"),
        (["predict", "http://127.0.0.1:1", "missing.png"], "bad-image", "missing.png cannot be read"),
        (["predict", "http://127.0.0.1:1", __file__], "bad-image", "give a PNG file"),
    ],
)
def test_an_error_is_one_line_with_code_and_way_out(arguments, code, words, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    status, _, err = run(*arguments)
    assert status == 2
    (line,) = err.strip().splitlines()
    assert line.startswith(f"error {code}: ")
    assert words in line


def test_an_error_of_the_service_has_the_services_own_code(tiny, tmp_path, monkeypatch):
    np.save(tmp_path / "image.npy", np.zeros((4, 4)))

    def refuse(*_, **__):
        raise UnknownModelError("no such model", status=404, code="from-the-server")

    monkeypatch.setattr(heinfer_client, "Client", refuse)
    assert run("predict", "http://127.0.0.1:1", str(tmp_path / "image.npy"))[2].startswith("error from-the-server: ")


@pytest.mark.parametrize("file", ["cut.png", "cut.npy", "absurd.npy"])
def test_a_damaged_image_is_named_before_anything_is_sent(file, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "cut.png")
    np.save(tmp_path / "cut.npy", image)
    for name in ("cut.png", "cut.npy"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:1000])
    (tmp_path / "absurd.npy").write_bytes(np.lib.format.magic(1, 0) + b"\x10\x00" + b"{" * 16)
    status, _, err = run("predict", "http://127.0.0.1:1", str(tmp_path / file))
    assert status == 2
    assert err.startswith("error bad-image: ")
    assert f"{file} cannot be read: give a PNG file" in err


def test_no_service_where_the_client_is_sent(tmp_path):
    Image.new("L", (28, 28)).save(tmp_path / "black.png")
    status, _, err = run("predict", "http://127.0.0.1:1", str(tmp_path / "black.png"))
    assert status == 2
    assert "is the service running there?" in err


def test_a_wrong_setting_of_the_service_is_named(tiny):
    status, _, err = run("serve", str(tiny), "--port", "70000")
    assert status == 2
    assert err.startswith("error bad-setting: HEINFER_SERVER_PORT: ")


def test_debug_shows_where_an_error_came_up():
    result = CliRunner().invoke(app, ["--debug", "plan", "no-such-model"])
    assert type(result.exception).__name__ == "SettingError"


def test_a_missing_package_is_named_with_the_extra_that_has_it():
    with (
        pytest.raises(SettingError, match=r"^httpx is not installed: pip install 'heinfer\[client\]'$"),
        needs("client"),
    ):
        raise ModuleNotFoundError(name="httpx")


def test_a_missing_module_of_ours_is_a_defect():
    with pytest.raises(ModuleNotFoundError), needs("client"):
        raise ModuleNotFoundError(name="heinfer_client.client")


# Verbs -------------------------------------------------------------------------------------------


def test_plan_reports_every_layer_and_the_whole():
    status, out, _ = run("plan", "mnist-ffconv")
    assert status == 0
    for word in ("conv1", "act1", "conv2", "act2", "fc", "rotations", "N = 8192", "evaluation keys", "up,", "MB"):
        assert word in out


def test_plan_predicts_with_the_costs_it_is_given(tmp_path):
    shipped = cost_table(8192)
    costs = tmp_path / "costs.json"
    ten = {name: tuple(10 * time for time in times) for name, times in shipped.milliseconds.items()}
    save_costs([CostTable("tenseal", 8192, ten, "a slow machine", "today")], costs)
    times = [
        float(re.search(r"an image +(\d+) ms", run("plan", "mnist-ffconv", *options)[1])[1])
        for options in (["--backend", "tenseal"], ["--costs", str(costs)])
    ]
    assert times[1] == pytest.approx(10 * times[0], abs=6)


@pytest.mark.parametrize(("policy", "words"), [("lola", ["402", "400 rotations", "8192"]), ("heinfer", ["N = "])])
def test_plan_under_a_policy_counts_a_reference_network(policy, words):
    status, out, _ = run("plan", "lola-mnist", "--policy", policy)
    assert status == 0
    for word in ("lola-mnist with random weights", "policy", policy, "one thread, predicted", *words):
        assert word in out


def test_plan_under_a_policy_says_what_it_sampled(tmp_path):
    status, out, _ = run("plan", "lenet5-mnist", "--policy", "ffconv")
    assert status == 0
    assert re.search(r"sampled +pool1\+conv2: 1024 of 1600 ciphertexts", out)


@pytest.fixture
def required(monkeypatch):
    """What the compiler is asked for; it compiles a small network instead of a trained one."""
    requirements = []

    def compile_small(_name, _checkpoint, _data_dir, asked, planner):
        requirements.append(asked)
        return small_model(asked, planner)

    monkeypatch.setattr(checkpoint, "read_metadata", lambda _path: SimpleNamespace(name="small"))
    monkeypatch.setattr(reference, "compile_reference", compile_small)
    monkeypatch.setattr(reference, "requirements_for", lambda _name: reference.REQUIREMENTS)
    return requirements


def test_compile_requires_what_the_reference_networks_ship_with(required, tmp_path):
    status, shown, _ = run("compile", "small", "--out", str(tmp_path / "small.heinfer"))
    assert status == 0
    assert required == [reference.REQUIREMENTS]
    assert re.search(r"compiled in \d+\.\d s, peak memory \d+ MiB, \d+ predicted$", shown.strip())


def test_compile_passes_every_requirement_on(required, tmp_path):
    out, costs = tmp_path / "small.heinfer", tmp_path / "costs.json"
    save_costs([cost_table(8192)], costs)
    options = {
        "objective": "key-switches",
        "batch": "4",
        "max-key-bytes": "22.5MB",
        "max-upload-bytes": "1 gb",
        "max-memory-bytes": "300000000",
        "key-price": "2.5",
        "policy": "heinfer-unfactorized",
        "costs": str(costs),
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    status, shown, _ = run("compile", "small", "--out", str(out), *words)
    assert status == 0
    assert required == [Requirements(Objective.KEY_SWITCHES, Limits(22.5e6, 1e9, 3e8), 4, 2.5, costs=costs)]
    assert bundles.load(out).metadata["policy"] == Policy.UNFACTORIZED
    assert re.search(r"an image of them +\d+\.\d ms", shown)
    assert "small: 4 images together" in run("plan", str(out))[1]


def test_an_upload_may_grow_with_the_batch(required, tmp_path):
    run("compile", "small", "--out", str(tmp_path / "small.heinfer"), "--batch", "8")
    assert required[0].limits == Limits(upload_bytes=8 * reference.REQUIREMENTS.limits.upload_bytes)


def test_a_published_method_uploads_what_it_must(required, tmp_path):
    status, shown, _ = run("compile", "small", "--out", str(tmp_path / "small.heinfer"), "--policy", "lola")
    assert (status, required[0].limits) == (0, NO_LIMITS)
    assert re.search(r"policy +lola", shown)


def test_a_limit_that_no_plan_keeps_is_named(required, tmp_path):
    status, _, err = run("compile", "small", "--out", str(tmp_path / "x.heinfer"), "--max-upload-bytes", "1kB")
    assert status == 2
    assert "limit upload_bytes = 1000" in err


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("300000", 3e5), ("300kB", 3e5), ("300 KB", 3e5), (" 1.5mb ", 1.5e6), ("2GB", 2e9)],
)
def test_sizes_are_numbers_with_or_without_a_suffix(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "kB", "-1", "1e6", "inf", "1 k", "1MiB", "1B", "1,5MB", "١"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(SettingError, match="write it like"):
        parse_bytes(text)


def test_calibrate_shows_and_writes_a_table_that_can_be_planned_with(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "SWEEPS", 1)
    out = tmp_path / "costs.json"
    status, shown, _ = run("calibrate", "--ring-degree", "4096", "--out", str(out))
    assert status == 0
    (table,) = load_costs(out)
    assert (table.backend, table.ring_degree, table.levels) == ("tenseal", 4096, 2)
    for word in ("N = 4096", "level", *OPERATIONS, table.date, "written to"):
        assert word in shown
    written = table("rotation", 1)  # rounded to four places, what is shown to three: 0.71249 is 0.712, 0.7125 is not
    assert any(f"{written + rest:.3f}" in shown for rest in (-5e-5, 0, 5e-5))
    assert cost_table(4096, path=out) == table


def test_predict_prints_a_label_for_each_image(tiny, tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "a.npy", rng.random((4, 4)))
    Image.fromarray(rng.integers(0, 256, (4, 4), dtype=np.uint8)).save(tmp_path / "b.png")
    keys = tmp_path / "secret.key"
    with local_server(tiny) as url:
        names = [str(tmp_path / name) for name in ("a.npy", "b.png")]
        status, out, _ = run("predict", url, *names, "--model", "tiny", "--keys", str(keys))
    assert status == 0
    assert re.search(r"a\.npy\W+[abcd]\W", out)
    assert re.search(r"b\.png\W+[abcd]\W", out)
    assert keys.stat().st_mode & 0o777 == 0o600


def test_predict_reads_pictures_as_their_files_have_them(tiny, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    np.save(tmp_path / "upright.npy", np.rot90(pixels, -1))
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", quality=100, exif=exif)
    Image.fromarray(pixels.astype(np.uint16) * 257).save(tmp_path / "turned.tiff", exif=exif)
    Image.fromarray(pixels).convert("RGBA").save(tmp_path / "turned.png", exif=exif)
    names = ["upright.npy", "turned.jpg", "turned.tiff", "turned.png"]
    with local_server(tiny) as url:
        status, out, _ = run("predict", url, *(str(tmp_path / name) for name in names), "--model", "tiny")
    assert status == 0
    assert len({re.search(rf"{re.escape(name)}\W+([abcd])\W", out)[1] for name in names}) == 1


def test_predict_says_what_to_do_in_a_shell(tiny, tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "fits.png")
    Image.new("RGBA", (5, 4), (255, 0, 0, 128)).save(tmp_path / "a digit.png")
    np.save(tmp_path / "deep.npy", np.full((4, 4), 4095, np.uint16))
    with local_server(tiny) as url:

        def predict(*arguments):
            files = [str(tmp_path / argument) if "." in argument else argument for argument in arguments]
            return run("predict", url, *files, "--model", "tiny")

        _, _, err = predict("fits.png", "a digit.png")
        assert f"error bad-image: {tmp_path}/a digit.png: an image of shape (1, 4, 4) or (4, 4) is expected" in err
        assert (
            f"magick '{tmp_path}/a digit.png' -auto-orient -background black -alpha remove -resize 4x4! "
            "-colorspace Gray fitting.png makes one that does, black being what is behind it"
        ) in err
        assert "image." not in err
        _, _, err = predict("deep.npy")
        assert "deep.npy: pixels of dtype uint8 (0..255) or float (0..1) are expected, got uint16" in err
        assert "say which number is white, such as --maximum 65535" in err
        assert predict("deep.npy", "--maximum", "4095")[0] == 0


def test_predict_sends_images_in_batches_to_a_model_that_takes_them(tmp_path):
    names = [str(tmp_path / f"{number}.npy") for number in range(3)]
    for seed, name in enumerate(names):
        np.save(name, np.random.default_rng(seed).random((4, 4)))
    path = tmp_path / "four.heinfer"
    bundles.save(tiny_bundle("four", batch=4), path)
    with local_server(path) as url:
        status, out, _ = run("predict", url, *names, "--model", "four")
    assert status == 0
    assert all(re.search(rf"{number}\.npy\W+[abcd]\W", out) for number in range(3))
    assert "4 images a request" in out


def test_predict_loads_neither_torch_nor_a_web_framework():
    script = "from heinfer_cli.main import app; app(['predict', 'http://127.0.0.1:1', 'x.png'], standalone_mode=False)"
    script = f"import sys\ntry:\n    {script}\nfinally:\n    print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    modules = done.stdout.split()
    assert "heinfer_client" in modules
    forbidden = {"torch", "fastapi", "heinfer_server", "heinfer.compiler.compile", "heinfer.planner.search.search"}
    assert not forbidden & set(modules)


# The demo ------------------------------------------------------------------------------------------


def test_the_local_server_is_gone_afterwards_whatever_happens(tiny):
    urls = []

    def fail():
        with local_server(tiny) as url:
            assert httpx.get(f"{url}/healthz").status_code == 200
            urls.append(url)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{urls[0]}/healthz")


def test_a_local_server_that_does_not_start_says_why(tmp_path):
    with pytest.raises(ServiceUnavailableError, match="there is no bundle"), local_server(tmp_path / "no.heinfer"):
        pass


@pytest.fixture
def two_digits(monkeypatch):
    shipped = zoo.digits()
    chosen = zoo.DemoDigits(shipped.images[[0, 19]], shipped.labels[[0, 19]], shipped.indices[[0, 19]])
    monkeypatch.setattr(zoo, "digits", lambda: chosen)


SUMMARY = r"demo: (\d+)/2 match the cleartext model, (\d+)/2 correct, server \d+\.\d\d s per image, (-?\d+\.\d) bits"


def test_the_demo_ends_with_its_summary(two_digits):
    before = signal.getsignal(signal.SIGTERM)
    status, out, _ = run("demo")
    assert status == 0
    found = re.fullmatch(SUMMARY, out.splitlines()[-1])
    assert found
    assert found[1] == "2"
    assert float(found[3]) >= 8
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_demo_fails_when_an_encrypted_prediction_differs(two_digits, monkeypatch):
    real = comparison.cleartext_scores
    monkeypatch.setattr(comparison, "cleartext_scores", lambda *arguments: -real(*arguments))
    status, out, _ = run("demo")
    assert status == 1
    found = re.fullmatch(SUMMARY, out.splitlines()[-1])
    assert found
    assert found[1] == "0"


def test_precision_is_in_bits():
    assert comparison.precision_bits(np.array([1.0, 2.0]), np.array([1.0, 2.0])) == np.inf
    assert comparison.precision_bits(np.array([1.0, 4.25]), np.array([1.0, 4.0])) == 4

"""Records, signals, pictures that come back, several inputs and outputs: encrypted, by a service that runs beside."""

import asyncio
import copy
import csv
import json
import stat
import warnings
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command_line import run
from PIL import Image
from server_process import server_process

from heinfer.compiler.compile import compile_network
from heinfer.compiler.model import CompiledModel
from heinfer.errors import ImageError, MissingScoresError, OutOfRangeWarning, SettingError, UntrustedManifestError
from heinfer.formats.manifest import Preprocessing
from heinfer.network.ir import Network, Node
from heinfer.network.operators import Convolution, Dense, Polynomial
from heinfer.planner.requirements import Requirements
from heinfer_client import AsyncClient, Client, Confidence
from heinfer_client.trust import trusted_manifest
from heinfer_client.values import values_of

pytestmark = pytest.mark.filterwarnings("ignore::heinfer.errors.NoiseWarning")
"""What is tested is not how precise these small networks are."""

RNG = np.random.default_rng(0)

FEATURES = ("age", "systolic blood pressure", "glucose [mmol/l]", *(f"marker {number}" for number in range(27)))
MEAN = RNG.uniform(1, 100, 30)
STD = MEAN / RNG.uniform(2, 20, 30)
RECORD = Preprocessing(
    divisor=1.0,
    mean=tuple(MEAN),
    std=tuple(STD),
    low=tuple(-MEAN / STD),  # nothing is below zero in physical units
    high=6.0,
    kind="values",
    features=FEATURES,
)
SIGNAL = Preprocessing(divisor=1e-3, mean=(0.0,), std=(1.0,), low=-5.0, high=5.0, kind="values")  # volts to millivolts
PIXELS = Preprocessing(divisor=255, mean=(0.5,), std=(0.5,), low=-1.0, high=1.0)
VITALS = Preprocessing(
    divisor=1.0,
    mean=(60.0, 25.0, 0.0),
    std=(20.0, 5.0, 1.0),
    low=(-3.0, -3.0, 0.0),
    high=(3.0, 5.0, 1.0),
    kind="values",
    features=("age", "bmi", "smoker"),
)


def dense(outputs: int, inputs: int, name: str = "dense") -> Node:
    return Node(name, Dense(RNG.normal(size=(outputs, inputs)) / np.sqrt(inputs), RNG.normal(size=outputs) / 4))


def act(channels: int) -> Node:
    return Node("act", Polynomial(np.full(channels, 0.2), np.full(channels, 0.5), np.full(channels, 0.1)))


def records(count: int) -> np.ndarray:
    """In physical units."""
    return np.maximum(MEAN + STD * np.clip(RNG.normal(size=(count, 30)), -5, 5), 0)


def normalised(values: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    return (values / preprocessing.divisor - np.array(preprocessing.mean)) / np.array(preprocessing.std)


def risk() -> CompiledModel:
    network = Network((30,), (dense(8, 30, "first"), act(8), dense(2, 8, "last")))
    calibration = normalised(records(200), RECORD)
    return compile_network(network, calibration, name="risk", preprocessing=RECORD, labels=("low", "high"))


def ecg() -> CompiledModel:
    network = Network((1, 187), (dense(8, 187, "first"), act(8), dense(3, 8, "last")))
    calibration = RNG.uniform(-1, 3, (100, 1, 187))
    return compile_network(network, calibration, name="ecg", preprocessing=SIGNAL, labels=("sinus", "af", "other"))


def denoiser() -> CompiledModel:
    blur = Convolution(RNG.uniform(0, 0.2, (1, 1, 3, 3)), np.zeros(1), (1, 1), (1, 1))
    network = Network((1, 8, 8), (Node("blur", blur),))
    return compile_network(
        network,
        RNG.uniform(-1, 1, (100, 1, 8, 8)),
        name="denoiser",
        preprocessing=PIXELS,
        outputs={"picture": (1, 8, 8)},
    )


def both(batch: int = 1) -> CompiledModel:
    """A picture and three vitals in, a class, the square of a class and a map of 2 x 2 out."""
    network = Network((64 + 3,), (dense(8, 67, "first"), act(8), dense(3 + 2 + 4, 8, "heads")))
    vitals = np.array(VITALS.low) + RNG.random((100, 3)) * (np.array(VITALS.high) - VITALS.low)
    return compile_network(
        network,
        {"image": RNG.uniform(-1, 1, (100, 1, 8, 8)), "vitals": vitals},
        name=f"both-{batch}",
        preprocessing={"image": PIXELS, "vitals": VITALS},
        labels={"finding": ("none", "nodule", "mass"), "urgency": ("later", "now")},
        outputs={"finding": (3,), "urgency": (2,), "map": (2, 2)},
        requirements=Requirements(batch=batch),
    )


def heads() -> CompiledModel:
    """A class, and three values."""
    network = Network((30,), (dense(8, 30, "first"), act(8), dense(5, 8, "heads")))
    return compile_network(
        network,
        {"record": normalised(records(200), RECORD)},
        name="heads",
        preprocessing=RECORD,
        labels={"class": ("a", "b")},
        outputs={"class": (2,), "values": (3,)},
    )


def loud() -> CompiledModel:
    """Calibrated on values of one, declared for hundreds, of which it takes squares."""
    network = Network((3,), (dense(4, 3, "first"), act(4), dense(3, 4, "heads")))
    return compile_network(
        network,
        {"values": RNG.uniform(-1, 1, (100, 3))},
        name="loud",
        preprocessing=Preprocessing(divisor=1.0, mean=(0.0,), std=(1.0,), low=-200.0, high=200.0, kind="values"),
        labels={"class": ("a", "b")},
        outputs={"class": (2,), "value": (1,)},
    )


@pytest.fixture(scope="module")
def models() -> dict[str, CompiledModel]:
    found = [risk(), ecg(), denoiser(), both(), both(4), heads(), loud()]
    return {model.manifest.name: model for model in found}


@pytest.fixture(scope="module")
def url(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    with server_process(folder, [model.bundle for model in models.values()]) as server:
        yield server.url


@pytest.fixture(scope="module")
def clients(url):
    kept: dict[str, Client] = {}

    def client(model: str) -> Client:
        return kept.setdefault(model, Client(url, model=model, progress=False))

    yield client
    for each in kept.values():
        each.close()


def near(values: np.ndarray) -> Any:
    return pytest.approx(values, abs=1e-2 * max(1.0, float(np.abs(values).max())))


def pair(model: CompiledModel, given: dict[str, Any]) -> dict[str, np.ndarray]:
    """What a model of both inputs computes in cleartext."""
    x = {
        "image": (given["image"] / 255 - 0.5)[None, None] / 0.5,
        "vitals": normalised(np.array([given["vitals"][name] for name in VITALS.features or ()], float), VITALS)[None],
    }
    return {name: found[0] for name, found in model.outputs(x).items()}


def case(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (8, 8), dtype=np.uint8),
        "vitals": {"smoker": int(rng.integers(2)), "age": 40.5 + seed, "bmi": np.float32(27.5)},
    }


# Records and signals ---------------------------------------------------------------------------


def test_a_record_in_physical_units_goes_by_name_or_by_place(models, clients):
    (record,) = records(1)
    (expected,) = models["risk"](normalised(record, RECORD)[None])
    by_name = dict(zip(FEATURES, record.tolist(), strict=True))
    shuffled = dict(sorted(by_name.items()))
    for given in (record, by_name, shuffled, Row(by_name)):
        prediction = clients("risk").encrypt_and_predict(given)
        assert prediction.scores == near(expected)
        assert prediction.label == ("low", "high")[int(expected.argmax())]
        assert prediction.labels == {"scores": prediction.label}


class Row:
    """What a pandas Series is to the client: names, and what is under each."""

    def __init__(self, values: dict[str, float]) -> None:
        self._values = values

    def keys(self):
        return self._values.keys()

    def __getitem__(self, name):
        return self._values[name]


class Twice(Row):
    def keys(self):
        return [*self._values, "age"]


def valid() -> dict[str, Any]:
    return dict(zip(FEATURES, records(1)[0].tolist(), strict=True))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (lambda: valid() | {"age": float("nan")}, "got NaN or infinity in 'age': fill in"),
        (lambda: valid() | {"age": None}, "'age' is missing: its value is None"),
        (lambda: valid() | {"age": "61"}, "'age' must be a number, got str: give it as it was coded"),
        (lambda: valid() | {"age": True}, "'age' must be a number, got bool"),
        (lambda: valid() | {"age": -1.0}, r"'age' between 0 and [0-9.]+ is expected"),
        (lambda: valid() | {"age": 10**400}, "NaN or infinity in 'age'"),
        (lambda: {k: v for k, v in valid().items() if k != "age"}, "'age' missing"),
        (lambda: {k.replace("age", "Age"): v for k, v in valid().items()}, "'age' missing.*did you mean 'age'"),
        (lambda: valid() | {"weight": 1.0}, "'weight' unknown to the model"),
        (lambda: Twice(valid()), "'age' given twice"),
        (lambda: np.array([*list(valid().values())[:29], np.inf]), "in 'marker 26'"),
        (lambda: np.array(list(valid().values()))[:29], r"shape \(30,\) \('age', .* and 22 more\) are expected"),
        (lambda: records(2), "encrypt_and_predict_many takes several"),
        (lambda: [1.0] * 30, "a NumPy array, or a mapping of features, is expected, got list"),
        (lambda: np.array(["1"] * 30), "of an integer or float dtype are expected"),
    ],
)
def test_a_record_that_does_not_fit_is_refused_in_words_and_nothing_is_sent(clients, given, reason):
    with pytest.raises(ImageError, match=reason):
        clients("risk").encrypt_and_predict(given())


def test_what_is_refused_is_not_repeated(clients):
    with pytest.raises(ImageError) as caught:
        clients("risk").encrypt_and_predict(valid() | {"age": 98765.4321})
    assert "98765" not in str(caught.value)


def test_a_signal_is_taken_with_and_without_its_channel(models, clients):
    volts = RNG.uniform(-1e-3, 3e-3, 187)
    (expected,) = models["ecg"](volts[None, None] / 1e-3)
    for given in (volts, volts[None], volts.astype(np.float32)):
        prediction = clients("ecg").encrypt_and_predict(given)
        assert prediction.scores == near(expected)
        assert prediction.label in {"sinus", "af", "other"}
    with pytest.raises(ImageError, match=r"\(1, 187\) or \(187,\) are expected, got \(187, 1\): use values.T"):
        clients("ecg").encrypt_and_predict(volts[:, None])
    with pytest.raises(ImageError, match="this model does not name its features"):
        clients("ecg").encrypt_and_predict({"lead I": volts, "lead II": volts})
    assert clients("ecg").encrypt_and_predict({"values": volts}).scores == near(expected)


# Outputs ---------------------------------------------------------------------------------------


def test_a_picture_comes_back_in_its_shape_and_has_no_label(models, clients):
    noisy = RNG.random((8, 8))
    (expected,) = models["denoiser"]((noisy[None, None] - 0.5) / 0.5)
    prediction = clients("denoiser").encrypt_and_predict(noisy)
    assert prediction.outputs["picture"].shape == prediction.scores.shape == (1, 8, 8)
    assert prediction.scores == near(expected)
    assert (prediction.label, prediction.labels, prediction.confidences) == (None, {}, {})
    assert prediction.confidence is Confidence.NONE
    assert prediction.in_range


def test_two_heads_come_by_name_each_with_what_it_is(models, clients):
    several = records(3)
    expected = models["heads"].outputs(normalised(several, RECORD))
    found = clients("heads").encrypt_and_predict_many(list(several))
    for number, prediction in enumerate(found):
        assert set(prediction.outputs) == {"class", "values"}
        for name, values in prediction.outputs.items():
            assert values == near(expected[name][number])
        assert prediction.label == "ab"[int(expected["class"][number].argmax())]
        assert prediction.labels == {"class": prediction.label}
        assert prediction.confidences == {"class": prediction.confidence}
        with pytest.raises(MissingScoresError, match="several outputs, 'class', 'values'"):
            _ = prediction.scores
        with pytest.raises(MissingScoresError, match="a copy"):
            _ = copy.copy(prediction).outputs
        assert not any(f"{value:.4f}" in repr(prediction) for value in prediction.outputs["values"])


# Several inputs --------------------------------------------------------------------------------


def assert_right(model: CompiledModel, given: dict[str, Any], prediction: Any) -> None:
    expected = pair(model, given)
    assert {name: values.shape for name, values in prediction.outputs.items()} == {
        "finding": (3,),
        "urgency": (2,),
        "map": (2, 2),
    }
    for name, values in prediction.outputs.items():
        assert values == near(expected[name])
    assert prediction.labels == {
        "finding": ("none", "nodule", "mass")[int(expected["finding"].argmax())],
        "urgency": ("later", "now")[int(expected["urgency"].argmax())],
    }
    assert prediction.label is None  # which of the two, nobody said


def test_a_picture_and_a_record_go_in_one_request(models, clients):
    given = case()
    assert_right(models["both-1"], given, clients("both-1").encrypt_and_predict(given))
    turned = dict(reversed(given.items())) | {"image": Image.fromarray(given["image"])}
    assert_right(models["both-1"], given, clients("both-1").encrypt_and_predict(turned))


def test_a_batch_of_them_goes_in_one_request(models, clients):
    several = [case(seed) for seed in range(5)]
    found = clients("both-4").encrypt_and_predict_many(several)
    assert [prediction.images for prediction in found] == [4, 4, 4, 4, 1]
    for given, prediction in zip(several, found, strict=True):
        assert_right(models["both-4"], given, prediction)


def test_the_asynchronous_client_takes_them_as_they_are_when_it_is_called(models, url):
    async def ask() -> Any:
        async with AsyncClient(url, model="both-1", progress=False) as client:
            changed = case()
            asked = client.encrypt_and_predict(changed)
            changed["image"][:] = 0
            changed["vitals"]["age"] = 90
            return await asked

    assert_right(models["both-1"], case(), asyncio.run(ask()))


def test_a_maximum_is_of_the_pictures(models, clients):
    given = case()
    wide = given | {"image": given["image"].astype(np.uint16) * 257}
    with pytest.raises(ImageError, match=r"^image: pixels of dtype uint8"):
        clients("both-1").encrypt_and_predict(wide)
    assert_right(models["both-1"], given, clients("both-1").encrypt_and_predict(wide, maximum=65535))
    with pytest.raises(SettingError, match="this model takes values"):
        clients("risk").encrypt_and_predict(valid(), maximum=255)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (lambda: case()["image"], "a mapping of the model's inputs 'image', 'vitals' is expected, got ndarray"),
        (lambda: {"image": case()["image"]}, "'image', 'vitals' are expected, 'vitals' missing"),
        (lambda: case() | {"age": 3}, "'age' unknown to the model"),
        (lambda: case() | {"vitals": {"age": 3.0}}, "^vitals: the 3 features .* 'bmi', 'smoker' missing"),
        (lambda: case() | {"vitals": np.array([60.0, 25.0, 7.0])}, "^vitals: 'smoker' between 0 and 1 is expected"),
        (lambda: case() | {"vitals": None}, "^vitals: a NumPy array, or a mapping of features, is expected, got None"),
        (lambda: case() | {"image": {"age": 3.0}}, "^image: a NumPy array or a PIL image is expected, got names"),
        (lambda: case() | {"image": np.zeros((9, 8))}, "^image: an image of shape"),
    ],
)
def test_inputs_that_do_not_go_together_are_refused_by_name(clients, given, reason):
    with pytest.raises(ImageError, match=reason):
        clients("both-1").encrypt_and_predict(given())
    with pytest.raises(ImageError, match=r"^image 2 of 2: .*" + reason.removeprefix("^")) as caught:
        clients("both-1").encrypt_and_predict_many([case(), given()])
    assert caught.value.number == 2


def test_an_answer_out_of_range_marks_all_outputs(clients):
    with pytest.warns(OutOfRangeWarning, match="beyond what the model's parameters can represent"):
        prediction = clients("loud").encrypt_and_predict(np.array([190.0, -199.0, 155.0]))
    assert not prediction.in_range
    assert prediction.confidences == {"class": Confidence.NONE}
    assert set(prediction.outputs) == {"class", "value"}
    with warnings.catch_warnings():
        warnings.simplefilter("error", OutOfRangeWarning)
        assert clients("loud").encrypt_and_predict(np.array([0.5, 0.1, -0.9])).in_range


# The command line ------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path) -> SimpleNamespace:
    given = case()
    Image.fromarray(given["image"]).save(tmp_path / "scan.png")
    with (tmp_path / "vitals.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(given["vitals"]))
        writer.writeheader()
        writer.writerow(given["vitals"])
    return SimpleNamespace(given=given, scan=tmp_path / "scan.png", vitals=tmp_path / "vitals.csv", folder=tmp_path)


def test_the_command_takes_inputs_by_name_and_writes_outputs(models, url, files):
    named = ("--input", f"image={files.scan}", "--input", f"vitals={files.vitals}")
    out = files.folder / "all.npz"
    code, said, wrong = run("predict", url, *named, "--model", "both-1", "--out", str(out))
    assert (code, wrong) == (0, "")
    expected = pair(models["both-1"], files.given)
    assert ("none", "nodule", "mass")[int(expected["finding"].argmax())] in said
    assert "finding" in said
    assert "urgency" in said
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    with np.load(out) as found:
        assert {name: found[name].shape for name in found} == {
            "finding": (1, 3),
            "urgency": (1, 2),
            "map": (1, 2, 2),
        }
        assert found["map"][0] == near(expected["map"])


def test_the_command_reads_tables_of_records(models, url, tmp_path):
    several = records(3)
    path = tmp_path / "patients.csv"
    order = RNG.permutation(30)
    lines = [[FEATURES[at] for at in order], *([repr(float(row[at])) for at in order] for row in several)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    code, said, wrong = run("predict", url, str(path), "--model", "risk", "--out", str(tmp_path / "risks.npz"))
    assert (code, wrong) == (0, "")
    assert "patients.csv:4" in said
    with np.load(tmp_path / "risks.npz") as found:
        assert found["scores"] == near(models["risk"](normalised(several, RECORD)))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("age,bmi\n61,27\n", "'smoker' missing"),
        ("age,bmi,smoker\n61,,1\n", "'bmi' is missing"),
        ("age,bmi,smoker\n61,nan,1\n", "NaN or infinity in 'bmi'"),
        ("age,bmi,smoker\n61,27,yes\n", "'smoker' must be a number, got str"),
        ("age,bmi,smoker\n61,27\n", "line 2 has 2 values, and there are 3 columns"),
        ("age,age,smoker\n61,27,1\n", "more than one column 'age'"),
        ("age,bmi,smoker\n", "has no row of values"),
        ("61,27,1\n62,27,1\n", "has 2 records"),
        ("age;bmi;smoker\n61;27,5;1\n", "separated by something else: save it with commas"),
        ("\x00\xff", "bad-image"),
    ],
)
def test_the_command_refuses_records_in_words(url, files, text, reason):
    files.vitals.write_text(text, encoding="latin-1")
    named = ("--input", f"image={files.scan}", "--input", f"vitals={files.vitals}")
    code, _, wrong = run("predict", url, *named, "--model", "both-1")
    assert code == 2
    assert reason in " ".join(wrong.split())


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "give files, or each input of the model as --input NAME=FILE"),
        (("--input", "image"), "write it as NAME=FILE"),
        (("--input", "a=x.npy", "--input", "a=x.npy"), "cannot be read"),
        (("x.png", "--input", "a=y.png"), "give files, or each input"),
        (("x.png", "--out", "scores.txt"), "must be the name of a file .npz"),
    ],
)
def test_the_command_says_how_inputs_are_given(arguments, reason):
    code, _, wrong = run("predict", "http://127.0.0.1:9", *arguments, "--model", "both-1")
    assert code == 2
    assert reason in " ".join(wrong.split())


def test_the_command_says_which_inputs_there_are(url, files):
    code, _, wrong = run("predict", url, str(files.scan), "--model", "both-1")
    assert code == 2
    assert "give --input image=FILE --input vitals=FILE" in " ".join(wrong.split())


# Manifests that lie ----------------------------------------------------------------------------


def test_a_client_believes_no_manifest_whose_parts_contradict_each_other(models):
    told = json.loads(models["both-1"].manifest.to_bytes())
    told["inputs"][1]["layout"] = told["inputs"][0]["layout"] | {"shape": [64]}
    told["inputs"][1]["preprocessing"] = told["inputs"][1]["preprocessing"] | {
        name: None if name == "features" else told["inputs"][1]["preprocessing"][name][:1]
        for name in ("mean", "std", "low", "high", "features")
    }
    with pytest.raises(UntrustedManifestError, match="two of the layouts name the same slot"):
        trusted_manifest(json.dumps(told).encode(), "both-1")


def test_thousands_of_features_are_compared_in_no_time_and_not_listed():
    names = tuple(f"feature {number}" for number in range(1 << 16))
    told = RECORD.model_copy(update={"features": names})
    began = perf_counter()
    with pytest.raises(ImageError, match=r"and 65528 more missing; .* and 992 more unknown") as caught:
        values_of({f"Feature {number}": 1.0 for number in range(1000)}, (1 << 16,), told)
    assert len(str(caught.value)) < 10_000
    assert perf_counter() - began < 5


def test_an_older_reader_is_told_to_upgrade(models):
    told = json.loads(models["both-1"].manifest.to_bytes())
    assert told["version"] == 4
    assert json.loads(models["denoiser"].manifest.to_bytes())["version"] == 3

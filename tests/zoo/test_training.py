"""Training on few images: that it learns, that it repeats itself, that it goes on after an interruption."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from heinfer.errors import DataError, SettingError
from heinfer.zoo import NETWORKS, digits
from heinfer.zoo import reference as reference_module
from heinfer.zoo import training as training_module
from heinfer.zoo.augment import Distortion, FlipAndShift
from heinfer.zoo.checkpoint import read_metadata
from heinfer.zoo.data import DATA_DIR_SETTING, MNIST, Images, Split, mnist, mnist_test, normalise
from heinfer.zoo.fitting import one_cycle
from heinfer.zoo.recipes import COLOUR_BRIEF, COLOUR_TUNED, FULL
from heinfer.zoo.reference import compile_reference
from heinfer.zoo.registry import reference
from heinfer.zoo.training import calibrate, evaluate, load, train

pytestmark = pytest.mark.slow

needs_mnist = pytest.mark.skipif(
    not os.environ.get(DATA_DIR_SETTING), reason=f"{DATA_DIR_SETTING} names no folder with MNIST"
)


@pytest.fixture
def shipped_digits_as_mnist(monkeypatch: pytest.MonkeyPatch) -> Images:
    """The twenty shipped digits, ten times over, are all there is to learn; the last twenty are held out."""
    shipped = digits()
    everything = Images(np.tile(shipped.images, (10, 1, 1)), np.tile(shipped.labels, 10))
    monkeypatch.setattr(training_module, "mnist", lambda _: Split(everything[:-20], everything[-20:]))
    monkeypatch.setattr(training_module, "mnist_test", lambda _: everything)
    return everything


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return load(path.stem, path).state_dict()


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def quick(name: str, out: Path, *, seed: int = 0, epochs: int = 2) -> Path:
    return train(name, seed=seed, epochs=epochs, out=out, threads=1, progress=False).path


@pytest.mark.parametrize(
    "name", [name for name in NETWORKS if reference(name).recipe and reference(name).data == MNIST]
)
def test_a_seed_gives_one_network_and_another_seed_another(name, tmp_path, shipped_digits_as_mnist):
    first, again, other = (quick(name, tmp_path / part, seed=s) for part, s in (("a", 0), ("b", 0), ("c", 1)))
    assert_same(tensors(first), tensors(again))
    last = next(reversed(tensors(first)))
    assert not torch.equal(tensors(first)[last], tensors(other)[last])


class InterruptionError(Exception):
    pass


@pytest.mark.parametrize("epochs_before", [1, 2])
def test_an_interrupted_training_goes_on_and_ends_the_same(
    epochs_before, tmp_path, monkeypatch, shipped_digits_as_mnist
):
    whole = quick("mnist-ffconv", tmp_path / "whole", epochs=3)
    bar = training_module.TrainingBar
    seen = []

    def interrupting(self, epoch, module):
        seen.append(epoch)
        if epoch == epochs_before and self._name == "mnist-ffconv":
            raise InterruptionError

    with monkeypatch.context() as patch:
        patch.setattr(bar, "on_epoch", interrupting)
        with pytest.raises(InterruptionError):
            quick("mnist-ffconv", tmp_path / "parts", epochs=3)
    assert (tmp_path / "parts" / "mnist-ffconv.partial").exists()

    seen.clear()
    monkeypatch.setattr(bar, "on_epoch", lambda self, epoch, module: seen.append(epoch))
    parts = quick("mnist-ffconv", tmp_path / "parts", epochs=3)
    assert seen == list(range(epochs_before, 4)), "neither the plain network nor the epochs done are repeated"
    assert_same(tensors(whole), tensors(parts))
    assert sorted(p.name for p in parts.parent.iterdir()) == ["mnist-ffconv.safetensors", "mnist-plain.safetensors"]


def test_an_interrupted_training_of_other_settings_is_not_taken_up(tmp_path, monkeypatch, shipped_digits_as_mnist):
    whole = quick("mnist-plain", tmp_path / "whole", seed=1)
    (tmp_path / "mnist-plain.partial").write_bytes(b"rubbish")
    with monkeypatch.context() as patch:
        patch.setattr(training_module.TrainingBar, "on_epoch", lambda *_: (_ for _ in ()).throw(InterruptionError))
        with pytest.raises(InterruptionError):
            quick("mnist-plain", tmp_path, seed=0)
    assert_same(tensors(quick("mnist-plain", tmp_path, seed=1)), tensors(whole))


def test_what_a_file_says_of_its_network(tmp_path, shipped_digits_as_mnist):
    data = shipped_digits_as_mnist
    result = train("mnist-ffconv", seed=3, epochs=2, out=tmp_path, threads=1, hold_out=True, progress=False)
    about = read_metadata(result.path)
    assert (about.name, about.seed, about.epochs, about.images) == ("mnist-ffconv", 3, 2, 180)
    assert (about.test_accuracy, about.held_out_accuracy) == (result.test_accuracy, result.held_out_accuracy)
    assert result.seconds == pytest.approx(sum(read_metadata(file).seconds for file in tmp_path.iterdir()))
    assert about.structure["conv2.spatial"].startswith("Conv2d(8, 4,")
    module = load("mnist-ffconv", result.path)
    assert not module.training
    assert evaluate(module, data.images, data.labels) == pytest.approx(result.test_accuracy)
    assert about.ranges == pytest.approx(calibrate(module, data.images[:180]), rel=1e-6)
    scores = module(torch.from_numpy(normalise(data.images[:180]))).abs().max().item()
    assert about.ranges["fc"] == pytest.approx(scores, rel=1e-5)
    assert about.ranges["input"] == pytest.approx(MNIST.normalise(np.full((1, 1), 255, np.uint8)).item(), rel=1e-3)


def test_without_held_out_images_all_are_trained_on(tmp_path, shipped_digits_as_mnist):
    held = train("mnist-plain", epochs=1, out=tmp_path, threads=1, hold_out=True, progress=False)
    assert held.held_out_accuracy is not None
    whole = train("mnist-plain", epochs=1, out=tmp_path, threads=1, progress=False)
    assert whole.held_out_accuracy is None
    about = read_metadata(whole.path)
    assert (about.images, about.held_out_accuracy) == (200, None), "the other training's file is not taken for this one"


@pytest.mark.parametrize(
    ("epochs", "hold_out", "command"),
    [
        (1, True, "heinfer train mnist-plain --seed 5 --epochs 1 --hold-out, then heinfer compile mnist-plain"),
        (None, False, "heinfer train mnist-plain --seed 5, then heinfer compile mnist-plain"),
    ],
)
def test_a_compiled_network_says_what_made_it(
    epochs, hold_out, command, tmp_path, monkeypatch, shipped_digits_as_mnist
):
    monkeypatch.setattr(reference_module, "mnist", training_module.mnist)
    result = train("mnist-plain", seed=5, epochs=epochs, out=tmp_path, threads=1, hold_out=hold_out, progress=False)
    about = compile_reference("mnist-plain", result.path).bundle.metadata
    assert about["made by"] == command
    assert about["images trained on"] == ("180" if hold_out else "200")
    assert about["test accuracy"] == f"{result.test_accuracy:.4f}"
    assert ("held-out accuracy" in about) == hold_out


def test_wrong_settings_and_files_name_the_way_out(tmp_path, shipped_digits_as_mnist):
    with pytest.raises(SettingError, match="choose one of mnist-plain, mnist-ffconv, "):
        train("lenet", out=tmp_path)
    with pytest.raises(SettingError, match="epochs must be at least 1, got 0"):
        train("mnist-plain", out=tmp_path, epochs=0)
    with pytest.raises(DataError, match="train the network first"):
        load("mnist-plain", tmp_path / "nothing.safetensors")
    path = quick("mnist-plain", tmp_path, epochs=1)
    with pytest.raises(DataError, match="holds mnist-plain, not mnist-ffconv"):
        load("mnist-ffconv", path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="is no checkpoint"):
        load("mnist-plain", path)


def test_augmentation_moves_images_by_no_more_than_its_bounds():
    images = torch.full((200, 1, 28, 28), -1.0)
    images[:, :, 13:15, 13:15] = 1.0
    moved = Distortion(rotation=0, shift=2, scale=0, shear=0, elastic=0)(images, -1.0, torch.Generator().manual_seed(0))
    mass = (moved[:, 0] + 1).double()
    at = torch.arange(28, dtype=torch.float64)
    centre = torch.stack(((mass.sum(1) * at).sum(1), (mass.sum(2) * at).sum(1)), 1) / mass.sum((1, 2))[:, None] - 13.5
    assert 1.8 < centre.abs().max() <= 2 + 1e-5
    still = Distortion(rotation=0, shift=0, scale=0, shear=0, elastic=0)(images, -1.0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(still, images, rtol=0, atol=1e-5)


def test_images_are_mirrored_shifted_and_get_a_hole():
    images = torch.arange(1.0, 1 + 16 * 16).reshape(1, 1, 16, 16).repeat(300, 3, 1, 1)
    moved = FlipAndShift(shift=2)(images, 0.0, torch.Generator().manual_seed(0))
    framed = torch.nn.functional.pad(images[0], (2,) * 4)
    framed_mirrored = torch.nn.functional.pad(images[0].flip(2), (2,) * 4)
    seen = set()
    for one in moved:
        matches = {
            (mirrored, y, x)
            for mirrored, whole in enumerate((framed, framed_mirrored))
            for y in range(5)
            for x in range(5)
            if torch.equal(one, whole[:, y : y + 16, x : x + 16])
        }
        assert len(matches) == 1
        seen |= matches
    assert len(seen) == 50, "every move and both sides come up"
    holed = FlipAndShift(shift=0, hole=4)(images, 0.0, torch.Generator().manual_seed(0))
    sizes = (holed[:, 0] == 0).sum((1, 2))
    assert 4 <= sizes.min() < sizes.max() == 16, "a hole at the border is cut off"
    assert torch.equal(holed[:, 0] == 0, holed[:, 2] == 0)


@pytest.fixture
def few_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three hundred images of ten coarse patterns, in CIFAR-10's place."""
    random = np.random.default_rng(0)
    labels = np.arange(300) % 10
    colours = random.integers(40, 216, (10, 3, 4, 4)).repeat(8, 2).repeat(8, 3)
    pixels = colours[labels] + random.integers(-40, 40, (300, 3, 32, 32))
    made = Images(pixels.astype(np.uint8), labels)
    monkeypatch.setattr(training_module, "cifar10", lambda _: Split(made[:-50], made[-50:]))
    monkeypatch.setattr(training_module, "cifar10_test", lambda _: made[-50:])


@pytest.mark.parametrize("name", ["lola-cifar-ffconv@4", "lola-cifar-falcon@8"])
def test_forms_of_a_network_learn_by_both_recipes(name, tmp_path, few_colours):
    path = train(name, epochs=8, out=tmp_path, threads=1, progress=False).path
    about = read_metadata(path)
    assert (about.name, about.epochs, about.device) == (name, 8, "cpu")
    assert about.test_accuracy > 0.4, "guessing has 0.1"
    brief = train(name, epochs=1, brief=True, out=tmp_path / "brief", threads=1, progress=False).path
    assert f"{name}: {COLOUR_BRIEF}" in read_metadata(brief).recipe
    assert f"{name}: {COLOUR_TUNED}" in about.recipe


def test_the_command_that_made_a_form_names_its_recipe_and_device(tmp_path, few_colours):
    path = train("lola-cifar-ffconv@4", epochs=1, brief=True, out=tmp_path, threads=1, progress=False).path
    about = replace(read_metadata(path), device="cuda")
    command = "heinfer train lola-cifar-ffconv@4 --seed 0 --epochs 1 --brief --device cuda"
    assert reference_module.training_command(about) == command


def test_what_is_not_there_is_refused(tmp_path, few_colours):
    with pytest.raises(SettingError, match="device 'tpu' is not here: choose one of cpu, cuda"):
        train("lola-cifar", out=tmp_path, device="tpu")
    with pytest.raises(SettingError, match="lola-cifar has no shorter recipe"):
        train("lola-cifar", out=tmp_path, brief=True)


@pytest.mark.parametrize("epochs_before", [None, 1])
def test_few_colour_images_are_learned_with_and_without_an_interruption(
    epochs_before, tmp_path, monkeypatch, few_colours
):
    if epochs_before:
        with monkeypatch.context() as patch:

            def interrupting(_, epoch, __):
                if epoch == epochs_before:
                    raise InterruptionError

            patch.setattr(training_module.TrainingBar, "on_epoch", interrupting)
            with pytest.raises(InterruptionError):
                quick("cifar-fast", tmp_path, epochs=12)
    path = quick("cifar-fast", tmp_path, epochs=12)
    again = quick("cifar-fast", tmp_path / "again", epochs=12)
    assert_same(tensors(path), tensors(again))
    assert read_metadata(path).test_accuracy > 0.8


def test_the_learning_rate_rises_then_falls_to_zero():
    rates = [one_cycle(step / 1000, FULL) for step in range(1001)]
    peak = rates.index(max(rates))
    assert peak == 1000 * FULL.warm_up
    assert rates[peak] == FULL.learning_rate
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] == pytest.approx(0)


@needs_mnist
def test_few_images_already_teach_much(tmp_path, monkeypatch):
    few, rest = mnist().train[:2000], mnist().held_out
    monkeypatch.setattr(training_module, "mnist", lambda _: Split(few, rest))
    result = train("mnist-ffconv", epochs=12, out=tmp_path, threads=1, hold_out=True, progress=False)
    assert result.test_accuracy > 0.93
    test = mnist_test()
    assert evaluate(load("mnist-ffconv", result.path), test.images, test.labels) == result.test_accuracy

"""Tuning with the model as teacher: what is learned, what is held out, what is reported, where it goes on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from heinfer.convert import Tuning, polynomialize
from heinfer.convert.polynomials.fitting import Seen
from heinfer.errors import SettingError

X = torch.tensor(np.random.default_rng(0).normal(size=(200, 2, 8, 8)), dtype=torch.float32)


def scores(module: nn.Module, x: torch.Tensor = X) -> torch.Tensor:
    with torch.no_grad():
        return module.eval()(x)


def two() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4, 3)
    )


def test_batch_normalisation_is_put_in_before_tuning_where_there_is_none() -> None:
    layers = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU()
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, 3))
    tuned, _ = polynomialize(model, X, tuning=Tuning(epochs=1))
    norms = [type(part) for part in tuned.modules() if "BatchNorm" in type(part).__name__]
    assert sorted(norms, key=str) == [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm2d]


@pytest.mark.parametrize("axes", [2, 3, 4, 5])
def test_normalisation_by_what_was_seen_changes_nothing(axes: int) -> None:
    seen = Seen()
    x = 3 + 2 * torch.randn(50, 4, *(3,) * (axes - 2))
    seen(x[:20])
    seen(x[20:])
    torch.testing.assert_close(scores(seen.norm(), x), x)


def test_what_is_held_out_is_reported_and_not_learned_from() -> None:
    model = two()
    strange = torch.cat([X[:150], 100 * X[150:]])
    labels = scores(model, strange).argmax(1)
    tuning = Tuning(epochs=1, held_out=50)
    tuned, report = polynomialize(model, strange, labels=labels, tuning=tuning)
    alone, _ = polynomialize(model, X[:150], tuning=Tuning(epochs=1))
    assert all(torch.equal(tuned.state_dict()[name], value) for name, value in alone.state_dict().items())
    assert report.activations[0].high < 10
    assert report.activations[0].outside > 0.5
    with pytest.raises(SettingError, match="of 200 inputs 200 cannot be held out"):
        polynomialize(model, X, tuning=Tuning(epochs=1, held_out=200))


def test_a_checkpoint_of_another_network_is_not_taken_up(tmp_path: Path) -> None:
    other = two()
    for parameter in other.parameters():
        parameter.data.neg_()
    tuning = Tuning(epochs=2, checkpoint=tmp_path / "tuned")
    polynomialize(two(), X, tuning=tuning)
    tuned, _ = polynomialize(other, X, tuning=tuning)
    expected, _ = polynomialize(other, X, tuning=Tuning(epochs=2))
    assert torch.equal(scores(tuned), scores(expected))


def test_augmentation_is_drawn_from_the_seed() -> None:
    def noisy(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return x + 0.1 * torch.randn(x.shape, generator=generator)

    plain, one, again = (
        scores(polynomialize(two(), X, tuning=Tuning(epochs=1, augment=augment)).module)
        for augment in (None, noisy, noisy)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, plain)


def test_tuning_learns_from_the_model_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    model, labels = two(), scores(two()).argmax(1)
    _, fitted = polynomialize(model, X, labels=labels)
    tuned, report = polynomialize(model, X, labels=labels, tuning=Tuning(epochs=4))
    assert report.accuracy
    assert fitted.accuracy
    assert report.accuracy[1] == fitted.accuracy[2]
    assert report.agreement[1] >= report.agreement[0]
    kept = tmp_path / "tuned"
    polynomialize(model, X, tuning=Tuning(epochs=4, checkpoint=kept))
    assert kept.exists()
    again, _ = polynomialize(model, X, tuning=Tuning(epochs=4, checkpoint=kept))
    assert torch.allclose(scores(again), scores(tuned), atol=1e-6)


def test_the_report_is_a_table() -> None:
    model = two()
    _, report = polynomialize(model, X, labels=scores(model).argmax(1))
    lines = str(report).splitlines()
    assert lines[0].split() == ["activation", "is", "interval", "degree", "levels", "error", "outside"]
    assert lines[1].startswith("1 ")
    assert lines[-3].startswith("accuracy: 100.00% before")
    assert lines[-2] == "that is of the data that it was fitted to, none held out"
    assert lines[-1].startswith("nothing was tuned: what calibration alone costs: ")
    assert f"{1 - report.agreement[0]:.2%} of the labels differ" in lines[-1]
    _, report = polynomialize(model, X, tuning=Tuning(epochs=1, held_out=20))
    assert str(report).splitlines()[-1] == "that is of 20 inputs held out"
    assert f"{report.agreement[1]:.2%} tuned" in str(report)


def test_labels_are_learned_only_with_a_weight() -> None:
    labels = torch.arange(len(X)) % 3
    plain, without, learned = (
        scores(polynomialize(two(), X, labels=given, tuning=Tuning(epochs=2, labels=weight)).module)
        for given, weight in ((None, 0.0), (labels, 0.0), (labels, 5.0))
    )
    assert torch.equal(plain, without)
    likely = [torch.nn.functional.cross_entropy(found, labels) for found in (plain, learned)]
    assert likely[1] < likely[0]

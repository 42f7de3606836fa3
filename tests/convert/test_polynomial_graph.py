"""What is at the end of a model: left off where it is of scores, a polynomial where its values count."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from heinfer.convert import polynomialize
from heinfer.errors import UnsupportedOperatorError

X = torch.randn(40, 3, 4, 4, generator=torch.Generator().manual_seed(0))


class Ended(nn.Module):
    def __init__(self, end) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.end = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.body(x))


@pytest.mark.parametrize(
    "end",
    [
        nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid(), lambda x: x.softmax(1), torch.sigmoid,
        lambda x: functional.log_softmax(x, dim=1), functional.logsigmoid,
    ],
)  # fmt: skip
def test_what_keeps_labels_is_left_off(end) -> None:
    model = Ended(end).eval()
    module, report = polynomialize(model, X)
    assert torch.equal(module(X), model.body(X))
    assert report.left_off
    assert f"{report.left_off} at the end is left off" in str(report)
    assert report.agreement == (1, 1)
    assert report.activations == ()


def test_a_picture_keeps_its_values() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 1, 3, padding=1), nn.Sigmoid())
    module, report = polynomialize(model, X, degree=7)
    assert not report.left_off
    assert [a.activation for a in report.activations] == ["Sigmoid"]
    assert (module(X) - model(X)).abs().max() < 0.05


def test_a_forward_that_branches_on_values_is_refused() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(UnsupportedOperatorError, match=r"cannot be followed by torch\.fx"):
        polynomialize(Branching(), X)

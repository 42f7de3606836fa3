"""Functions of elements: sums, products, powers, factors, and what does nothing at inference."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from heinfer.errors import UnsupportedOperatorError
from heinfer.frontend.calls import Rule, require_precise
from heinfer.frontend.recorder import Recorder
from heinfer.frontend.values import (
    Value,
    broadcast,
    expanded,
    plus,
    plus_constant,
    product,
    times_constant,
)
from heinfer.network.operators import MOST_DEGREE, Chebyshev

Operand = Value | Tensor | float


def add(recorder: Recorder, x: Operand, other: Operand, alpha: float = 1) -> Value:
    """x + alpha other."""
    del recorder
    if isinstance(x, Value) and isinstance(other, Value):
        return plus(x, other, alpha)
    if isinstance(x, Value):
        return plus_constant(x, alpha * constant(other))
    assert isinstance(other, Value)
    return plus_constant(times_constant(other, constant(alpha)), constant(x))


def subtract(recorder: Recorder, x: Operand, other: Operand, alpha: float = 1) -> Value:
    """x - alpha other."""
    return add(recorder, x, other, -alpha)


def subtract_from(recorder: Recorder, x: Operand, other: Operand, alpha: float = 1) -> Value:
    """other - alpha x."""
    return add(recorder, other, x, -alpha)


def multiply(recorder: Recorder, x: Operand, other: Operand) -> Value:
    """x * other, constants or two tensors of the network, element by element."""
    if not isinstance(other, Value):
        assert isinstance(x, Value)
        return times_constant(x, constant(other))
    if not isinstance(x, Value):
        return times_constant(other, constant(x))
    found = product(x, other)
    if found is not None:
        return found
    same = x is other
    shape = broadcast(x.shape, other.shape)
    x = recorder.again(expanded(x, shape))
    return recorder.product(x, x if same else recorder.again(expanded(other, shape)))


def divide(recorder: Recorder, x: Operand, other: Operand, rounding_mode: str | None = None) -> Value:
    """x / other, a constant."""
    if isinstance(other, Value):
        raise UnsupportedOperatorError(
            "divides by what depends on the input, which no polynomial does: divide by a constant, and train again"
        )
    if rounding_mode is not None:
        raise UnsupportedOperatorError("divides and rounds, which no polynomial does: leave out rounding_mode")
    return multiply(recorder, x, 1 / constant(other))


def negative(recorder: Recorder, x: Value) -> Value:
    """-x."""
    return multiply(recorder, x, -1.0)


def square(recorder: Recorder, x: Value) -> Value:
    """x^2, element by element."""
    return multiply(recorder, x, x)


def power(recorder: Recorder, x: Operand, exponent: Any) -> Value:
    """x^n of whole n: by squarings where that is a power of two, else as a polynomial."""
    if not isinstance(x, Value) or isinstance(exponent, Value | Tensor) or exponent != int(exponent):
        raise UnsupportedOperatorError("is supported with whole exponents, as in x ** 2")
    n = int(exponent)
    if not 1 <= n <= MOST_DEGREE:
        raise UnsupportedOperatorError(f"is supported with exponents of 1 to {MOST_DEGREE}, not {n}")
    if n & (n - 1) and not x.is_moved:
        x = recorder.again(x)  # in units of its own, not in those of what it scales and shifts
    found = x
    if n & (n - 1) == 0:
        while n > 1:
            found, n = multiply(recorder, found, found), n // 2
        return found
    for _ in range(n - 1):
        found = multiply(recorder, found, x)
    return found


def linear_interpolation(recorder: Recorder, x: Operand, end: Operand, weight: Any) -> Value:
    """x + weight (end - x)."""
    if isinstance(weight, Value):
        return add(recorder, x, multiply(recorder, weight, subtract(recorder, end, x)))
    return add(recorder, x, multiply(recorder, subtract(recorder, end, x), weight))


def add_product(recorder: Recorder, x: Operand, tensor1: Operand, tensor2: Operand, value: float = 1) -> Any:
    """x + value tensor1 tensor2."""
    if isinstance(tensor1, Value) or isinstance(tensor2, Value):
        return add(recorder, x, multiply(recorder, tensor1, tensor2), value)
    return add(recorder, x, constant(tensor1) * constant(tensor2), value)


def same(recorder: Recorder, x: Value, **_: Any) -> Value:
    """What does nothing."""
    del recorder
    return x


def cast(recorder: Recorder, x: Value, **options: Any) -> Value:
    """Another type, of no less precision than single."""
    del recorder
    kind = options.get("dtype")
    if isinstance(kind, torch.dtype) and not require_precise(kind).is_floating_point:
        raise UnsupportedOperatorError(f"rounds to {kind}, which the compiled network would not follow: leave it out")
    return x


def filled(recorder: Recorder, x: Value, value: Any) -> Tensor:
    """A constant in the shape of a tensor."""
    del recorder
    return constant(value).expand(x.shape)


def size(recorder: Recorder, x: Value, dim: int) -> int:
    """How many places an axis has."""
    del recorder
    return x.shape[dim]


def constant_like(number: float) -> Rule:
    def rule(recorder: Recorder, x: Value, size: Any = None, **_: Any) -> Tensor:
        """A constant in the shape of a tensor."""
        del recorder
        return torch.full(x.shape if size is None else size, number, dtype=torch.float64)

    return rule


def full(recorder: Recorder, x: Value, fill_value: Any, size: Any = None, **_: Any) -> Tensor:
    """A constant in the shape of a tensor."""
    del recorder
    return constant(fill_value).expand(x.shape if size is None else size)


def dropout_with_mask(recorder: Recorder, x: Value, p: float, train: bool | None = None) -> list[Any]:
    """Nothing, in evaluation mode."""
    return [dropout(recorder, x, p, train), None]


def dropout(recorder: Recorder, x: Value, p: float, train: bool | None = None) -> Value:
    """Nothing, in evaluation mode."""
    del recorder
    if train and p:
        raise UnsupportedOperatorError("is on at inference too: write training=self.training, or take nn.Dropout")
    return x


def checked(recorder: Recorder, **_: Any) -> None:
    """What looks at a tensor's type or sizes, which export has done."""
    del recorder


def chebyshev(recorder: Recorder, x: Value, coefficients: Tensor, center: Tensor, radius: Tensor) -> Value:
    """heinfer.nn's polynomial, channel by channel: a quadratic as such, which takes one level."""
    position, shape = recorder.placed(x)
    series = coefficients.reshape(-1, coefficients.shape[-1])
    if series.shape[1] == 3:
        if len(x.terms) > 1:  # a sum: as one tensor its quadratic is one square, else a product of two sums
            x = recorder.again(x)
        t = multiply(recorder, subtract(recorder, x, _across(center, shape)), 1 / _across(radius, shape))
        c0, c1, c2 = (_across(c, shape) for c in series.T)
        linear = add(recorder, multiply(recorder, t, 2 * c2), c1)
        return add(recorder, multiply(recorder, linear, t), c0 - c2)
    return recorder.add(Chebyshev(series.numpy(), center.reshape(-1).numpy(), radius.reshape(-1).numpy()), [position])


def _across(numbers: Tensor, shape: tuple[int, ...]) -> Tensor:
    """One number a channel, or one for all, to go with a batch of tensors of a shape."""
    return numbers.reshape(1, -1, *(1,) * (len(shape) - 1))


def constant(x: Any) -> Tensor:
    return x.double() if isinstance(x, Tensor) else torch.tensor(x, dtype=torch.float64)


RULES: dict[str, Rule] = {
    "add": add,
    **dict.fromkeys(("sub", "subtract"), subtract),
    "rsub": subtract_from,
    **dict.fromkeys(("mul", "multiply"), multiply),
    **dict.fromkeys(("div", "divide", "true_divide"), divide),
    **dict.fromkeys(("neg", "negative"), negative),
    "square": square,
    "pow": power,
    "lerp": linear_interpolation,
    "addcmul": add_product,
    "positive": same,
    **dict.fromkeys(("to", "_to_copy", "type_as"), cast),
    **dict.fromkeys(("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout"), dropout),
    "native_dropout": dropout_with_mask,
    **dict.fromkeys(("_assert_tensor_metadata", "_assert_async"), checked),
    **dict.fromkeys(("sym_size", "size"), size),
    "fill": filled,
    **dict.fromkeys(("full_like", "new_full"), full),
    **dict.fromkeys(("zeros_like", "new_zeros"), constant_like(0)),
    **dict.fromkeys(("ones_like", "new_ones"), constant_like(1)),
    "heinfer::chebyshev": chebyshev,
}

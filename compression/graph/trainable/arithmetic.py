"""Operators that compute entry by entry: arithmetic, comparisons, logic, casts."""

from collections.abc import Callable

import torch
from torch import Tensor

from compression.errors import NotTrainable
from compression.graph.trainable.elements import computed_dtype, computed_tensor
from compression.graph.trainable.node import Node, Operator, Table, axis_of, like


def plain(function: Callable[[Tensor], Tensor]) -> Operator:
    """An operator of one input that torch has as it is."""

    def operator(node: Node, x: Tensor) -> Tensor:
        return function(x)

    return operator


def _pair(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """An operator of two inputs that are broadcast to each other."""

    def operator(node: Node, a: Tensor, b: Tensor) -> Tensor:
        return function(a, aligned(node, a, b))

    return operator


def _chain(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """An operator of any number of inputs, joined two by two."""

    def operator(node: Node, first: Tensor, *others: Tensor) -> Tensor:
        result = first
        for other in others:
            result = function(result, other)
        return result

    return operator


def aligned(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """The second operand with axes added where, before opset 7, `axis` said which of a's axes b's are."""
    if node.domain or node.opset >= 7 or "axis" not in node.attributes:
        return b
    behind = a.ndim - axis_of(node.attributes["axis"], a.ndim) - b.ndim
    return b.reshape(*b.shape, *[1] * behind)


def div(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """Integers are divided towards zero."""
    b = aligned(node, a, b)
    if a.is_floating_point() or a.is_complex() or b.is_floating_point():
        return a / b
    return torch.div(a, b, rounding_mode="trunc")


def mod(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """The sign is the dividend's with `fmod`, else the divisor's."""
    return torch.fmod(a, b) if node.attributes.get("fmod", 0) else torch.remainder(a, b)


def power(node: Node, x: Tensor, exponent: Tensor) -> Tensor:
    """In the type of the base. A number as exponent spares the gradient towards it."""
    exponent = aligned(node, x, exponent)
    if exponent.numel() == 1 and exponent.ndim <= x.ndim and not exponent.requires_grad:
        number = float(exponent)
        if number == 0.5:
            return square_root(node, x)
        if x.is_floating_point():
            return x**number
    return torch.pow(x, like(exponent, x)).to(x.dtype)


def square_root(node: Node, x: Tensor) -> Tensor:
    """Its slope at zero, where it is infinite, counts as zero, as torch has it for norms."""
    if not x.requires_grad:
        return torch.sqrt(x)
    zero = x == 0
    return torch.sqrt(x.masked_fill(zero, 1.0)).masked_fill(zero, 0.0)


def absolute(node: Node, x: Tensor) -> Tensor:
    return x if x.dtype in (torch.uint8, torch.bool) else torch.abs(x)


def negative(node: Node, x: Tensor) -> Tensor:
    return -x


def reciprocal(node: Node, x: Tensor) -> Tensor:
    return 1 / x


def round_half_even(node: Node, x: Tensor) -> Tensor:
    return torch.round(x)


def mean(node: Node, *inputs: Tensor) -> Tensor:
    total = inputs[0]
    for item in inputs[1:]:
        total = total + item
    return total / len(inputs)


def clip(node: Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Bounds are attributes before opset 11. Where low is above high, high counts."""
    lowest = node.attributes.get("min") if low is None or low.numel() == 0 else _number(low)
    highest = node.attributes.get("max") if high is None or high.numel() == 0 else _number(high)
    return x if lowest is None and highest is None else torch.clamp(x, lowest, highest)


def _number(tensor: Tensor) -> float | int:
    number: float | int = tensor.item()
    return number


def error_function(node: Node, x: Tensor) -> Tensor:
    return torch.erf(x)


def is_infinite(node: Node, x: Tensor) -> Tensor:
    negative = bool(node.attributes.get("detect_negative", 1))
    positive = bool(node.attributes.get("detect_positive", 1))
    return torch.isinf(x) & ((x < 0) & negative | (x > 0) & positive)


def bit_shift(node: Node, a: Tensor, b: Tensor) -> Tensor:
    left = node.attributes["direction"] == "LEFT"
    return torch.bitwise_left_shift(a, b) if left else torch.bitwise_right_shift(a, b)


def cast(node: Node, x: Tensor) -> Tensor:
    """A cast to half precision keeps float32; one to a boolean asks whether the number is not zero."""
    return cast_to(x, computed_dtype(node.attributes["to"]))


def cast_like(node: Node, x: Tensor, target: Tensor) -> Tensor:
    return cast_to(x, target.dtype)


def cast_to(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Through int64 where a negative float becomes an unsigned integer: it wraps, as in C on most machines."""
    if x.is_floating_point() and dtype in (torch.uint8, torch.int8, torch.int16):
        return x.to(torch.int64).to(dtype)
    return x.to(dtype)


def bit_cast(node: Node, x: Tensor) -> Tensor:
    """The same bits as another type; only between types that the view holds as they are stored."""
    dtype = computed_dtype(node.attributes["to"])
    if dtype.itemsize != x.dtype.itemsize:
        raise NotTrainable("bits are not reinterpreted in types that are computed in a wider one")
    return x.view(dtype)


def identity(node: Node, x: Tensor) -> Tensor:
    return x


def dropout(
    node: Node, x: Tensor, ratio: Tensor | None = None, mode: Tensor | None = None
) -> tuple[Tensor, ...]:
    """As exported for inference: everything is kept."""
    return x, torch.ones(x.shape, dtype=torch.bool, device=x.device)


def constant(node: Node) -> Tensor:
    """The value as whichever attribute holds it."""
    (name, value), *_ = node.attributes.items()
    if name == "value":
        return computed_tensor(value)
    return torch.tensor(value, dtype=torch.int64 if name.startswith("value_int") else torch.float32)


ARITHMETIC: Table = {
    "Abs": absolute,
    "Acos": plain(torch.acos),
    "Acosh": plain(torch.acosh),
    "Add": _pair(torch.add),
    "And": _pair(torch.logical_and),
    "Asin": plain(torch.asin),
    "Asinh": plain(torch.asinh),
    "Atan": plain(torch.atan),
    "Atanh": plain(torch.atanh),
    "BitCast": bit_cast,
    "BitShift": bit_shift,
    "BitwiseAnd": _pair(torch.bitwise_and),
    "BitwiseNot": plain(torch.bitwise_not),
    "BitwiseOr": _pair(torch.bitwise_or),
    "BitwiseXor": _pair(torch.bitwise_xor),
    "Cast": cast,
    "CastLike": cast_like,
    "Ceil": plain(torch.ceil),
    "Clip": clip,
    "Constant": constant,
    "Cos": plain(torch.cos),
    "Cosh": plain(torch.cosh),
    "Div": div,
    "Dropout": dropout,
    "Equal": _pair(torch.eq),
    "Erf": error_function,
    "Exp": plain(torch.exp),
    "Floor": plain(torch.floor),
    "Greater": _pair(torch.gt),
    "GreaterOrEqual": _pair(torch.ge),
    "Identity": identity,
    "IsInf": is_infinite,
    "IsNaN": plain(torch.isnan),
    "Less": _pair(torch.lt),
    "LessOrEqual": _pair(torch.le),
    "Log": plain(torch.log),
    "Max": _chain(torch.maximum),
    "Mean": mean,
    "Min": _chain(torch.minimum),
    "Mod": mod,
    "Mul": _pair(torch.mul),
    "Neg": negative,
    "Not": plain(torch.logical_not),
    "Or": _pair(torch.logical_or),
    "Pow": power,
    "Reciprocal": reciprocal,
    "Round": round_half_even,
    "Sign": plain(torch.sign),
    "Sin": plain(torch.sin),
    "Sinh": plain(torch.sinh),
    "Sqrt": square_root,
    "Sub": _pair(torch.sub),
    "Sum": _chain(torch.add),
    "Tan": plain(torch.tan),
    "Xor": _pair(torch.logical_xor),
}

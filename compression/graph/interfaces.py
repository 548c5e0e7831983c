"""What callers of a model see: the names, element types and axes of its inputs and outputs."""

from collections.abc import Sequence

import onnx_ir as ir

from compression.errors import ResultRejected
from compression.summary import Dim, TensorSummary

Interface = tuple[tuple[TensorSummary, ...], tuple[TensorSummary, ...]]


def interface(model: ir.Model) -> Interface:
    """Inputs and outputs of the main graph, in order.

    Inputs that have an initializer need not be fed, so they do not count as inputs here.
    """
    stored = model.graph.initializers
    inputs = tuple(tensor_summary(value) for value in model.graph.inputs if value.name not in stored)
    return inputs, tuple(tensor_summary(value) for value in model.graph.outputs)


def check_same_interface(before: Interface, after: Interface) -> None:
    """Compares two interfaces.

    Raises:
        ResultRejected: a name, an element type, an axis or the order differs.
    """
    for kind, old, new in zip(("input", "output"), before, after, strict=True):
        _check(kind, old, new)


def dtype_name(dtype: ir.DataType | None) -> str:
    """numpy's name of an element type; `str` for text, `unknown` where the model does not tell."""
    if dtype is None or dtype == ir.DataType.UNDEFINED:
        return "unknown"
    if dtype == ir.DataType.STRING:
        return "str"
    return str(dtype.numpy())


def tensor_summary(value: ir.Value) -> TensorSummary:
    """A value as plain data. Sequences and optionals are told by their type, such as `sequence(float32)`."""
    return TensorSummary(name=value.name or "", dtype=_type_name(value.type), shape=_shape(value))


def dims(shape: ir.Shape) -> tuple[Dim, ...]:
    """Sizes and axis names; null for an axis about which nothing is known."""
    return tuple(_dim(size if isinstance(size, int) else size.value) for size in shape)


def _dim(size: Dim) -> Dim:
    """Exporters write -1 and ? for a size that is not known; two axes of that name need not be equal."""
    return None if size in ("", "?") or (isinstance(size, int) and size < 0) else size


def _type_name(kind: ir.TypeProtocol | None) -> str:
    if isinstance(kind, ir.SequenceType):
        return f"sequence({_type_name(kind.elem_type)})"
    if isinstance(kind, ir.OptionalType):
        return f"optional({_type_name(kind.elem_type)})"
    return dtype_name(kind.dtype if kind is not None else None)


def _shape(value: ir.Value) -> tuple[Dim, ...] | None:
    return None if value.shape is None else dims(value.shape)


def _check(kind: str, old: Sequence[TensorSummary], new: Sequence[TensorSummary]) -> None:
    names = [tensor.name for tensor in old], [tensor.name for tensor in new]
    if names[0] != names[1]:
        raise ResultRejected(f"the {kind}s changed from {', '.join(names[0])} to {', '.join(names[1])}")
    for first, second in zip(old, new, strict=True):
        if first != second:
            raise ResultRejected(
                f"the {kind} {first.name!r} changed from {_text(first)} to {_text(second)}", where=first.name
            )


def _text(tensor: TensorSummary) -> str:
    if tensor.shape is None:
        return f"{tensor.dtype} of unknown rank"
    return f"{tensor.dtype}[{', '.join('?' if size is None else str(size) for size in tensor.shape)}]"

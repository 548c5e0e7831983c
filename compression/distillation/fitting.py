"""Whether another model can stand in for the job's own, and giving it the same inputs and outputs.

Inputs and outputs belong together by name where all names are there, else by their order. An axis that the job's
model leaves open must be open in the other too; one that it fixes may be.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from compression.errors import NotApplicable
from compression.summary import Dim, ModelSummary, TensorSummary

if TYPE_CHECKING:
    import onnx_ir as ir

Interface = tuple[Sequence[TensorSummary], Sequence[TensorSummary]]
Pairs = tuple[tuple[TensorSummary, TensorSummary], ...]


def misfits(other: ModelSummary, model: ModelSummary, *, role: str) -> tuple[str, ...]:
    """Why `other` cannot be the `role` ("student", "teacher") beside `model`; empty where it can."""
    interfaces = (other.inputs, other.outputs), (model.inputs, model.outputs)
    return tuple(_misfits(*interfaces, role, strict=role == "student"))


def matched(theirs: Sequence[TensorSummary], ours: Sequence[TensorSummary], *, kind: str, role: str) -> Pairs:
    """Of every input (or output) of the job's model the other model's, as pairs (theirs, ours).

    The other model may have further outputs, not further inputs.

    Raises:
        NotApplicable: neither the names nor the counts agree.
    """
    by_name = {tensor.name: tensor for tensor in theirs}
    if all(tensor.name in by_name for tensor in ours) and (kind == "output" or len(theirs) == len(ours)):
        return tuple((by_name[tensor.name], tensor) for tensor in ours)
    if len(theirs) == len(ours):
        return tuple(zip(theirs, ours, strict=True))
    names = [", ".join(tensor.name for tensor in side) for side in (theirs, ours)]
    raise NotApplicable(
        f"the {role}'s {kind}s ({names[0]}) do not answer the model's ({names[1]})",
        where=role,
        hint=f"the {role} must take and give what the model does, under the same names or in the same order",
    )


def adopt_interface(other: "ir.Model", ours: Interface, *, role: str) -> None:
    """Renames the other model's inputs and outputs to the job's, in place; a student gets their axes too.

    Outputs that the job's model has not are dropped.

    Raises:
        NotApplicable: they do not fit.
    """
    from compression.graph import interface

    theirs = interface(other)
    for reason in _misfits(theirs, ours, role, strict=role == "student"):
        raise NotApplicable(reason, where=role)
    inputs = matched(theirs[0], ours[0], kind="input", role=role)
    outputs = matched(theirs[1], ours[1], kind="output", role=role)
    graph = other.graph
    values = {value.name: value for value in (*graph.inputs, *graph.outputs)}
    chosen = [values[one.name] for one, _ in inputs], [values[one.name] for one, _ in outputs]
    if len({*chosen[0], *chosen[1]}) < len(chosen[0]) + len(chosen[1]):
        raise NotApplicable(f"an input of the {role} is also its output", where=role)
    _give_way(other, {tensor.name for side in ours for tensor in side}, {*chosen[0], *chosen[1]})
    fed = [value for value in graph.inputs if value not in chosen[0]]
    graph.inputs[:] = [*chosen[0], *fed]
    graph.outputs[:] = chosen[1]
    _rename(chosen[0], inputs, axes=role == "student")
    _rename(chosen[1], outputs, axes=role == "student")


def _misfits(theirs: Interface, ours: Interface, role: str, *, strict: bool) -> Iterator[str]:
    for kind, other, own in zip(("input", "output"), theirs, ours, strict=True):
        try:
            pairs = matched(other, own, kind=kind, role=role)
        except NotApplicable as error:
            yield error.message
            continue
        for one, two in pairs:
            reasons = _difference(one, two, strict)
            if reasons is not None:
                theirs_is, ours_is = reasons
                yield f"the {role}'s {kind} {one.name!r} is {theirs_is}; the model's {two.name!r} is {ours_is}"


def _difference(theirs: TensorSummary, ours: TensorSummary, strict: bool) -> tuple[str, str] | None:
    """What they are, where that differs."""
    if theirs.dtype != ours.dtype:
        return theirs.dtype, ours.dtype
    if theirs.shape is None or ours.shape is None:
        return None
    same_rank = len(theirs.shape) == len(ours.shape)
    if same_rank and not any(_clash(*pair, strict) for pair in zip(theirs.shape, ours.shape, strict=True)):
        return None
    return _text(theirs.shape), _text(ours.shape)


def _clash(theirs: Dim, ours: Dim, strict: bool) -> bool:
    """Two sizes that differ; or, where it is to replace the model, a size fixed that the model leaves open."""
    if isinstance(theirs, int):
        return theirs != ours if isinstance(ours, int) else strict
    return False


def _text(shape: Sequence[Dim]) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def _give_way(model: "ir.Model", wanted: set[str], chosen: set["ir.Value"]) -> None:
    """Renames whatever else bears a name that an input or output is to bear."""
    from compression.graph import all_graphs
    from compression.graph.naming import namer

    fresh = namer(model)
    for graph in all_graphs(model):
        stored = list(graph.initializers.values())
        made = [value for node in graph for value in node.outputs]
        for value in (*graph.inputs, *stored, *made):
            if value.name in wanted and value not in chosen:
                value.name = fresh(value.name)


def _rename(values: Sequence["ir.Value"], pairs: Pairs, *, axes: bool) -> None:
    """Two rounds, since names may be swapped."""
    import onnx_ir as ir

    for index, value in enumerate(values):
        value.name = f"{value.name}:moving:{index}"
    for value, (_, ours) in zip(values, pairs, strict=True):
        value.name = ours.name
        if axes:
            value.shape = None if ours.shape is None else ir.Shape(ours.shape)

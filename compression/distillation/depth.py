"""Makes a student shallower: the residual blocks whose loss changes the outputs least leave the graph."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from compression import runtime
from compression.distillation.blocks import Block, find_blocks, remove_block
from compression.errors import CompressionError, NotApplicable
from compression.graph import infer_shapes
from compression.method import StepContext

Outputs = Mapping[str, np.ndarray]
TINY = 1e-30


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """A block that left: its first layer, all its layers, and the error that its loss alone makes."""

    name: str
    nodes: tuple[str, ...]
    error: float


def drop_blocks(
    model: ir.Model,
    share: float,
    feeds: Mapping[str, np.ndarray],
    context: StepContext,
    *,
    untouched: Collection[str] = (),
) -> tuple[Dropped, ...]:
    """Keeps `share` of the residual blocks, in place.

    Each block is taken out alone, and its error is the mean squared change of the outputs on `feeds` relative to
    their mean square, as in Veit et al. 2016 (arXiv:1605.06431), section 4.1, who drop single blocks. Those with
    the smallest errors go.

    Args:
        model: the student.
        share: of the blocks that stay, rounded to whole blocks.
        feeds: one batch.
        context: threads.
        untouched: names of nodes that must stay.

    Raises:
        NotApplicable: there are no such blocks, or too few that can leave.
    """
    infer_shapes(model)
    blocks = find_blocks(model.graph)
    count = len(blocks) - round(share * len(blocks))
    names = {node.name or "" for block in blocks for node in block.body}
    ranked = _ranked(model, blocks, feeds, context, untouched) if count else []
    if not blocks or (count and not ranked):
        raise NotApplicable(
            f"the depth cannot be reduced: {_why(blocks)}",
            where="derive.depth",
            hint="derive the student by width, or upload one",
        )
    dropped = _drop(model, ranked, count)
    infer_shapes(model)
    left = {node.name or "" for node in model.graph}
    return tuple(
        Dropped(
            name=block.name,
            nodes=tuple(node.name or "" for node in block.body if (node.name or "") in names - left),
            error=error,
        )
        for error, block in dropped
    )


def _why(blocks: tuple[Block, ...]) -> str:
    if not blocks:
        return "the model has no residual blocks x + f(x) of one shape"
    return f"none of its {len(blocks)} residual blocks can leave"


def _ranked(
    model: ir.Model,
    blocks: tuple[Block, ...],
    feeds: Mapping[str, np.ndarray],
    context: StepContext,
    untouched: Collection[str],
) -> list[tuple[float, Block]]:
    expected = _run(model, feeds, context)
    ranked = []
    for index, block in enumerate(blocks):
        context.report(index / len(blocks), f"trying the model without {block.name}")
        if not any(node.name in untouched for node in block.body):
            error = _error_without(model, index, expected, feeds, context)
            if np.isfinite(error):
                ranked.append((error, block))
    return sorted(ranked, key=lambda pair: pair[0])


def _error_without(
    model: ir.Model, index: int, expected: Outputs, feeds: Mapping[str, np.ndarray], context: StepContext
) -> float:
    """Infinite where the graph does not run without the block, or gives other shapes."""
    candidate = model.clone()
    remove_block(candidate, find_blocks(candidate.graph)[index])
    try:
        found = _run(candidate, feeds, context)
    except CompressionError:
        return float("inf")
    return max((_relative(expected[name], found[name]) for name in expected), default=float("inf"))


def _run(model: ir.Model, feeds: Mapping[str, np.ndarray], context: StepContext) -> Outputs:
    session = runtime.open_session(model, device="cpu", threads=context.threads)
    return {
        name: array
        for name, array in runtime.run(session, feeds).items()
        if isinstance(array, np.ndarray) and array.dtype.kind in "fiu"
    }


def _relative(expected: np.ndarray, found: np.ndarray) -> float:
    if expected.shape != found.shape:
        return float("inf")
    one, other = expected.astype(np.float64), found.astype(np.float64)
    return float(((one - other) ** 2).mean() / max((one**2).mean(), TINY)) if one.size else 0.0


def _drop(model: ir.Model, ranked: list[tuple[float, Block]], count: int) -> list[tuple[float, Block]]:
    """A block that went with another one, inside of which it lay, is not counted."""
    dropped: list[tuple[float, Block]] = []
    for error, block in ranked:
        if len(dropped) < count and block.joint.graph is model.graph:
            remove_block(model, block)
            dropped.append((error, block))
    return dropped

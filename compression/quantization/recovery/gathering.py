"""Rows of some layers' inputs, of the float model and of the quantized one, drawn in one pass over the data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from compression import runtime
from compression.method import StepContext
from compression.quantization.probe import Feeds
from compression.quantization.recovery.rows import Floats, draw, positions


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Of one layer, each (groups, rows, width): the same places of both models, samples one after another."""

    floats: Floats
    quantized: Floats


def gather_rows(
    floats: ir.Model,
    quantized: ir.Model,
    counts: Mapping[str, int],
    feeds: Iterable[Feeds],
    context: StepContext,
) -> dict[str, Rows]:
    """Run both models over the feeds.

    Args:
        floats: stays as it is.
        quantized: stays as it is; the same layers by the same names.
        counts: rows to draw from each sample, by layer.
        feeds: inputs.
        context: where to run, and the seed.
    """
    nodes = _named(floats, counts)
    inputs = {name: node.inputs[0].name or "" for name, node in nodes.items() if node.inputs[0]}
    twins = {
        name: node.inputs[0].name or "" for name, node in _named(quantized, counts).items() if node.inputs[0]
    }
    first, second = _open(floats, inputs, context), _open(quantized, twins, context)
    random = np.random.default_rng(context.seed)
    parts: dict[str, list[tuple[Floats, Floats]]] = {name: [] for name in nodes}
    for feed in feeds:
        one, two = {**feed, **runtime.run(first, feed)}, {**feed, **runtime.run(second, feed)}
        for name, node in nodes.items():
            given, seen = one[inputs[name]], two[twins[name]]
            where = positions(node, given, counts[name], random)
            parts[name].append((draw(node, given, where), draw(node, seen, where)))
    return {
        name: Rows(
            floats=np.concatenate([pair[0] for pair in pairs], axis=1),
            quantized=np.concatenate([pair[1] for pair in pairs], axis=1),
        )
        for name, pairs in parts.items()
    }


def _named(model: ir.Model, names: Mapping[str, int]) -> dict[str, ir.Node]:
    return {node.name: node for node in model.graph if node.name and node.name in names}


def _open(model: ir.Model, wanted: Mapping[str, str], context: StepContext) -> Any:
    fed = {value.name for value in model.graph.inputs}
    names = list(dict.fromkeys(name for name in wanted.values() if name not in fed))
    return runtime.open_session(model, device=context.device, threads=context.threads, outputs=names)

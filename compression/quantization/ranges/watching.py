"""Makes a model reduce its own tensors: each leaves its exact extremes and a random sample, and no more.

A tensor x of N values gives, with k random numbers u in [0, 1) fed anew for every inference and K = min(k, N):

1. min(x), max(x), and sum(x) to find NaN, which the runtime's minimum and maximum pass over;
2. x[floor((i + u_i) N / K)] for i = 0..K-1: one value from each of K equal stretches, and exactly all values
   where K = N. Every value is as likely as any other, and the draws are independent.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from compression.quantization.ranges.beside import Beside, Bodies
from compression.quantization.storage import Names

MIN_OPSET = 12
"""The first with a minimum of integers, which drawing takes; extremes take none in particular."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """Names of the outputs that belong to a tensor; empty arrays where its branch of an If was not taken."""

    low: str
    high: str
    sum: str
    size: str = ""
    """int64; empty name where no values are drawn."""
    values: str = ""
    """float32, 1-D."""


class Watcher:
    """Rewrites a model, which it owns, so that its only outputs are what is learned of some tensors."""

    def __init__(self, model: ir.Model, *, drawing: bool) -> None:
        if drawing and model.opset_imports.get("", MIN_OPSET) < MIN_OPSET:
            raise ValueError(f"drawing values takes opset {MIN_OPSET}, not {model.opset_imports['']}")
        self.model = model
        self.names = Names(model)
        self.bodies = Bodies(model.graph, self.names)
        self.declared = frozenset(model.graph.outputs)
        self.random = self._random_input() if drawing else None
        self.draws: dict[object, tuple[ir.Value, ir.Value]] = {}
        self.outside: dict[ir.Value, ir.Value] = {}
        self.ends: dict[ir.Node, ir.Node] = {}
        """The last node put behind each, since the outputs of one node may share places to draw from."""

    @property
    def positions(self) -> str | None:
        """The input for the random numbers, double of shape (k,)."""
        return None if self.random is None else self.random.name

    def watch(self, wanted: Iterable[str]) -> Mapping[str, Watched]:
        """Watch the tensors of these names, those in bodies of If too.

        Left out are names that are nowhere, in two branches at once, or in a body of Loop or Scan.
        """
        front = self.model.graph[0] if len(self.model.graph) else None
        watched = {value.name or "": self._watch(value, graph, front) for value, graph in self._find(wanted)}
        self.model.graph.outputs[:] = list(dict.fromkeys(self.outside.values()))
        return watched

    def named(self, wanted: Iterable[str]) -> list[ir.Value]:
        """The tensors of these names that can be watched."""
        return [value for value, _ in self._find(wanted)]

    def _find(self, wanted: Iterable[str]) -> list[tuple[ir.Value, ir.Graph]]:
        names = frozenset(wanted)
        values = [
            (value, graph) for graph in self.bodies.graphs() for value in _values(graph, self.model.graph)
        ]
        count = Counter(value.name for value, _ in values)
        return [
            (value, graph)
            for value, graph in values
            if value.name in names and count[value.name] == 1 and self.bodies.only_ifs(graph)
        ]

    def _random_input(self) -> ir.Value:
        kind, name = ir.TensorType(ir.DataType.DOUBLE), self.names("random_positions")
        value = ir.Value(name=name, type=kind, shape=ir.Shape([None]))
        self.model.graph.inputs.append(value)
        return value

    def _watch(self, value: ir.Value, graph: ir.Graph, front: ir.Node | None) -> Watched:
        producer, single = value.producer(), ir.DataType.FLOAT
        place = Beside(
            graph, value, self.names, behind=producer and self.ends.get(producer, producer), front=front
        )
        source = value if value.dtype == single else place.cast(value, "single", single)
        found: dict[str, ir.Value] = {
            name: place.add(op_type, [source], name, single, {"keepdims": 0})
            for name, op_type in (("low", "ReduceMin"), ("high", "ReduceMax"), ("sum", "ReduceSum"))
        }
        if self.random is not None:
            found["size"], indices = self._drawn(place, value)
            flat = place.add("Reshape", [source, place.integers([-1])], "flat", single)
            found["values"] = place.add("Gather", [flat, indices], "values", single)
        if producer is not None and place.last is not None:
            self.ends[producer] = place.last
        return Watched(**{name: self._out(item, graph) for name, item in found.items()})

    def _drawn(self, place: Beside, value: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The size of a tensor and where to read it, computed once for tensors known to be of one shape.

        An output of the model is not: it has the shape that the file declares.
        """
        shape = None if value in self.declared else _known_shape(value)
        key = (id(place.graph), value if shape is None else shape)
        if key not in self.draws:
            self.draws[key] = _draw(place, value, self.random)
        return self.draws[key]

    def _out(self, value: ir.Value, graph: ir.Graph) -> str:
        if value not in self.outside:
            self.outside[value] = self.bodies.lead_out(value, graph)
        return self.outside[value].name or ""


def _draw(place: Beside, value: ir.Value, random: ir.Value | None) -> tuple[ir.Value, ir.Value]:
    """size(x), and floor((i + u_i) N / K) in double precision, which is exact for any size."""
    if random is None:
        raise ValueError("there are no random numbers to draw by")
    whole, double = ir.DataType.INT64, ir.DataType.DOUBLE
    size = place.add("Size", [value], "size", whole)
    count = place.add("Min", [size, place.add("Size", [random], "most", whole)], "count", whole)
    ordinals = place.add("Range", [place.integers(0), count, place.integers(1)], "ordinals", whole)
    end = place.add("Reshape", [count, place.integers([-1])], "end", whole)
    used = place.add("Slice", [random, place.integers([0]), end], "random", double)
    places = place.add("Add", [place.cast(ordinals, "stretches", double), used], "places", double)
    length = [place.cast(size, "size_double", double), place.cast(count, "count_double", double)]
    positions = place.add("Mul", [places, place.add("Div", length, "length", double)], "positions", double)
    return size, place.cast(positions, "indices", whole)


def _values(graph: ir.Graph, main: ir.Graph) -> list[ir.Value]:
    made = [output for node in graph for output in node.outputs if output.name]
    return [*graph.inputs, *made] if graph is main else made


def _known_shape(value: ir.Value) -> tuple[Any, ...] | None:
    """The dimensions, symbols by name, or None where one is unknown."""
    if value.shape is None:
        return None
    dims = tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)
    return None if None in dims else dims

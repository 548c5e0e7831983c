"""A graph compiled into steps: which operator runs on which values, and what may be forgotten after it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir

from compression.errors import NotTrainable
from compression.graph.operators import DEFAULT_DOMAINS, operator_key
from compression.graph.trainable.elements import computed_array
from compression.graph.trainable.node import Node, Operator
from compression.graph.trainable.tables import OPERATORS, READ_ON_CPU


@dataclass(frozen=True, kw_only=True)
class Step:
    """One node. Values go by numbers, None where an input is absent or an output not wanted."""

    node: Node
    in_training: Node
    operator: Operator
    inputs: tuple[int | None, ...]
    outputs: tuple[int | None, ...]
    on_cpu: frozenset[int]
    bodies: Mapping[str, "Program"]
    last_uses: tuple[int, ...]
    """Values of this graph that nothing after this step reads."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """The steps of a graph or a body in order; a body reads values of the graphs around it by their numbers."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    steps: tuple[Step, ...]
    own_outputs: tuple[int, ...]
    """Those outputs that its steps make or that are its inputs."""


class Numbers:
    """Numbers for the values of a model and its bodies."""

    def __init__(self) -> None:
        self._numbers: dict[ir.Value, int] = {}

    def __getitem__(self, value: ir.Value) -> int:
        return self._numbers.setdefault(value, len(self._numbers))

    def by_name(self) -> dict[str, int]:
        """The first value of a name counts; the main graph's come first."""
        found: dict[str, int] = {}
        for value, number in self._numbers.items():
            found.setdefault(value.name or "", number)
        return found


def compile_graph(graph: ir.Graph, opsets: Mapping[str, int], numbers: Numbers) -> Program:
    """The program of a graph; bodies become programs inside its steps.

    Raises:
        NotTrainable: an operator or an attribute is not known; the message names the first node.
    """
    nodes = [node for node in graph if not _is_unread(node)]
    inputs = tuple(numbers[value] for value in graph.inputs)
    outputs = tuple(numbers[value] for value in graph.outputs)
    own = {numbers[value] for node in nodes for value in node.outputs} | set(inputs)
    kept = set(outputs)
    steps: list[Step] = []
    for node in reversed(nodes):
        step = _compile_node(node, opsets, numbers)
        read = (set(_read(step)) | {item for item in step.outputs if item is not None}) & own
        steps.append(replace(step, last_uses=tuple(sorted(read - kept))))
        kept |= read
    own_outputs = tuple(number for number in outputs if number in own)
    return Program(inputs=inputs, outputs=outputs, steps=tuple(reversed(steps)), own_outputs=own_outputs)


def settings(program: Program) -> frozenset[int]:
    """The values that operators read only to know how to compute: axes, bounds, exponents."""
    uses = list(_uses(program))
    return frozenset(number for number, on_cpu in uses if on_cpu) - {
        number for number, on_cpu in uses if not on_cpu
    }


def _uses(program: Program) -> Iterator[tuple[int, bool]]:
    yield from ((number, False) for number in program.outputs)
    for step in program.steps:
        for index, number in enumerate(step.inputs):
            if number is not None:
                yield number, index in step.on_cpu
        for body in step.bodies.values():
            yield from _uses(body)


def _is_unread(node: ir.Node) -> bool:
    return not any(value.uses() or value.is_graph_output() for value in node.outputs)


def _compile_node(node: ir.Node, opsets: Mapping[str, int], numbers: Numbers) -> Step:
    operator = OPERATORS.get(operator_key(node))
    if operator is None:
        raise NotTrainable(f"{operator_key(node)} is not known", where=node.name)
    bodies = {
        name: compile_graph(attribute.as_graph(), opsets, numbers)
        for name, attribute in node.attributes.items()
        if attribute.type == ir.AttributeType.GRAPH
    }
    wanted = _wanted_outputs(node)
    plain = Node(
        op_type=node.op_type,
        domain="" if node.domain in DEFAULT_DOMAINS else node.domain,
        name=node.name or "",
        opset=opsets.get("" if node.domain in DEFAULT_DOMAINS else node.domain, 1),
        attributes=_settings(node, bodies),
        outputs=len(wanted),
    )
    return Step(
        node=plain,
        in_training=replace(plain, training=True),
        operator=operator,
        inputs=tuple(None if value is None or value.name == "" else numbers[value] for value in node.inputs),
        outputs=tuple(numbers[value] for value in wanted),
        on_cpu=READ_ON_CPU.get(operator_key(node), frozenset()),
        bodies=bodies,
        last_uses=(),
    )


def _settings(node: ir.Node, bodies: Mapping[str, "Program"]) -> dict[str, Any]:
    """Its attributes but for bodies; QuantizeLinear's type too, as the view may hold zero points in a wider one."""
    settings = {name: _plain(node, attr) for name, attr in node.attributes.items() if name not in bodies}
    zero = node.inputs[2] if node.op_type == "QuantizeLinear" and len(node.inputs) > 2 else None
    if zero is not None and zero.dtype is not None:
        settings["output_dtype"] = int(zero.dtype)
    return settings


def _wanted_outputs(node: ir.Node) -> list[ir.Value]:
    """The outputs up to the last one with a name; onnx_ir names unnamed ones only when it must."""
    wanted = list(node.outputs)
    while len(wanted) > 1 and not wanted[-1].name:
        wanted.pop()
    return wanted


def _plain(node: ir.Node, attribute: ir.Attr) -> Any:
    if attribute.is_ref():
        raise NotTrainable(f"{operator_key(node)} is set by a function around it", where=node.name)
    if attribute.type == ir.AttributeType.TENSOR:
        return computed_array(attribute.as_tensor().numpy())
    value = attribute.value
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _read(step: Step) -> Iterator[int]:
    """Every value that a step reads, those its bodies read from around them included."""
    yield from (item for item in step.inputs if item is not None)
    for body in step.bodies.values():
        yield from body.outputs
        for inner in body.steps:
            yield from _read(inner)

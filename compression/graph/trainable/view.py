"""An ONNX graph as a torch module: its float weights are parameters, everything else stays as it is."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal

import onnx_ir as ir
import torch
from torch import Tensor, nn

from compression.errors import NotTrainable
from compression.graph.constants import release
from compression.graph.naming import all_graphs
from compression.graph.trainable.coverage import refuse_unknown
from compression.graph.trainable.elements import computed_tensor
from compression.graph.trainable.node import Node, Value
from compression.graph.trainable.program import Numbers, Program, Step, compile_graph, settings
from compression.graph.trainable.roles import Role, roles

Values = dict[int, Value]


class TrainableGraph(nn.Module):
    """Computes what the model computes, node by node, with gradients.

    Half precision is computed in float32. Integers, settings such as the bounds of Clip, and all arithmetic on
    shapes stay on the CPU until they meet data of another device. The view holds copies: the model changes only
    by `write_back`.

    Args:
        model: as `compression.graph.load` gives it; it stays as it is.
        device: where parameters, statistics and float constants live.

    Raises:
        NotTrainable: an operator is not known; the message names it, its first node and how many there are.
    """

    def __init__(self, model: ir.Model, *, device: str | torch.device = "cpu") -> None:
        super().__init__()
        refuse_unknown(model)
        self.batch_norm: Literal["batch", "frozen"] = "batch"
        numbers = Numbers()
        self._program: Program = compile_graph(model.graph, model.opset_imports, numbers)
        self._inputs = {value.name or "": numbers[value] for value in model.graph.inputs}
        self._outputs = {value.name or "": numbers[value] for value in model.graph.outputs}
        self._members: dict[int, str] = {}
        self._on_cpu: Values = {}
        self._names: dict[Role, dict[str, str]] = {role: {} for role in Role}
        self._hold(model, numbers)
        self._numbers = numbers.by_name()
        self.to(device)

    @property
    def weights(self) -> Mapping[str, nn.Parameter]:
        """The parameters by the names of their initializers."""
        return MappingProxyType(
            {name: self.get_parameter(member) for name, member in self._names[Role.PARAMETER].items()}
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the graph's outputs."""
        return tuple(self._outputs)

    @property
    def statistics(self) -> Mapping[str, Tensor]:
        """BatchNorm's running means and variances by the names of their initializers."""
        return MappingProxyType(
            {name: self.get_buffer(member) for name, member in self._names[Role.STATISTIC].items()}
        )

    def learn(self, names: Iterable[str]) -> None:
        """Makes parameters of float constants, by the names of their initializers; parameters stay what they are.

        Raises:
            KeyError: there is neither of that name.
        """
        for name in names:
            if name not in self._names[Role.PARAMETER]:
                member = self._names[Role.CONSTANT].pop(name)
                tensor = self.get_buffer(member)
                delattr(self, member)
                self.register_parameter(member, nn.Parameter(tensor))
                self._names[Role.PARAMETER][name] = member

    @property
    def device(self) -> torch.device:
        """Where the first parameter, or else the first constant, lives."""
        tensor = next(self.parameters(), next(self.buffers(), None))
        return torch.device("cpu") if tensor is None else tensor.device

    def forward(self, feeds: Mapping[str, Tensor], taps: Collection[str] = ()) -> dict[str, Value]:
        """The graph's outputs by name, and the values in between whose names `taps` lists.

        Args:
            feeds: by input name; inputs with a default may be left out. Half precision is widened, and float
                data is brought to the view's device.
            taps: names of values anywhere in the graph; one of a branch not taken is left out.

        Raises:
            NotTrainable: an input is missing, a tap is unknown, or an operator fails on these feeds.
        """
        wanted = {name: self._number(name) for name in taps} | self._outputs
        values = self._stored() | self._fed(feeds)
        self._run(self._program, values, frozenset(wanted.values()))
        return {name: values[number] for name, number in wanted.items() if number in values}

    def _hold(self, model: ir.Model, numbers: Numbers) -> None:
        """Takes copies of all stored tensors."""
        known, on_cpu = roles(model), settings(self._program)
        for name, value in _stored_values(model):
            tensor = value.const_value
            if tensor is None or tensor.dtype == ir.DataType.STRING:
                continue
            copy = computed_tensor(tensor.numpy())
            release(tensor)
            number = numbers[value]
            if copy.is_floating_point() and not (known[name] is Role.CONSTANT and number in on_cpu):
                self._register(name, known[name], copy, number)
            else:
                self._on_cpu[number] = copy

    def _register(self, name: str, role: Role, tensor: Tensor, number: int) -> None:
        member = escape(name)
        if role is Role.PARAMETER:
            self.register_parameter(member, nn.Parameter(tensor))
        else:
            self.register_buffer(member, tensor, persistent=role is Role.STATISTIC)
        self._names[role][name] = member
        self._members[number] = member

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            raise NotTrainable(f"the model has no value {name!r}", where=name)
        return self._numbers[name]

    def _stored(self) -> Values:
        held = {number: getattr(self, member) for number, member in self._members.items()}
        return self._on_cpu | held

    def _fed(self, feeds: Mapping[str, Tensor]) -> Values:
        unknown = [name for name in feeds if name not in self._inputs]
        if unknown:
            raise NotTrainable(f"the model has no input {unknown[0]!r}", where=unknown[0])
        held = self._members.keys() | self._on_cpu.keys()
        missing = [name for name, number in self._inputs.items() if name not in feeds and number not in held]
        if missing:
            raise NotTrainable(f"the input {missing[0]!r} is not fed", where=missing[0])
        device = self.device
        return {self._inputs[name]: _as_computed(value, device) for name, value in feeds.items()}

    def _run(self, program: Program, values: Values, kept: frozenset[int]) -> None:
        batch_statistics = self.training and self.batch_norm == "batch"
        for step in program.steps:
            node = step.in_training if batch_statistics else step.node
            if step.bodies:
                node = self._with_bodies(node, step, values, kept)
            results = _compute(step, node, values)
            for number, result in zip(step.outputs, results, strict=False):
                if number is not None:
                    values[number] = result
            for number in step.last_uses:
                if number not in kept:
                    values.pop(number, None)

    def _with_bodies(self, node: Node, step: Step, values: Values, kept: frozenset[int]) -> Node:
        """The node with its bodies as functions that can be called."""
        bodies = {name: Body(self, program, values, kept) for name, program in step.bodies.items()}
        return replace(node, attributes={**node.attributes, **bodies})


class Body:
    """A branch or a loop's body: called with its inputs, gives its outputs. It sees the values around it."""

    def __init__(self, view: TrainableGraph, program: Program, values: Values, kept: frozenset[int]) -> None:
        self._view, self._program, self._values, self._kept = view, program, values, kept

    def __call__(self, *inputs: Value) -> tuple[Value, ...]:
        self._values.update(zip(self._program.inputs, inputs, strict=False))
        self._view._run(self._program, self._values, self._kept)
        results = tuple(self._values[number] for number in self._program.outputs)
        for number in self._program.own_outputs:
            if number not in self._kept:
                self._values.pop(number, None)
        return results


def escape(name: str) -> str:
    """An initializer's name as torch takes it for a member: without dots, never empty, never a method's."""
    return "onnx:" + name.replace("%", "%25").replace(".", "%2E")


def _stored_values(model: ir.Model) -> Iterator[tuple[str, ir.Value]]:
    for graph in all_graphs(model):
        yield from graph.initializers.items()


def _as_computed(value: Any, device: torch.device) -> Value:
    """A feed in the view's types; floats on its device, integers where they are."""
    if not isinstance(value, Tensor):
        return value
    if value.dtype in (torch.float16, torch.bfloat16):
        value = value.float()
    return value.to(device) if value.is_floating_point() else value


def _compute(step: Step, node: Node, values: Values) -> tuple[Value, ...]:
    inputs = [None if number is None else values[number] for number in step.inputs]
    try:
        results = step.operator(node, *_together(inputs, step.on_cpu))
    except NotTrainable as error:
        error.where = error.where or node.name
        raise
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, NotImplementedError) as error:
        raise NotTrainable(f"{node.op_type} fails here: {_first_line(error)}", where=node.name) from error
    if isinstance(results, tuple) or (isinstance(results, list) and len(step.outputs) > 1):
        return tuple(results)
    return (results,)


def _together(inputs: list[Value], on_cpu: frozenset[int]) -> list[Value]:
    """Brings tensors to the one device other than the CPU where there is one; shapes and settings stay."""
    devices = {item.device for item in inputs if isinstance(item, Tensor)}
    if len(devices) < 2:
        return inputs
    device = next(item for item in devices if item.type != "cpu")
    return [
        item if index in on_cpu or not isinstance(item, Tensor) else item.to(device)
        for index, item in enumerate(inputs)
    ]


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__

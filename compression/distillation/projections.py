"""Learned projections from a student's channels to a teacher's: they train with the student and then go."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from compression.distillation.features import Feature
from compression.distillation.matching import Match
from compression.graph import infer_shapes
from compression.graph.naming import namer

NAME = "distillation:projection"


class Projections:
    """What was added to a student's graph, to be taken out again."""

    def __init__(self) -> None:
        self._nodes: list[ir.Node] = []
        self.weights: list[str] = []

    def remove(self, model: ir.Model) -> None:
        """The graph as it was before, but for what training has changed."""
        for node in reversed(self._nodes):
            model.graph.outputs.remove(node.outputs[0])
            model.graph.remove(node, safe=True)
        for name in self.weights:
            del model.graph.initializers[name]

    def add(self, model: ir.Model, student: Feature, teacher: Feature, rng: np.random.Generator) -> str:
        """A 1x1 convolution, or a product, from the student's channels to as many as the teacher has.

        Gives the name of the projected value, which becomes an output; it is the feature itself where the
        channels agree in number (FitNets, Romero et al. 2015, section 2.2: the regressor).
        """
        if student.channels == teacher.channels:
            return student.value
        fresh = namer(model)
        source = _value(model, student.value)
        dtype = _dtype(model, source)
        weight = _weight(student, teacher, rng, fresh(f"{NAME}:weight"), dtype)
        model.graph.register_initializer(weight)
        kind = "Conv" if _is_map(student) else "MatMul"
        node = ir.node(kind, inputs=[source, weight], name=fresh(NAME))
        node.outputs[0].name = fresh(f"{NAME}:out")
        node.outputs[0].dtype = dtype
        model.graph.append(node)
        model.graph.outputs.append(node.outputs[0])
        self._nodes.append(node)
        self.weights.append(weight.name or "")
        return node.outputs[0].name or ""


def project(model: ir.Model, matches: Sequence[Match], seed: int) -> tuple[Projections, tuple[str, ...]]:
    """Projections for all pairs, and the names of the values that answer the teacher's features."""
    projections, rng = Projections(), np.random.default_rng(seed)
    names = tuple(projections.add(model, student, teacher, rng) for student, teacher in matches)
    return projections, names


def _is_map(feature: Feature) -> bool:
    return feature.channel_axis == 1 and len(feature.shape) > 1


def _weight(
    student: Feature, teacher: Feature, rng: np.random.Generator, name: str, dtype: ir.DataType
) -> ir.Value:
    """Drawn from N(0, 1 / channels), so that what is projected keeps its size."""
    if _is_map(student):
        shape: tuple[int, ...] = (teacher.channels, student.channels, *(1 for _ in student.positions))
    else:
        shape = (student.channels, teacher.channels)
    array = (rng.normal(size=shape) / np.sqrt(student.channels)).astype(dtype.numpy())
    tensor = ir.Tensor(array, dtype=dtype, name=name)
    return ir.Value(name=name, const_value=tensor, shape=ir.Shape(shape), type=ir.TensorType(dtype))


def _dtype(model: ir.Model, value: ir.Value) -> ir.DataType:
    if value.dtype is None:
        infer_shapes(model)
    return value.dtype or ir.DataType.FLOAT


def _value(model: ir.Model, name: str) -> ir.Value:
    return next(value for node in model.graph for value in node.outputs if value.name == name)

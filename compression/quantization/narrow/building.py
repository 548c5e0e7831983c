"""Puts nodes and constants beside a stored weight, in its graph or function."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from compression.quantization.storage import Names, constant


@dataclass(kw_only=True)
class Builder:
    """Nodes that compute from constants alone, in order."""

    beside: ir.Value
    names: Names
    opset: int
    nodes: list[ir.Node] = field(default_factory=list)

    @property
    def base(self) -> str:
        return self.beside.name or "weight"

    def constant(self, what: str, tensor: ir.TensorProtocol) -> ir.Value:
        value, nodes = constant(self.beside, f"{self.base}_{what}", tensor, self.names)
        self.nodes += nodes
        return value

    def integers(self, what: str, values: Sequence[int]) -> ir.Value:
        return self.constant(what, ir.tensor(np.array(values, np.int64)))

    def floats(self, what: str, values: Any) -> ir.Value:
        return self.constant(what, ir.tensor(np.ascontiguousarray(values, np.float32)))

    def node(self, op_type: str, inputs: Sequence[ir.Value], what: str, **attributes: Any) -> ir.Value:
        name = self.names(f"{self.base}_{what}")
        node = ir.node(op_type, inputs, attributes or None, name=name)
        node.outputs[0].name = name
        self.nodes.append(node)
        return node.outputs[0]

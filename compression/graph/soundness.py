"""Whether a parsed message is a model at all, and one whose operators this service can run."""

import onnx

from compression.errors import InvalidModel, UnsupportedModel
from compression.graph import walking
from compression.graph.limits import MAX_NESTING, MAX_NODES

MIN_OPSET = 7
KNOWN_DOMAINS = frozenset(
    {
        *("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc", "com.microsoft.experimental"),
        *("ai.onnx.training", "ai.onnx.preview.training", "ai.onnx.preview", "com.ms.internal.nhwc"),
        "org.pytorch.aten",
    }
)
"""Operator sets that onnxruntime carries."""
RUNTIME_OPERATORS = frozenset(
    {
        *("Affine", "Crop", "DynamicSlice", "ImageScaler", "ParametricSoftplus", "Scale", "ScaledTanh"),
        *("ATen", "GivenTensorFill", "GRUUnit", "MeanVarianceNormalization", "SimplifiedLayerNormalization"),
        *("LayerNormalization", "FusedConv"),
    }
)
"""Operators that onnxruntime takes in the default domain although ONNX does not define them there."""


def check_sound(model: onnx.ModelProto) -> None:
    """Checks the frame of a model: versions, a graph with outputs, known operators, no recursion.

    Raises:
        InvalidModel: something that every model has is missing, or functions call themselves.
        UnsupportedModel: an operator set is too old, or operators are known to nobody here.
    """
    if not model.HasField("graph") or model.ir_version <= 0 or not model.graph.output:
        raise InvalidModel("the bytes are no ONNX model: there is no graph with outputs inside")
    versions = {item.domain: item.version for item in model.opset_import}
    opset = versions.get("", versions.get("ai.onnx"))
    nodes = sum(len(graph.node) for graph in walking.graphs(model))
    if nodes > MAX_NODES:
        raise UnsupportedModel(f"the model has {nodes} nodes, more than the {MAX_NODES} that are taken")
    if opset is not None:
        _check_opset(opset)
    _check_functions(model)
    _check_operators(model, opset or onnx.defs.onnx_opset_version())


def _check_opset(opset: int) -> None:
    newest = onnx.defs.onnx_opset_version()
    if not MIN_OPSET <= opset <= newest:
        raise UnsupportedModel(
            f"the model uses opset {opset}; opsets {MIN_OPSET} to {newest} are taken",
            hint=f"export it again with opset_version=17, or any from {MIN_OPSET} to {newest}",
        )


def _check_functions(model: onnx.ModelProto) -> None:
    calls = {
        (function.domain, function.name): [
            (node.domain, node.op_type) for graph in walking.graphs_of(function) for node in graph.node
        ]
        for function in model.functions
    }
    nodes: dict[tuple[str, str], int] = {}

    def expanded(key: tuple[str, str], above: int) -> int:
        """How many nodes a call stands for."""
        if above > MAX_NESTING:
            raise InvalidModel("functions call each other too deep, or without end", where=key[1])
        if key not in nodes:
            nodes[key] = sum(expanded(other, above + 1) if other in calls else 1 for other in calls[key])
        return nodes[key]

    total = sum(
        expanded((node.domain, node.op_type), 0)
        for graph in walking.graphs_of(model.graph)
        for node in graph.node
        if (node.domain, node.op_type) in calls
    )
    if total > MAX_NODES:
        raise InvalidModel(f"functions stand for {total} nodes, more than the {MAX_NODES} that are taken")
    for key in calls:
        expanded(key, 0)


def _check_operators(model: onnx.ModelProto, opset: int) -> None:
    functions = {(function.domain, function.name) for function in model.functions}
    unknown: dict[str, str] = {}
    for graph in walking.graphs(model):
        for node in graph.node:
            if (node.domain, node.op_type) not in functions and not _is_known(node, opset):
                name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
                unknown.setdefault(name, node.name)
    if unknown:
        raise UnsupportedModel(
            f"onnxruntime has no operator {', '.join(sorted(unknown))}",
            where=next(iter(unknown.values())),
            hint="export the model without custom operators",
        )


def _is_known(node: onnx.NodeProto, opset: int) -> bool:
    if node.domain in ("", "ai.onnx"):
        return node.op_type in RUNTIME_OPERATORS or onnx.defs.has(node.op_type, opset)
    return node.domain in KNOWN_DOMAINS

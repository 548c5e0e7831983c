"""What a model holds, told as plain data."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir

from compression.graph.constants import release, stored_tensor
from compression.graph.interfaces import dtype_name, interface
from compression.graph.layer import Layer, layers
from compression.graph.loading import external_files, load
from compression.graph.macs import Macs, count_macs
from compression.graph.naming import all_graphs
from compression.graph.operators import FLOATS, is_quantized_operator, operator_key
from compression.graph.trainable.coverage import obstacles
from compression.method import Method
from compression.summary import LayerSummary, ModelSummary, WeightSummary

CHUNK_ELEMENTS = 2**22


def inspect_model(path: Path, workdir: Path) -> ModelSummary:
    """Loads a file and tells what is inside.

    Raises:
        InvalidModel: it is no model that can be opened.
        UnsupportedModel: it is a model of a kind that is not taken.
    """
    model = load(path, workdir=workdir)
    unpacked = Path(model.meta.get("path", path))
    size = sum(file.stat().st_size for file in (unpacked, *external_files(model)))
    return summarise(model, size_bytes=size)


def summarise(model: ir.Model, *, size_bytes: int) -> ModelSummary:
    """Everything that is worth knowing about a loaded model. `size_bytes` is what its files take."""
    found = layers(model)
    macs = count_macs(model)
    weights = {value: _weight_summary(value) for layer in found for value in layer.weights}
    inputs, outputs = interface(model)
    nodes = [node for graph in all_graphs(model) for node in graph]
    graphs = sum(1 for _ in all_graphs(model))
    return ModelSummary(
        ir_version=model.ir_version,
        opset=model.opset_imports.get("", 0),
        domains={name: version for name, version in sorted(model.opset_imports.items()) if name},
        producer=f"{model.producer_name or ''} {model.producer_version or ''}".strip(),
        inputs=inputs,
        outputs=outputs,
        parameters=sum(weight.elements for weight in weights.values()),
        nonzero_parameters=sum(weight.elements - weight.zeros for weight in weights.values()),
        size_bytes=size_bytes,
        weight_bytes=_stored_bytes(model),
        macs=macs.total,
        macs_complete=macs.complete,
        operators=dict(sorted(Counter(operator_key(node) for node in nodes).items())),
        layers=tuple(_layer_summary(layer, weights, macs) for layer in found),
        subgraphs=graphs - 1 - len(model.functions),
        functions=model.meta.get("functions", len(model.functions)),
        quantized=any(is_quantized_operator(node) for node in nodes),
        external_data=bool(external_files(model)),
        obstacles=obstacles(model),
        warnings=(*model.meta.get("warnings", ()), *_warnings(weights.values())),
    )


def select(model: ir.Model, method: Method) -> tuple[Layer, ...]:
    """The layers that a method works on and its selector picks.

    Raises:
        NotApplicable: there is no layer of a fitting kind.
        SelectorMatchedNothing: the selector matches none.
    """
    by_name = {layer.name: layer for layer in layers(model)}
    chosen = method.selected(summarise(model, size_bytes=0))
    return tuple(by_name[layer.name] for layer in chosen)


def left_alone(model: ir.Model, method: Method) -> str | None:
    """Why a step leaves an already quantized model as it is; None where it works on it."""
    quantized = any(is_quantized_operator(node) for graph in all_graphs(model) for node in graph)
    return method.idle(summarise(model, size_bytes=0)) if quantized else None


def count_zeros(tensor: ir.TensorProtocol) -> int:
    """Elements that are exactly zero, counted piece by piece."""
    return _read_through(tensor)[0]


def _read_through(tensor: ir.TensorProtocol) -> tuple[int, bool]:
    """Elements that are exactly zero, and whether all are finite, piece by piece."""
    values = tensor.numpy().reshape(-1)
    zeros, finite, floats = 0, True, tensor.dtype in FLOATS
    for start in range(0, values.size, CHUNK_ELEMENTS):
        piece = values[start : start + CHUNK_ELEMENTS]
        zeros += int(np.count_nonzero(piece == 0))
        finite = finite and (not floats or bool(np.isfinite(piece).all()))
    del values
    release(tensor)
    return zeros, finite


def _weight_summary(value: ir.Value) -> WeightSummary:
    tensor = stored_tensor(value)
    assert tensor is not None
    zeros, finite = _read_through(tensor)
    return WeightSummary(
        name=value.name or "",
        dtype=dtype_name(tensor.dtype),
        shape=tuple(int(size) for size in tensor.shape.numpy()),
        size_bytes=tensor.nbytes,
        zeros=zeros,
        finite=finite,
    )


def _warnings(weights: Iterable[WeightSummary]) -> Iterator[str]:
    names = [repr(weight.name) for weight in weights if not weight.finite]
    if names:
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield f"NaN or infinity in the weight {names[0]}{others}: steps leave their layers as they are"


def _layer_summary(layer: Layer, weights: dict[ir.Value, WeightSummary], macs: Macs) -> LayerSummary:
    return LayerSummary(
        name=layer.name,
        op_type=layer.node.op_type,
        scope=layer.scope,
        weights=tuple(weights[value] for value in layer.weights),
        macs=macs.nodes.get(layer.name, 0),
    )


def _stored_bytes(model: ir.Model) -> int:
    """Bytes of all stored tensors, shapes and scales included."""
    total = 0
    for graph in all_graphs(model):
        for value in graph.initializers.values():
            total += value.const_value.nbytes if value.const_value is not None else 0
        for node in graph:
            tensor = stored_tensor(node.outputs[0]) if node.op_type == "Constant" else None
            total += tensor.nbytes if tensor is not None else 0
    return total

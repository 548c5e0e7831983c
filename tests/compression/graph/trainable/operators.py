"""Puts single nodes to the operator functions of the trainable view and to onnxruntime."""

import warnings
from functools import cache

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from compression.graph.trainable.attention import ATTENTION
from compression.graph.trainable.convolution import CONVOLUTIONS
from compression.graph.trainable.elements import computed_array, computed_tensor
from compression.graph.trainable.node import Node
from compression.graph.trainable.normalization import NORMALIZATIONS
from compression.graph.trainable.pooling import POOLING
from compression.graph.trainable.products import PRODUCTS
from compression.graph.trainable.quantizing import QUANTIZING
from compression.graph.trainable.recurrent import RECURRENT
from compression.graph.trainable.resizing import RESIZING

OPERATORS = {
    **CONVOLUTIONS,
    **POOLING,
    **PRODUCTS,
    **NORMALIZATIONS,
    **RECURRENT,
    **ATTENTION,
    **RESIZING,
    **QUANTIZING,
}
HALF = {"float16": 2e-3, "bfloat16": 2e-2}


@cache
def node_cases():
    """ONNX's own cases of a single node whose operator is one of these, by name."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = load_model_tests(kind="node")
    return {
        case.name: case
        for case in cases
        if len(case.model.graph.node) == 1 and case.model.graph.node[0].op_type in OPERATORS
    }


def node_of(proto, opset, *, training=False, types=()):
    """The node as its operator function sees it; a zero point tells the type, as the view's compiler does."""
    attributes = {item.name: _plain(onnx.helper.get_attribute_value(item)) for item in proto.attribute}
    if proto.op_type == "QuantizeLinear" and len(proto.input) > 2:
        attributes["output_dtype"] = int(types[2])
    names = list(proto.output)
    while len(names) > 1 and not names[-1]:
        names.pop()
    return Node(
        op_type=proto.op_type,
        domain=proto.domain,
        opset=opset,
        attributes=attributes,
        outputs=len(names),
        training=training,
    )


def _plain(value):
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return computed_array(numpy_helper.to_array(value))
    return tuple(_plain(item) for item in value) if isinstance(value, (list, tuple)) else value


def compute(node, *inputs):
    """The outputs of an operator function as a list."""
    key = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    results = OPERATORS[key](node, *inputs)
    return list(results) if isinstance(results, (tuple, list)) else [results]


def run_case(case):
    """Computes a case and says what differs; empty where nothing does."""
    proto = case.model.graph.node[0]
    opset = next(item.version for item in case.model.opset_import if item.domain == proto.domain)
    types = {item.name: item.type.tensor_type.elem_type for item in case.model.graph.input}
    node = node_of(proto, opset, types=[types.get(name, 0) for name in proto.input])
    for inputs, outputs in case.data_sets:
        fed = dict(zip([item.name for item in case.model.graph.input], inputs, strict=True))
        tensors = [computed_tensor(_array(fed[name])) if name else None for name in proto.input]
        found = dict(zip(proto.output, compute(node, *tensors), strict=False))
        for item, wanted in zip(case.model.graph.output, outputs, strict=True):
            problem = difference(found[item.name], _array(wanted), case.rtol, case.atol)
            if problem:
                return f"{item.name}: {problem}"
    return ""


def _array(value):
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def difference(found, wanted, rtol=1e-4, atol=1e-6):
    """What is wrong about a tensor; empty where nothing is."""
    rtol = max(rtol, HALF.get(wanted.dtype.name, 0))
    expected, array = computed_array(wanted), found.detach().numpy()
    if array.shape != expected.shape:
        return f"shape {array.shape} instead of {expected.shape}"
    if array.dtype != expected.dtype:
        return f"type {array.dtype} instead of {expected.dtype}"
    if expected.dtype.kind == "f":
        noise = np.abs(expected, where=np.isfinite(expected), out=np.zeros_like(expected)).max(initial=0)
        atol = max(atol, float(noise) * 2.0**-22)
    else:
        rtol = atol = 0
    close = np.isclose(array, expected, rtol=rtol, atol=atol, equal_nan=True)
    return "" if close.all() else f"{int((~close).sum())} of {close.size} differ"


def compare(op_type, inputs, *, opset=21, domain="", outputs=1, rtol=1e-4, atol=1e-5, **attributes):
    """Says how an operator function and onnxruntime differ on numpy inputs; None stands for absent ones."""
    inputs = [None if value is None else np.asarray(value) for value in inputs]
    names = ["" if value is None else f"i{index}" for index, value in enumerate(inputs)]
    proto = helper.make_node(op_type, names, [f"o{i}" for i in range(outputs)], domain=domain, **attributes)
    fed = {name: value for name, value in zip(names, inputs, strict=True) if name}
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in fed.items()
    ]
    results = [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in proto.output]
    graph = helper.make_graph([proto], "g", infos, results)
    imports = [helper.make_opsetid("", opset)]
    imports += [helper.make_opsetid(domain, 1)] if domain else []
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    for item in model.graph.output:
        item.type.Clear()
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = session.run(None, fed)
    types = [helper.np_dtype_to_tensor_dtype(value.dtype) if value is not None else 0 for value in inputs]
    node = node_of(proto, 1 if domain else opset, types=types)
    tensors = [None if value is None else computed_tensor(value) for value in inputs]
    pairs = zip(compute(node, *tensors), wanted, strict=True)
    return [problem for problem in (difference(*pair, rtol, atol) for pair in pairs) if problem]


def random(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def gradients_right(op_type, inputs, *, opset=21, domain="", outputs=1, **attributes):
    """Whether the gradients of an operator in all its float64 inputs are those by finite differences."""
    node = Node(op_type=op_type, domain=domain, opset=opset, attributes=attributes, outputs=outputs)
    tensors = [None if value is None else torch.as_tensor(value) for value in inputs]
    for tensor in tensors:
        if tensor is not None and tensor.is_floating_point():
            tensor.requires_grad_(True)
    floats = [tensor for tensor in tensors if tensor is not None and tensor.requires_grad]

    def function(*given):
        supply = iter(given)
        fed = [t if t is None or not t.requires_grad else next(supply) for t in tensors]
        return tuple(item for item in compute(node, *fed) if item.is_floating_point())

    return torch.autograd.gradcheck(function, floats, fast_mode=True)

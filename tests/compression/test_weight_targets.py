"""Which axis of a stored weight counts what: against layers written by hand."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from compression.graph import layers, load
from compression.weight_targets import output_axis, reduction_axis


def layer_of(folder: Path, nodes: list[onnx.NodeProto], shape: tuple[int, ...], rank: int) -> tuple:
    """The layer of a graph with one stored weight `w`, and that weight."""
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None] * rank)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones(shape, np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "m.onnx")
    layer = next(layer for layer in layers(load(folder / "m.onnx")) if layer.name == "layer")
    return layer, layer.weights[0]


def node(kind: str, *inputs: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, list(inputs), ["y"], name="layer", **attributes)


TURNED = helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0])


@pytest.mark.parametrize(
    ("nodes", "shape", "rank", "out", "summed"),
    [
        ([node("Conv", "x", "w")], (8, 3, 3, 3), 4, 0, 1),
        ([node("ConvTranspose", "x", "w")], (3, 8, 3, 3), 4, 1, 0),
        ([node("ConvTranspose", "x", "w", group=2)], (4, 8, 3, 3), 4, None, 0),
        ([node("Gemm", "x", "w", transB=1)], (10, 6), 2, 0, 1),
        ([node("Gemm", "x", "w")], (6, 10), 2, 1, 0),
        ([node("MatMul", "x", "w")], (6, 10), 3, 1, 0),
        ([TURNED, node("MatMul", "x", "t")], (10, 6), 3, 0, 1),
        ([node("MatMul", "x", "w")], (2, 6, 10), 3, 2, 1),
    ],
)
def test_axes(
    tmp_path: Path, nodes: list[onnx.NodeProto], shape: tuple[int, ...], rank: int, out: int, summed: int
) -> None:
    layer, weight = layer_of(tmp_path, nodes, shape, rank)
    assert (output_axis(layer, weight), reduction_axis(layer, weight)) == (out, summed)

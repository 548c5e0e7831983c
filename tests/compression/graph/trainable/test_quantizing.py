"""Quantization computes what onnxruntime does, and lets gradients through as its sources say."""

import ml_dtypes
import numpy as np
import pytest
import torch
from onnx import TensorProto

from compression.graph.trainable import TrainableGraph, check_agreement
from tests.compression.graph.trainable.building import loaded
from tests.compression.graph.trainable.operators import Node, compare, compute, random

QUANTIZE = Node(op_type="QuantizeLinear", opset=21, attributes={})
DEQUANTIZE = Node(op_type="DequantizeLinear", opset=21, attributes={})


def settings(shape, dtype):
    zeros = np.random.default_rng(0).integers(0, 9, shape).astype(dtype)
    return [np.abs(random(*shape)) * 0.1 + np.float32(0.01), zeros]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
@pytest.mark.parametrize(
    ("shape", "options"),
    [((), {}), ((6,), {"axis": 1}), ((6,), {"axis": -2}), ((4, 6, 2), {"axis": 2, "block_size": 4})],
)
def test_there_and_back(dtype, shape, options):
    x = 3 * random(4, 6, 8)
    assert not compare("QuantizeLinear", [x, *settings(shape, dtype)], **options)
    q = np.random.default_rng(0).integers(0, 100, (4, 6, 8)).astype(dtype)
    assert not compare("DequantizeLinear", [q, *settings(shape, dtype)], **options)


@pytest.mark.parametrize(("dtype", "low", "high"), [(ml_dtypes.int4, -8, 7), (ml_dtypes.uint4, 0, 15)])
def test_four_bits(dtype, low, high):
    """onnxruntime is asked elsewhere; here the bounds are those of the type."""
    kind = TensorProto.INT4 if low else TensorProto.UINT4
    node = Node(op_type="QuantizeLinear", opset=21, attributes={"output_dtype": kind})
    x = torch.linspace(-20, 20, 41)
    (q,) = compute(node, x, torch.tensor(1.0))
    assert torch.equal(q, x.clamp(low, high).to(q.dtype))
    assert q.numpy().astype(dtype).astype(np.int64).tolist() == q.tolist()


def test_eight_bit_floats_saturate_unless_told_not_to():
    x = torch.tensor([1.06, -3.3, 1e6])
    for saturate, last in ((1, 448.0), (0, float("nan"))):
        attributes = {"output_dtype": TensorProto.FLOAT8E4M3FN, "saturate": saturate}
        (q,) = compute(Node(op_type="QuantizeLinear", opset=21, attributes=attributes), x, torch.tensor(1.0))
        torch.testing.assert_close(q, torch.tensor([1.0, -3.25, last]), equal_nan=True)


@pytest.mark.parametrize("sign", [-1, 0, 1])
def test_dynamic_range(sign):
    x = random(4, 6, 8)
    for data in (x, sign * np.abs(x)):
        assert not compare("DynamicQuantizeLinear", [data], outputs=3)


def there_and_back(x, scale, zero):
    (q,) = compute(QUANTIZE, x, scale, zero)
    return compute(DEQUANTIZE, q, scale, zero)[0]


def test_gradients_pass_straight_inside_the_range_only():
    x = torch.tensor([-9.0, -1.3, 0.2, 5.0, 14.0], requires_grad=True)
    zero = torch.tensor(100, dtype=torch.uint8)
    y = there_and_back(x, torch.tensor(0.05), zero)
    y.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0]
    with torch.no_grad():
        assert torch.equal(there_and_back(x, torch.tensor(0.05), zero), y)
        assert compute(QUANTIZE, x, torch.tensor(0.05), zero)[0].dtype == torch.uint8


def test_a_learned_scale_has_the_gradient_of_lsq():
    """Esser et al. 2020, equation 3: -x/s + round(x/s) inside, -Q_n and Q_p outside."""
    x = torch.tensor([-9.0, -1.3, 0.23, 5.04, 14.0])
    scale = torch.tensor(0.1, requires_grad=True)
    zero = torch.tensor(0, dtype=torch.int8)
    for entry, wanted in zip(x, (-90 + 90, -13 + 13, 2 - 2.3, 50 - 50.4, 127.0), strict=True):
        scale.grad = None
        there_and_back(entry, scale, zero).backward()
        assert scale.grad.item() == pytest.approx(wanted, abs=1e-4)


def test_the_scale_of_an_axis_learns_from_its_own_entries():
    x, scale = torch.tensor(3 * random(4, 3)), torch.tensor([0.3, 0.01, 0.2], requires_grad=True)
    (q,) = compute(QUANTIZE, x, scale, torch.zeros(3, dtype=torch.int8))
    (y,) = compute(DEQUANTIZE, q, scale, torch.zeros(3, dtype=torch.int8))
    y.sum().backward()
    ratio = x / scale.detach()
    bounded = ratio.round().clamp(-128, 127)
    inside = (ratio.round() >= -128) & (ratio.round() <= 127)
    wanted = torch.where(inside, ratio.round() - ratio, bounded).sum(0)
    torch.testing.assert_close(scale.grad, wanted)


def test_a_convolution_of_quantized_data_trains():
    """Integer operators pass on what straight-through quantization holds as floats."""
    x = torch.tensor(random(1, 2, 5, 5), requires_grad=True)
    (q, _, zero) = compute(Node(op_type="DynamicQuantizeLinear", opset=21, attributes={}, outputs=3), x)
    w = torch.tensor(np.random.default_rng(0).integers(-9, 9, (3, 2, 3, 3)), dtype=torch.int8)
    node = Node(op_type="ConvInteger", opset=21, attributes={})
    (y,) = compute(node, q, w, zero)
    y.sum().backward()
    with torch.no_grad():
        (whole,) = compute(node, q.to(torch.uint8), w, zero)
    assert torch.equal(y, whole.to(y.dtype))
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", ["int4", "uint4", "int8", "uint16"])
def test_the_view_rounds_to_the_type_that_the_zero_point_has(tmp_path, kind):
    """The view holds 4 bits in 8 and uint16 in int32, so it has to be told."""
    text = f"""<ir_version: 10, opset_import: ["" : 21]> g (float[4,6] x) => (float[4,3] y) {{
        zero = Constant<value = {kind} z {{3}}>()
        q = QuantizeLinear(w, scale, zero)
        d = DequantizeLinear(q, scale, zero)
        y = MatMul(x, d)
    }}"""
    model = loaded(tmp_path / "m.onnx", text, w=10 * random(6, 3), scale=np.array(0.5, np.float32))
    view = TrainableGraph(model)
    feeds = {"x": random(4, 6)}
    check_agreement(view, model, feeds)
    view({"x": torch.tensor(feeds["x"])})["y"].sum().backward()
    assert view.weights["w"].grad.abs().sum() > 0

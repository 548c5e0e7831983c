"""Affine parameters and rounding, against numpy by hand and by properties."""

import hypothesis.extra.numpy as arrays
import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from compression.quantization.affine import (
    Affine,
    Range,
    dequantize,
    from_range,
    quantize,
    sqnr_db,
    symmetric,
)

FINITE = st.floats(-(2.0**99), 2.0**99, width=32)
MATRICES = arrays.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 7)), elements=FINITE)


def test_symmetric_per_channel_by_hand():
    weights = np.array([[1.0, -2.54], [0.0, 0.0]], np.float32)
    parameters = symmetric(weights, axes=(0,))
    np.testing.assert_allclose(parameters.scale, [[2.54 / 127], [1.0]], rtol=1e-7)
    assert quantize(weights, parameters).tolist() == [[50, -127], [0, 0]]


def test_ties_round_half_to_even():
    parameters = Affine(scale=np.array(1.0, np.float32), zero_point=np.array(3, np.int8))
    values = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.5], np.float32)
    assert quantize(values, parameters).tolist() == [3, 5, 5, 3, 1, 1]


def test_values_beyond_the_range_saturate():
    parameters = from_range(Range(low=0, high=2.55), np.uint8)
    assert quantize(np.array([-5, 0, 2.55, 99], np.float32), parameters).tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_a_range_by_hand(dtype):
    parameters = from_range(Range(low=-1.0, high=3.0), dtype)
    assert parameters.scale == pytest.approx(4 / 255)
    assert int(parameters.zero_point) == 64 + np.iinfo(dtype).min


def test_a_centred_range_is_symmetric():
    parameters = from_range(Range(low=-1.0, high=2.54), np.int8, centred=True)
    assert parameters.scale == pytest.approx(0.02)
    assert int(parameters.zero_point) == 0


@given(FINITE, FINITE, st.sampled_from([np.uint8, np.int8]), st.booleans())
def test_any_range_holds_zero_exactly_and_is_finite(first, second, dtype, centred):
    parameters = from_range(Range(low=min(first, second), high=max(first, second)), dtype, centred=centred)
    assert np.isfinite(parameters.scale) and parameters.scale > 0
    assert np.iinfo(dtype).min <= int(parameters.zero_point) <= np.iinfo(dtype).max
    assert dequantize(quantize(np.zeros(1, np.float32), parameters), parameters)[0] == 0


@given(st.floats(-1e6, 1e6, width=32), st.floats(0, 1, width=32))
def test_error_inside_the_range_is_at_most_one_step(low, share):
    bounds = Range(low=low, high=low + 10)
    parameters = from_range(bounds, np.uint8)
    x = np.array([bounds.low + share * (bounds.high - bounds.low)], np.float32)
    error = abs(float(dequantize(quantize(x, parameters), parameters)[0]) - float(x[0]))
    # The zero point is rounded as well as the value, so that the error may reach one step at the ends.
    assert error <= float(parameters.scale) * 1.001


@given(MATRICES)
@settings(max_examples=200)
def test_symmetric_error_is_at_most_half_a_step(weights):
    parameters = symmetric(weights, axes=(0,))
    back = dequantize(quantize(weights, parameters), parameters)
    # A hair above one half: the scale itself is rounded to float32.
    assert (np.abs(back - weights) <= parameters.scale * 0.50002 * (1 + 1e-5)).all()


@given(st.floats(-(2.0**99), 2.0**99, width=32), st.integers(1, 9))
def test_a_constant_tensor_survives(value, count):
    weights = np.full((2, count), value, np.float32)
    parameters = symmetric(weights)
    np.testing.assert_allclose(
        dequantize(quantize(weights, parameters), parameters), weights, rtol=1e-6, atol=1e-37
    )


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (0, 3)])
def test_scalars_and_empty_tensors(shape):
    weights = np.ones(shape, np.float32)
    parameters = symmetric(weights, axes=(0,) if shape else ())
    np.testing.assert_allclose(dequantize(quantize(weights, parameters), parameters), weights, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types(dtype):
    weights = np.random.default_rng(0).normal(size=(4, 64)).astype(dtype)
    parameters = symmetric(weights, axes=(0,))
    # Uniform rounding noise of a Gaussian whose peak is about 2.5 sigma: 6.02 * 7 + 10.8 - 20 log10(peak) =
    # 44 dB.
    assert sqnr_db(weights, dequantize(quantize(weights, parameters), parameters)) > 40


def test_sqnr_by_hand():
    assert sqnr_db(np.array([3.0, 4.0]), np.array([3.0, 4.5])) == pytest.approx(20.0)
    assert sqnr_db(np.ones(3), np.ones(3)) == float("inf")
    assert sqnr_db(np.zeros(3), np.ones(3)) == float("-inf")


def test_rounding_equals_the_runtimes_to_the_last_bit():
    x = (np.random.default_rng(1).normal(size=10_000) * 3).astype(np.float32)
    parameters = from_range(Range(low=-4.0, high=5.0), np.uint8)
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])],
        [helper.make_tensor_value_info("q", TensorProto.UINT8, None)],
        [
            helper.make_tensor("s", TensorProto.FLOAT, [], [float(parameters.scale)]),
            helper.make_tensor("z", TensorProto.UINT8, [], [int(parameters.zero_point)]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(quantize(x, parameters), session.run(None, {"x": x})[0])

"""Channel axes by operator, and slices that change nothing."""

import numpy as np
import pytest

from compression.quantization import weights
from compression.quantization.affine import quantize, sqnr_db, symmetric
from compression.quantization.weights import channel_axes, guess_axes, quantize_weight


@pytest.mark.parametrize(
    ("op_type", "index", "shape", "attributes", "axes"),
    [
        ("Conv", 1, (8, 4, 3, 3), {}, (0,)),
        ("ConvTranspose", 1, (8, 4, 3, 3), {}, (1,)),
        ("ConvTranspose", 1, (8, 1, 3, 3), {"group": 8}, (0,)),
        ("Gemm", 1, (5, 7), {}, (1,)),
        ("Gemm", 1, (5, 7), {"transB": 1}, (0,)),
        ("Gemm", 0, (5, 7), {}, (0,)),
        ("Gemm", 0, (5, 7), {"transA": 1}, (1,)),
        ("MatMul", 1, (5, 7), {}, (1,)),
        ("MatMul", 0, (5, 7), {}, (0,)),
        ("MatMul", 1, (2, 5, 7), {}, (0, 2)),
        ("LSTM", 1, (2, 16, 5), {}, (0, 1)),
        ("Gather", 0, (100, 8), {}, (0,)),
        ("Gather", 0, (100, 8), {"axis": -1}, (1,)),
        ("MatMul", 1, (5,), {}, ()),
        ("Attention", 1, (5, 7), {}, None),
    ],
)
def test_channels_by_operator(op_type, index, shape, attributes, axes):
    assert channel_axes(op_type, index, shape, attributes) == axes


@pytest.mark.parametrize("axes", [(), (0,), (1,), (0, 1), (0, 2)])
@pytest.mark.parametrize("bits", [7, 8, 16])
def test_slices_give_what_the_whole_gives(axes, bits, monkeypatch):
    weight = np.random.default_rng(0).normal(size=(13, 6, 5)).astype(np.float32)
    whole = quantize(weight, symmetric(weight, axes, bits=bits))
    monkeypatch.setattr(weights, "_SLICE_ELEMENTS", 60)
    made = quantize_weight(weight, axes, bits=bits)
    np.testing.assert_array_equal(made.integers, whole)
    assert np.abs(made.integers).max() == 2 ** (bits - 1) - 1
    back = made.integers.astype(np.float32) * made.parameters.scale
    assert made.sqnr_db == pytest.approx(sqnr_db(weight, back), abs=1e-3)


def test_the_least_scale_is_kept():
    weight = np.array([[1e-9, 1e-9], [1.0, -1.0]], np.float32)
    made = quantize_weight(weight, (0,), floor=np.array([0.5, 0.0]))
    assert made.parameters.scale.reshape(-1).tolist() == pytest.approx([0.5, 1 / 127])


def test_the_axis_is_guessed_by_the_error():
    rng = np.random.default_rng(0)
    weight = (rng.normal(size=(64, 64)) * np.logspace(-3, 0, 64)).astype(np.float32)
    assert guess_axes(weight) == (1,)
    assert guess_axes(weight.T.copy()) == (0,)

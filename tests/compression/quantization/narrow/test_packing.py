"""Bits in bytes: against numpy by hand, and against what onnxruntime makes of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper

from compression.quantization.narrow.packing import PLANES, pack, plane_bytes, unpack
from tests.compression.quantization.narrow.single import answer


@given(
    bits=st.integers(1, 8),
    codes=arrays.arrays(np.uint8, st.integers(0, 70), elements=st.integers(0, 255), fill=st.nothing()),
)
def test_what_is_packed_comes_back(bits, codes):
    codes = codes & np.uint8(2**bits - 1)
    planes = pack(codes, bits)
    np.testing.assert_array_equal(unpack(planes, bits, codes.size), codes)
    assert sum(plane.size for plane in planes) == plane_bytes(codes.size, bits)


def test_planes_add_up_to_their_width():
    assert all(sum(widths) == bits for bits, widths in PLANES.items())


def test_the_first_code_lies_in_the_lowest_bits():
    assert pack(np.array([0x1, 0x2, 0x3]), 4)[0].tolist() == [0x21, 0x03]
    assert pack(np.array([1, 2, 3, 0, 2]), 2)[0].tolist() == [0b00111001, 0b10]
    low, high = pack(np.array([0b101, 0b010, 0b111]), 3)
    assert low.tolist() == [0b111001] and high.tolist() == [0b101]


@pytest.mark.parametrize("bits", range(2, 8))
def test_a_code_that_does_not_fit_is_refused(bits):
    with pytest.raises(ValueError, match="does not fit"):
        pack(np.array([2**bits]), bits)


@pytest.mark.parametrize(("kind", "low"), [(TensorProto.UINT4, 0), (TensorProto.INT4, -8)])
def test_four_bits_are_onnxs_own(kind, low):
    """onnxruntime's Cast of an (U)INT4 tensor made of our bytes."""
    codes = np.arange(16, dtype=np.uint8)
    raw = pack((codes.astype(int) + low) & 15, 4)[0].tobytes()
    tensor = helper.make_tensor("q", kind, [16], raw, raw=True)
    node = helper.make_node("Cast", ["q"], ["y"], to=TensorProto.FLOAT)
    np.testing.assert_array_equal(answer([node], [tensor], {}, [16]), codes.astype(float) + low)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_bytes_are_those_matmul_nbits_reads(bits):
    """Rows of an identity bring out the weights that onnxruntime sees, with zero points by row of bytes."""
    rng = np.random.default_rng(bits)
    rows, blocks, size = 6, 3, 16
    codes = rng.integers(0, 2**bits, (rows, blocks, size))
    zeros = rng.integers(0, 2**bits, (rows, blocks))
    scale = rng.random((rows, blocks)).astype(np.float32)
    spare = -blocks % (8 // bits)
    packed = pack(np.pad(zeros, ((0, 0), (0, spare))), bits)[0].reshape(rows, -1)
    stored = [
        numpy_helper.from_array(pack(codes, bits)[0].reshape(rows, blocks, -1), "q"),
        numpy_helper.from_array(scale, "s"),
        numpy_helper.from_array(packed, "z"),
    ]
    node = helper.make_node(
        "MatMulNBits",
        ["x", "q", "s", "z"],
        ["y"],
        domain="com.microsoft",
        K=48,
        N=rows,
        bits=bits,
        block_size=size,
    )
    seen = answer([node], stored, {"x": np.eye(48, dtype=np.float32)}, [48, rows])
    expected = ((codes - zeros[:, :, None]).astype(np.float32) * scale[:, :, None]).reshape(rows, 48)
    np.testing.assert_allclose(seen.T, expected, rtol=1e-6)

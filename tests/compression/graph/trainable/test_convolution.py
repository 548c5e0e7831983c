"""Convolutions compute what onnxruntime does."""

from itertools import product

import numpy as np
import pytest
import torch

from tests.compression.graph.trainable.operators import Node, compare, compute, random


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_convolution_pads_by_itself(group, axes):
    for auto_pad, stride, kernel in product(("SAME_UPPER", "SAME_LOWER", "VALID"), (1, 2, 3), (2, 3)):
        inputs = [random(2, 4, *(7, 8, 5)[:axes]), random(8, 4 // group, *[kernel] * axes), random(8)]
        assert not compare("Conv", inputs, auto_pad=auto_pad, strides=[stride] * axes, group=group)


@pytest.mark.parametrize("group", [1, 4])
def test_convolution_takes_dilations_and_uneven_pads(group):
    for stride, dilation in product((1, 2), (1, 2)):
        options = {"strides": [stride] * 2, "dilations": [dilation, 1], "pads": [1, 0, 2, 3], "group": group}
        assert not compare("Conv", [random(2, 4, 7, 8), random(4, 4 // group, 3, 2)], **options)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_a_dilated_depthwise_convolution_keeps_the_size(mode):
    """onnxruntime refuses this; padded by hand it is the same convolution."""
    x, w = torch.tensor(random(1, 4, 7, 8)), torch.tensor(random(4, 1, 2, 3))
    options = {"dilations": (3, 2), "strides": (2, 1), "group": 4}
    padded = Node(op_type="Conv", opset=22, attributes={"auto_pad": mode, **options})
    head, tail = (1, 2) if mode == "SAME_UPPER" else (2, 1)
    by_hand = Node(op_type="Conv", opset=22, attributes={"pads": (head, 2, tail, 2), **options})
    assert compute(padded, x, w)[0].shape == (1, 4, 4, 8)
    assert torch.equal(compute(padded, x, w)[0], compute(by_hand, x, w)[0])


@pytest.mark.parametrize("group", [1, 2, 4])
def test_transposed_convolution_cuts_and_adds(group):
    w, bias = random(4, 2, 3, 2), random(2 * group)
    for stride, dilation in product((1, 2, 3), (1, 2)):
        options = {"strides": [stride] * 2, "dilations": [dilation] * 2, "group": group}
        for pads in ([0, 0, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]):
            assert not compare("ConvTranspose", [random(2, 4, 5, 6), w, bias], pads=pads, **options)
        if stride > 1:
            more = {"output_padding": [1, 1], "pads": [0, 1, 1, 0]}
            assert not compare("ConvTranspose", [random(2, 4, 5, 6), w], **more, **options)


@pytest.mark.parametrize("mode", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
def test_transposed_convolution_reaches_a_given_size(mode):
    inputs = [random(2, 4, 5, 6), random(4, 3, 3, 4)]
    assert not compare("ConvTranspose", inputs, strides=[2, 2], output_shape=[10, 13], auto_pad=mode)
    if mode != "NOTSET":
        assert not compare("ConvTranspose", inputs, strides=[2, 3], auto_pad=mode)


@pytest.mark.parametrize(
    ("activation", "settings"),
    [("Relu", []), ("LeakyRelu", [0.2]), ("Clip", [-0.3, 0.4]), ("HardSigmoid", [0.3, 0.4])],
)
def test_convolution_with_an_activation(activation, settings):
    inputs = [random(1, 3, 5, 5), random(4, 3, 3, 3), random(4)]
    options = {"activation": activation} | ({"activation_params": settings} if settings else {})
    assert not compare("FusedConv", inputs, domain="com.microsoft", **options)


def integers(*shape, high=100, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, high, shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_convolution_of_integers(dtype):
    x, w = integers(1, 4, 6, 6), integers(4, 2, 3, 3, dtype=dtype)
    options = {"pads": [1] * 4, "group": 2}
    assert not compare("ConvInteger", [x, w, np.uint8(3), dtype(5)], **options)
    settings = [np.float32(0.02), np.uint8(3), w, np.abs(random(4)) + 1, np.zeros(4, dtype)]
    bias = integers(4, dtype=np.int32)
    assert not compare("QLinearConv", [x, *settings, np.float32(9), np.uint8(99), bias], **options)


@pytest.mark.parametrize("activation", ["Relu", "Tanh"])
def test_a_product_with_an_activation(activation):
    inputs = [random(3, 4), random(5, 4), random(5)]
    options = {"transB": 1, "alpha": 0.5, "activation": activation, "domain": "com.microsoft"}
    assert not compare("FusedGemm", inputs, **options)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("parts", [1, 2])
def test_deformable_convolution(parts, masked):
    for stride, dilation, group in product((1, 2), (1, 2), (1, 2)):
        rows, columns = (8 - 2 * dilation) // stride + 1, (9 - dilation) // stride + 1
        inputs = [random(2, 4, 7, 8), random(6, 4 // group, 3, 2), random(2, parts * 12, rows, columns)]
        inputs += [random(6), random(2, parts * 6, rows, columns)] if masked else []
        options = {"strides": [stride] * 2, "dilations": [dilation] * 2, "group": group, "pads": [1] * 4}
        assert not compare("DeformConv", inputs, opset=22, offset_group=parts, **options)

"""Poolings compute what onnxruntime does."""

from itertools import product

import numpy as np
import pytest

from tests.compression.graph.trainable.operators import compare, random


@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool", "LpPool"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_pooling(operator, axes):
    x = random(2, 3, *(7, 8, 9)[:axes])
    extra = {
        "MaxPool": [{"storage_order": 0}, {"storage_order": 1}],
        "AveragePool": [{"count_include_pad": 0}, {"count_include_pad": 1}],
        "LpPool": [{"p": 1}, {"p": 3}],
    }[operator]
    uneven, even = {"pads": [1, 0, 1][:axes] + [1, 1, 0][:axes]}, {"pads": [1] * 2 * axes}
    modes = [uneven, even, {"auto_pad": "SAME_LOWER"}, {"auto_pad": "VALID"}]
    for pads, stride, kernel, ceil, more in product(modes, (1, 3), (2, 3), (0, 1), extra):
        options = {"strides": [stride] * axes, "kernel_shape": [kernel] * axes, "ceil_mode": ceil}
        outputs = 2 if operator == "MaxPool" else 1
        assert not compare(operator, [x], outputs=outputs, **pads, **options, **more)
        if "auto_pad" not in pads:
            dilated = {"dilations": [2] * axes, **options}
            assert not compare(operator, [x], outputs=outputs, **pads, **dilated, **more)


def test_pooling_of_boxes():
    boxes = np.array([[0, 0, 0, 4, 5], [1, 2, 1, 7, 6], [0, 3, 3, 3, 3], [1, 5, 5, 9, 9]], np.float32)
    for scale, shape in product((1.0, 0.5), ([2, 3], [1, 1], [3, 2])):
        options = {"spatial_scale": scale, "pooled_shape": shape}
        assert not compare("MaxRoiPool", [random(2, 3, 7, 8), boxes], **options)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_pooling_of_integers(dtype):
    x = np.random.default_rng(0).integers(0, 100, (1, 2, 6, 6)).astype(dtype)
    options = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 0, 0, 1], "ceil_mode": 1}
    assert not compare("MaxPool", [x], **options)


def test_unpooling():
    inputs = [random(1, 1, 2, 2), np.array([[[[5, 7], [13, 15]]]])]
    assert not compare("MaxUnpool", inputs, kernel_shape=[2, 2], strides=[2, 2])

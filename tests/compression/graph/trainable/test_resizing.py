"""Resizing, padding and sampling compute what onnxruntime does, with right gradients."""

from itertools import product

import numpy as np
import pytest
import torch

from tests.compression.graph.trainable.operators import Node, compare, compute, random

COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize")
FACTORS = ((2, 2), (2, 3), (1.5, 0.7), (0.5, 0.5), (0.6, 2.3))


def region(coordinates):
    return np.array([0, 0, 0.1, 0.2, 1, 1, 0.9, 1.1], np.float32) if coordinates.startswith("tf") else None


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize(mode, coordinates):
    x, roi = random(1, 2, 5, 6), region(coordinates)
    roundings = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil") if mode == "nearest" else (None,)
    options = {"mode": mode, "coordinate_transformation_mode": coordinates, "extrapolation_value": 7.0}
    for rounding in roundings:
        given = options | ({"nearest_mode": rounding} if rounding else {})
        for opset, factors in product((11, 13, 19), FACTORS):
            scales = np.array([1, 1, *factors], np.float32)
            full = np.array([0, 0, 0, 0, 1, 1, 1, 1], np.float32) if roi is None and opset == 11 else roi
            assert not compare("Resize", [x, full, scales], opset=opset, **given)
        for sizes in ((10, 12), (3, 4), (7, 13), (1, 1)):
            inputs = [x, roi, None, np.array([1, 2, *sizes])]
            assert not compare("Resize", inputs, opset=19, **given)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_resize_weighs_all_that_it_skips(mode):
    for factors, outside in product(FACTORS, (0, 1) if mode == "cubic" else (0,)):
        scales = np.array(factors, np.float32)
        options = {"antialias": 1, "axes": [2, 3], "mode": mode, "exclude_outside": outside}
        assert not compare("Resize", [random(1, 2, 9, 8), None, scales], opset=19, **options)


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
def test_resize_keeps_the_shape_of_things(policy):
    inputs = [random(1, 2, 5, 6), None, None, np.array([8, 9])]
    options = {"axes": [2, 3], "keep_aspect_ratio_policy": policy, "mode": "linear"}
    assert not compare("Resize", inputs, opset=19, **options)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_upsample_and_the_first_resize(mode):
    x, scales = random(1, 2, 5, 6), np.array([1, 1, 2, 2.6], np.float32)
    assert not compare("Resize", [x, scales], opset=10, mode=mode)
    assert not compare("Upsample", [x, scales], opset=9, mode=mode)
    assert not compare("Upsample", [x], opset=7, mode=mode, scales=scales.tolist())


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_pad(mode):
    x = random(1, 2, 5, 6)
    for pads in ([0, 0, 1, 2, 0, 0, 2, 1], [0, 0, 3, 4, 0, 0, 4, 5], [0, 1, -1, 1, 0, 0, 1, -2]):
        assert not compare("Pad", [x, np.array(pads)], opset=19, mode=mode) or mode == "reflect"
    pads, axes = np.array([2, 1, 1, 1]), np.array([-1, 1])
    for dtype in (np.float32, np.int32, np.bool_):
        assert not compare("Pad", [x.astype(dtype), pads, None, axes], opset=19, mode=mode)


@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_grid_sample(padding, corners):
    grid = np.random.default_rng(0).uniform(-1.4, 1.4, (1, 4, 5, 2)).astype(np.float32)
    options = {"padding_mode": padding, "align_corners": corners}
    for old, new in (("bilinear", "linear"), ("nearest", "nearest"), ("bicubic", "cubic")):
        assert not compare("GridSample", [random(1, 2, 5, 6), grid], opset=16, mode=old, **options)
        assert not compare("GridSample", [random(1, 2, 5, 6), grid], opset=20, mode=new, **options)


@pytest.mark.parametrize(
    ("mode", "factors"),
    [("cubic", (0.7, 1.6)), ("linear", (0.7, 1.6)), ("nearest", (2, 2)), ("linear", (2, 2))],
)
def test_gradients(mode, factors):
    options = {"mode": mode, "nearest_mode": "floor"}
    node = Node(op_type="Resize", opset=19, attributes=options)
    scales = torch.tensor([1.0, 1.0, *factors])
    x = torch.tensor(random(1, 1, 4, 5, dtype=np.float64), requires_grad=True)
    assert torch.autograd.gradcheck(lambda given: compute(node, given, None, scales)[0], x)


@pytest.mark.parametrize("corners", [0, 1])
def test_affine_grid(corners):
    for theta, size in ((random(4, 2, 3), [4, 3, 5, 6]), (random(2, 3, 4), [2, 1, 3, 4, 5])):
        assert not compare("AffineGrid", [theta, np.array(size)], opset=20, align_corners=corners)

"""Neural operators by ONNX's own cases, and their gradients by finite differences in float64."""

import numpy as np
import pytest

from tests.compression.graph.trainable.operators import gradients_right, node_cases, random, run_case

FOLLOWS_ONNXRUNTIME = {
    "test_resize_downsample_scales_linear_align_corners",
    "test_resize_downsample_scales_cubic_align_corners",
}
"""Where a size is no whole number, the cases divide by it; the operator's text and onnxruntime round it first."""
UNKNOWN = {"test_quantizelinear_float4e2m1"}


@pytest.mark.slow
def test_onnx_own_cases():
    """The same cases as in test_node_cases, straight through the operator functions."""
    cases = {name: case for name, case in node_cases().items() if name not in FOLLOWS_ONNXRUNTIME | UNKNOWN}
    wrong = {name: run_case(case) for name, case in cases.items()}
    assert len(cases) > 350
    assert not {name: problem for name, problem in wrong.items() if problem}


def double(*shape, seed=0):
    return random(*shape, seed=seed, dtype=np.float64)


@pytest.mark.parametrize(
    ("operator", "inputs", "options"),
    [
        ("Conv", [double(1, 2, 5), double(2, 1, 3), double(2)], {"auto_pad": "SAME_LOWER", "group": 2}),
        ("ConvTranspose", [double(1, 2, 4), double(2, 2, 3)], {"strides": (2,), "pads": (0, 1)}),
        ("DeformConv", [double(1, 2, 4, 4), double(2, 2, 2, 2), 0.3 * double(1, 8, 3, 3)], {}),
        ("MaxPool", [double(1, 1, 6, 5)], {"kernel_shape": (2, 3), "pads": (0, 1, 1, 0), "ceil_mode": 1}),
        ("AveragePool", [double(1, 1, 6)], {"kernel_shape": (3,), "strides": (2,), "dilations": (2,)}),
        ("LpPool", [double(1, 1, 6)], {"kernel_shape": (2,), "p": 3}),
        ("BatchNormalization", [double(3, 2, 2), double(2), double(2)], {"training_mode": 1}),
        ("GroupNormalization", [double(2, 4, 3), double(4), double(4)], {"num_groups": 2}),
        ("LayerNormalization", [double(2, 4), double(4), double(4)], {}),
        ("RMSNormalization", [double(2, 4), double(4)], {}),
        ("LpNormalization", [double(2, 4)], {"p": 1}),
        ("MeanVarianceNormalization", [double(2, 2, 2, 3)], {}),
        ("LRN", [double(1, 5, 2, 2)], {"size": 3, "alpha": 0.5}),
        ("Pad", [double(1, 4), np.array([0, 2, 0, 3])], {"mode": "reflect"}),
        ("Attention", [double(1, 2, 3, 4), double(1, 1, 3, 4), double(1, 1, 3, 4)], {"is_causal": 1}),
        ("Attention", [double(1, 2, 3, 4), double(1, 2, 3, 4), double(1, 2, 3, 4)], {"softcap": 1.5}),
    ],
)
def test_gradients(operator, inputs, options):
    if operator == "BatchNormalization":
        inputs = [*inputs, double(2), np.abs(double(2))]
    assert gradients_right(operator, inputs, **options)

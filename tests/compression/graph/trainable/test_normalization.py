"""Normalizations compute what onnxruntime does, and train as in torch."""

import numpy as np
import pytest
import torch

from tests.compression.graph.trainable.operators import Node, compare, compute, random


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5), (2, 3, 4, 5), (2, 3, 2, 3, 2)])
def test_batch_normalization(shape):
    inputs = [random(*shape), random(3), random(3, seed=1), random(3, seed=2), np.abs(random(3))]
    for opset in (7, 9, 14, 15):
        assert not compare("BatchNormalization", inputs, opset=opset, epsilon=1e-3)
    if len(shape) > 2:
        options = {"training_mode": 1, "momentum": 0.8}
        assert not compare("BatchNormalization", inputs, opset=15, outputs=3, **options)


def test_batch_normalization_of_every_entry():
    own = [random(3, 4, 5, seed=seed) for seed in range(3)]
    inputs = [random(2, 3, 4, 5), *own, np.abs(random(3, 4, 5))]
    assert not compare("BatchNormalization", inputs, opset=7, spatial=0)


def test_training_moves_the_running_statistics_as_torch_does():
    node = Node(op_type="BatchNormalization", opset=15, attributes={"momentum": 0.8}, training=True)
    x, scale, bias = torch.tensor(random(6, 3, 4)), torch.ones(3), torch.zeros(3)
    reference = torch.nn.BatchNorm1d(3, momentum=0.2)
    mean, var = torch.zeros(3), torch.ones(3)
    (y,) = compute(node, x, scale, bias, mean, var)
    torch.testing.assert_close(y, reference(x))
    torch.testing.assert_close(mean, reference.running_mean)
    torch.testing.assert_close(var, reference.running_var)
    (alone,) = compute(node, x[:1, :, 0], scale, bias, mean, var)
    frozen = (x[:1, :, 0] - mean) / torch.sqrt(var + 1e-5)
    torch.testing.assert_close(alone, frozen)


def test_normalizations():
    x = random(2, 6, 3, 4)
    assert not compare("InstanceNormalization", [x, random(6), random(6)], epsilon=1e-3)
    for groups in (1, 2, 6):
        assert not compare("GroupNormalization", [x, random(6), random(6)], num_groups=groups)
        scales = [random(groups), random(groups, seed=1)]
        assert not compare("GroupNormalization", [x, *scales], opset=18, num_groups=groups)
    for axis in (-1, 1, 2):
        shape = x.shape[axis:]
        inputs = [x, random(*shape), random(*shape, seed=1)]
        assert not compare("LayerNormalization", inputs, opset=17, axis=axis, outputs=3)
        assert not compare("LayerNormalization", [x, random(4), random(4)], opset=17, axis=axis)
        assert not compare("RMSNormalization", inputs[:2], opset=23, axis=axis)
        for p in (1, 2):
            assert not compare("LpNormalization", [x], axis=axis, p=p)
    for axes in ([0, 2, 3], [2, 3]):
        assert not compare("MeanVarianceNormalization", [x], axes=axes)
    assert not compare("LRN", [x], size=3, alpha=0.1, beta=0.6, bias=1.5)


@pytest.mark.parametrize("added", [False, True])
def test_normalizations_of_a_sum(added):
    x, skip, bias = random(2, 5, 8), random(2, 5, 8, seed=1), random(8, seed=2) if added else None
    for shift in (None, random(8, seed=3)):
        inputs = [x, skip, random(8), shift, bias]
        assert not compare("SkipLayerNormalization", inputs, domain="com.microsoft", epsilon=1e-5)
    inputs = [x, skip, random(8), bias]
    assert not compare("SkipSimplifiedLayerNormalization", inputs, domain="com.microsoft")


@pytest.mark.parametrize("given", [False, True])
def test_embeddings_normalized(given):
    words, segments = np.array([[1, 4, 2], [0, 3, 3]], np.int32), np.array([[0, 0, 1], [1, 0, 0]], np.int32)
    tables = [random(5, 8), random(4, 8), random(2, 8) if given else None]
    positions = np.array([[2, 1, 0], [1, 1, 3]], np.int32) if given else None
    mask = np.array([[1, 1, 0], [1, 1, 1]], np.int32)
    inputs = [words, segments if given else None, *tables, random(8), random(8, seed=1), mask, positions]
    while inputs[-1] is None:
        inputs.pop()
    assert not compare("EmbedLayerNormalization", inputs, outputs=2, domain="com.microsoft", epsilon=1e-5)


@pytest.mark.parametrize("last", [0, 1])
def test_groups_with_channels_last_and_something_added(last):
    """onnxruntime has these on GPUs only, so they are held to torch's own group norm."""
    x, skip = torch.tensor(random(2, 6, 3, 4)), torch.tensor(random(2, 6, 3, 4, seed=1))
    scale, bias, added = (torch.tensor(random(6, seed=seed)) for seed in range(3))
    turned = [item.movedim(1, -1) if last else item for item in (x, skip)]
    attributes = {"groups": 3, "activation": 1, "channels_last": last}
    plain = Node(op_type="GroupNorm", domain="com.microsoft", opset=1, attributes=attributes)
    (y,) = compute(plain, turned[0], scale, bias)
    wanted = torch.nn.functional.silu(torch.nn.functional.group_norm(x, 3, scale, bias))
    torch.testing.assert_close(y.movedim(-1, 1) if last else y, wanted)
    node = Node(op_type="SkipGroupNorm", domain="com.microsoft", opset=1, attributes=attributes, outputs=2)
    shaped = added if last else added.reshape(6, 1, 1)
    y, total = compute(node, turned[0], scale, bias, turned[1], shaped)
    wanted = x + skip + added.reshape(6, 1, 1)
    torch.testing.assert_close(total.movedim(-1, 1) if last else total, wanted)

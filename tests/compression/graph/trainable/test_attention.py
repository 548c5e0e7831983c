"""Attention and rotary embeddings compute what onnxruntime does."""

import numpy as np
import pytest

from tests.compression.graph.trainable.operators import compare, random

HEADS, ENTRIES, WIDTH = 4, 6, 24


@pytest.mark.parametrize("opset", [23, 24])
@pytest.mark.parametrize("options", [{}, {"is_causal": 1}, {"softcap": 2.0}, {"scale": 0.3}])
def test_attention(opset, options):
    shared = [random(2, 2, 7, ENTRIES, seed=seed) for seed in range(2)]
    inputs = [random(2, HEADS, 5, ENTRIES), *shared]
    past = [random(2, 2, 3, ENTRIES, seed=seed) for seed in range(2)]
    allowed = np.random.default_rng(0).random((2, 1, 5, 7)) > 0.4
    for mask in ([], [random(5, 7)], [allowed]):
        assert not compare("Attention", inputs + mask, opset=opset, **options)
    assert not compare("Attention", [*inputs, None, *past], opset=opset, outputs=3, **options)


@pytest.mark.parametrize("causal", [0, 1])
def test_multi_head_attention(causal):
    options = {"num_heads": HEADS, "unidirectional": causal, "domain": "com.microsoft"}
    inputs = [random(2, 5, WIDTH, seed=seed) for seed in range(3)]
    padding = np.array([[1, 1, 1, 0, 0], [1] * 5], np.int32)
    past = [random(2, HEADS, 3, ENTRIES, seed=seed) for seed in range(2)]
    extras = [[random(3 * WIDTH)], [None, padding], [None, np.array([3, 5], np.int32)]]
    for extra in ([], *extras, [None, None, random(1, HEADS, 5, 5)]):
        assert not compare("MultiHeadAttention", inputs + extra, **options)
    assert not compare("MultiHeadAttention", [*inputs, None, None, None, *past], outputs=3, **options)


@pytest.mark.parametrize("causal", [0, 1])
def test_attention_with_projections(causal):
    options = {"num_heads": HEADS, "unidirectional": causal, "domain": "com.microsoft"}
    inputs = [random(2, 5, 8), random(8, 3 * WIDTH), random(3 * WIDTH)]
    masks = ([3, 5], [4, 5, 1, 0], [[1, 1, 1, 0, 0], [1] * 5])
    for extra in ([], *([np.array(mask, np.int32)] for mask in masks), [None, None, random(2, HEADS, 5, 5)]):
        assert not compare("Attention", inputs + extra, **options)
    past = random(2, 2, HEADS, 3, ENTRIES)
    assert not compare("Attention", [*inputs, None, past], outputs=2, **options)


@pytest.mark.parametrize(
    "options", [{}, {"local_window_size": 2}, {"softcap": 3.0}, {"smooth_softmax": 1}, {"scale": 0.2}]
)
def test_group_query_attention(options):
    size = {"num_heads": HEADS, "kv_num_heads": 2, "domain": "com.microsoft", "outputs": 3}
    shared = [random(2, 5, 2 * 16, seed=seed) for seed in range(2)]
    counts = [np.array([4, 4], np.int32), np.array(5, np.int32)]
    inputs = [random(2, 5, HEADS * 16), *shared, None, None, *counts]
    assert not compare("GroupQueryAttention", inputs, **size, **options)
    angles = [random(20, 8), random(20, 8, seed=1)]
    for interleaved in (0, 1):
        turned = {"do_rotary": 1, "rotary_interleaved": interleaved}
        assert not compare("GroupQueryAttention", inputs + angles, **turned, **size, **options)
    past = [random(2, 2, 4, 16, seed=seed) for seed in range(2)]
    one = [item[:, :1] for item in inputs[:3]]
    assert not compare("GroupQueryAttention", [*one, *past, *counts, *angles], do_rotary=1, **size, **options)


@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotary_embedding_of_onnxruntime(interleaved):
    options = {"interleaved": interleaved, "domain": "com.microsoft"}
    angles = [random(20, 8), random(20, 8, seed=1)]
    for positions in (np.array([2]), np.arange(10).reshape(2, 5)):
        for shape in ((2, 5, 64), (2, 4, 5, 16)):
            assert not compare("RotaryEmbedding", [random(*shape), positions, *angles], **options)

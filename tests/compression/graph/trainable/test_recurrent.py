"""Recurrent layers compute what onnxruntime does, with right gradients."""

from itertools import product

import numpy as np
import pytest
import torch

from tests.compression.graph.trainable.operators import Node, compare, compute, gradients_right, random

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
STEPS, BATCH, INPUTS, HIDDEN = 5, 3, 4, 6


def parameters(operator, ways, *, bias=True, lengths=None, initial=True, peepholes=False):
    rows = GATES[operator] * HIDDEN
    inputs = [random(STEPS, BATCH, INPUTS), random(ways, rows, INPUTS), random(ways, rows, HIDDEN)]
    inputs.append(random(ways, 2 * rows) if bias else None)
    inputs.append(None if lengths is None else np.array(lengths, np.int32))
    inputs.append(random(ways, BATCH, HIDDEN) if initial else None)
    if operator == "LSTM":
        inputs.append(random(ways, BATCH, HIDDEN, seed=1) if initial else None)
        inputs.append(random(ways, 3 * HIDDEN) if peepholes else None)
    while inputs[-1] is None:
        inputs.pop()
    return inputs


def recurrent_outputs(operator):
    return 3 if operator == "LSTM" else 2


@pytest.mark.parametrize("operator", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_recurrent(operator, direction):
    ways = 2 if direction == "bidirectional" else 1
    options = {"hidden_size": HIDDEN, "direction": direction, "outputs": recurrent_outputs(operator)}
    variants = {
        "LSTM": [{}, {"input_forget": 1}],
        "GRU": [{"linear_before_reset": 0}, {"linear_before_reset": 1}],
        "RNN": [{}, {"activations": ["Relu"] * ways}, {"activations": ["Sigmoid"] * ways}],
    }[operator]
    lengths = (None, [5, 3, 1], [2, 5, 4], [0, 3, 5])
    for variant, counts, clip in product(variants, lengths, (0.0, 0.3)):
        clipped = {"clip": clip} if clip else {}
        inputs = parameters(operator, ways, bias=counts is not None, initial=not clip, lengths=counts)
        assert not compare(operator, inputs, **variant, **clipped, **options)


def test_lstm_with_peepholes():
    inputs = parameters("LSTM", 2, lengths=[4, 5, 2], peepholes=True)
    assert not compare("LSTM", inputs, hidden_size=HIDDEN, direction="bidirectional", outputs=3)


@pytest.mark.parametrize(
    ("operator", "names", "alphas", "betas"),
    [
        ("LSTM", ["HardSigmoid", "Softsign", "Affine"], [0.3, 0.7], [0.4, 0.1]),
        ("GRU", ["HardSigmoid", "ScaledTanh"], [0.3, 1.5], [0.4, 0.6]),
        ("RNN", ["LeakyRelu"], [0.2], [0.0]),
        ("RNN", ["Elu"], [0.5], [0.0]),
    ],
)
def test_recurrent_with_other_activations(operator, names, alphas, betas):
    options = {"activations": names, "activation_alpha": alphas, "activation_beta": betas}
    outputs = recurrent_outputs(operator)
    assert not compare(operator, parameters(operator, 1), hidden_size=HIDDEN, outputs=outputs, **options)


@pytest.mark.parametrize("operator", GATES)
def test_batch_first_is_the_same_turned_round(operator):
    """onnxruntime has no layout 1, so it is held to layout 0."""
    x, w, r, b, lengths, *initial = (
        torch.tensor(item) for item in parameters(operator, 2, lengths=[5, 2, 3])
    )
    options = {"direction": "bidirectional", "hidden_size": HIDDEN}
    outputs = recurrent_outputs(operator)
    plain = Node(op_type=operator, opset=22, attributes=options, outputs=outputs)
    turned = Node(op_type=operator, opset=22, attributes={"layout": 1, **options}, outputs=outputs)
    y, *last = compute(plain, x, w, r, b, lengths, *initial)
    first = [item.transpose(0, 1) for item in (x, *initial)]
    other, *other_last = compute(turned, first[0], w, r, b, lengths, *first[1:])
    torch.testing.assert_close(other, y.permute(2, 0, 1, 3))
    for ours, theirs in zip(last, other_last, strict=True):
        torch.testing.assert_close(theirs, ours.transpose(0, 1))


@pytest.mark.parametrize("operator", GATES)
@pytest.mark.parametrize("fused", [True, False])
def test_gradients_through_time(operator, fused):
    inputs = [
        None if item is None else item.astype(np.float64) if item.dtype == np.float32 else item
        for item in parameters(operator, 2, lengths=[4, 5, 2])
    ]
    options = {"direction": "bidirectional", "hidden_size": HIDDEN, "linear_before_reset": int(fused)}
    options |= {} if fused else {"clip": 50.0}
    assert gradients_right(operator, inputs, outputs=recurrent_outputs(operator), **options)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_lstm_with_weights_of_8_bits(direction):
    """One sample: onnxruntime rounds a batch in parts; weights of 7 bits: others saturate on some processors."""
    ways = 2 if direction == "bidirectional" else 1
    rows, rng = 4 * HIDDEN, np.random.default_rng(0)
    weights = [rng.integers(-64, 64, (ways, width, rows)).astype(np.int8) for width in (INPUTS, HIDDEN)]
    scales = [np.full(ways, 0.01, np.float32), np.zeros(ways, np.int8)] * 2
    inputs = [random(STEPS, 1, INPUTS), *weights, random(ways, 2 * rows), None]
    inputs += [random(ways, 1, HIDDEN), random(ways, 1, HIDDEN, seed=1), None, *scales]
    options = {"hidden_size": HIDDEN, "direction": direction, "domain": "com.microsoft"}
    assert not compare("DynamicQuantizeLSTM", inputs, outputs=3, **options)

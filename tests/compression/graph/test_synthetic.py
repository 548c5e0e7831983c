"""Made-up inputs fit what the model declares, and the model runs on them."""

import numpy as np
import pytest

from compression.errors import DataMissing
from compression.graph import interface, load
from compression.graph.synthetic import synthesise
from compression.summary import TensorSummary
from tests.compression.graph.running import answers, random, write

HEADER = '<ir_version: 8, opset_import: ["" : 17]>\n'


def test_a_free_axis_gets_a_size_that_the_model_runs_with(tmp_path):
    text = "g (float[N,3,H,W] x) => (float[N,5] y) { f = Flatten(x) y = MatMul(f, w) }"
    path = write(tmp_path / "m.onnx", HEADER + text, w=random(3 * 224 * 224, 5))
    model = load(path)
    made = list(synthesise(interface(model)[0], 2, 7, model))
    assert [feeds["x"].shape for feeds in made] == [(1, 3, 224, 224)] * 2
    assert not np.array_equal(made[0]["x"], made[1]["x"])
    assert answers(path, made[0])["y"].shape == (1, 5)
    again = list(synthesise(interface(model)[0], 2, 7, model))
    np.testing.assert_array_equal(made[1]["x"], again[1]["x"])


def test_integers_index_and_masks_let_through():
    inputs = (
        TensorSummary(name="input_ids", dtype="int64", shape=("batch", "tokens")),
        TensorSummary(name="attention_mask", dtype="int64", shape=("batch", "tokens")),
        TensorSummary(name="length", dtype="int32", shape=("batch",)),
    )
    (feeds,) = synthesise(inputs, 1, 0, None)
    assert feeds["input_ids"].shape == feeds["attention_mask"].shape
    assert feeds["input_ids"].min() >= 0
    assert (feeds["attention_mask"] == 1).all()
    assert feeds["length"].tolist() == [feeds["input_ids"].shape[1]]


@pytest.mark.parametrize("dtype", ["str", "sequence(float32)"])
def test_what_cannot_be_made_up_is_missing(dtype):
    with pytest.raises(DataMissing, match="x"):
        next(synthesise((TensorSummary(name="x", dtype=dtype, shape=(1,)),), 1, 0, None))


def test_a_model_that_runs_with_no_guess_says_why(tmp_path):
    text = "g (float[N,K] x) => (float[N,5] y) { y = MatMul(x, w) }"
    model = load(write(tmp_path / "m.onnx", HEADER + text, w=random(77, 5)))
    with pytest.raises(DataMissing, match="MatMul"):
        next(synthesise(interface(model)[0], 1, 0, model))

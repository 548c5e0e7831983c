"""quantize_fixed_point and quantize_levels on models: what the file holds, and what it is said to be."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from compression.errors import NotApplicable
from compression.methods.quantize_fixed_point import QuantizeFixedPoint
from compression.methods.quantize_levels import QuantizeLevels
from compression.quantization.affine import sqnr_db
from compression.quantization.uniform.coding import fixed_point, levels
from tests.compression.quantization import graphs


def run(step, model, folder):
    outcome = step.apply(graphs.opened(model, folder), graphs.context(folder, model))
    return outcome, graphs.written(outcome.model, folder)


def answers(model, folder, path):
    given = graphs.feeds(model, 2, seed=3)
    return graphs.answers(folder / "original.onnx", given), graphs.answers(path, given)


def with_weights(model, change):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for stored in copy.graph.initializer:
        weight = numpy_helper.to_array(stored)
        if weight.ndim > 1:
            stored.CopyFrom(numpy_helper.from_array(change(weight).reshape(weight.shape), stored.name))
    return copy


STEPS = (
    *(
        (QuantizeFixedPoint(bits=bits), lambda w, bits=bits: fixed_point(w, bits).values())
        for bits in (3, 5, 8, 12)
    ),
    *(
        (QuantizeLevels(levels=n, signs=signs), lambda w, n=n, signs=signs: levels(w, n, signs).values())
        for n, signs in ((7, "kept"), (15, "offset"), (127, "kept"), (1000, "kept"))
    ),
)


@pytest.mark.parametrize(("step", "change"), STEPS, ids=lambda item: str(getattr(item, "method", "")))
def test_the_runtime_computes_with_exactly_these_weights(step, change, tmp_path):
    model = graphs.plain()
    outcome, path = run(step, model, tmp_path)
    (tmp_path / "expected").mkdir()
    expected = tmp_path / "expected" / "model.onnx"
    onnx.save(with_weights(model, change), expected)
    given = graphs.feeds(model, 2, seed=3)
    for made, wanted in zip(graphs.answers(path, given), graphs.answers(expected, given), strict=True):
        np.testing.assert_array_equal(made, wanted)
    assert path.stat().st_size < (tmp_path / "original.onnx").stat().st_size
    assert outcome.layers[0].changed and "faster" in outcome.notes[0]


@pytest.mark.parametrize(
    "name", sorted(graphs.ALL.keys() - {"depthwise"})
)  # whose weights are too few to gain
@pytest.mark.parametrize("step", [QuantizeFixedPoint(bits=8), QuantizeLevels(rounding="nearest")])
def test_every_model_comes_out_faithful(name, step, tmp_path):
    model = graphs.ALL[name]()
    _, path = run(step, model, tmp_path)
    before, after = answers(model, tmp_path, path)
    assert [item.dtype for item in before] == [item.dtype for item in after]
    assert min(sqnr_db(left, right) for left, right in zip(before, after, strict=True)) > 15


def test_too_few_bits_are_told(tmp_path):
    outcome, _ = run(QuantizeFixedPoint(bits=2), graphs.plain(), tmp_path)
    assert any("dB only" in note for note in outcome.notes)
    assert outcome.layers[0].numbers["sqnr_db"] < 10


def test_weights_beyond_the_range_are_counted(tmp_path):
    outcome, _ = run(QuantizeFixedPoint(bits=8, fraction_bits=10), graphs.plain(), tmp_path)
    assert outcome.details["saturated_weights"] > 0
    assert "do not fit" in outcome.layers[0].note


@pytest.mark.parametrize("step", [QuantizeFixedPoint(), QuantizeLevels()])
def test_nan_is_refused_by_name(step, tmp_path):
    model = with_weights(graphs.plain(), lambda weight: np.where(weight > 0.3, np.float32(np.nan), weight))
    with pytest.raises(NotApplicable, match="w"):
        step.apply(graphs.opened(model, tmp_path), graphs.context(tmp_path, graphs.plain()))

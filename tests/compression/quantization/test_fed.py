"""Scales as inputs give what scales as constants give."""

import numpy as np

from compression import runtime
from compression.graph import clean, layers, upgrade_opset
from compression.quantization.affine import Range, sqnr_db
from compression.quantization.qdq import MIN_OPSET
from compression.quantization.regions import ALL_GROUPS, find_region
from compression.quantization.static import StaticIntegers
from compression.quantization.target import TARGETS
from tests.compression.quantization import graphs


def test_fed_ranges_compute_as_written_ones(tmp_path):
    model = graphs.residual()
    prepared = clean(upgrade_opset(graphs.opened(model, tmp_path), MIN_OPSET))
    names = frozenset(layer.name for layer in layers(prepared))
    region = find_region(prepared.graph, names, ALL_GROUPS)
    ranges = {value.name: Range(low=-2.0, high=3.0) for value in region.touched}
    integers = StaticIntegers(ranges, TARGETS["cpu-vnni"])
    written, opened = prepared.clone(), prepared.clone()
    integers.write(written, names, ALL_GROUPS)
    fed = integers.feed(opened, names, ALL_GROUPS)
    assert set(fed.inputs) == {value.name for value in region.tensors}
    sample = graphs.feeds(model, seed=3)
    halved = {name: Range(low=-1.0, high=1.5) for name in ranges}
    answers = []
    for bounds in (ranges, halved):
        added = fed.feeds({name: fed.parameters(item) for name, item in bounds.items()})
        session = runtime.open_session(opened, device="cpu", threads=1)
        answers.append(runtime.run(session, {**sample, **added})["y"])
    constant = runtime.run(runtime.open_session(written, device="cpu", threads=1, optimize=False), sample)[
        "y"
    ]
    # All that differs is that biases are floats there and 32-bit integers here.
    assert sqnr_db(constant, answers[0]) > 40
    assert sqnr_db(constant, answers[1]) < 30
    assert np.isfinite(answers[1]).all()

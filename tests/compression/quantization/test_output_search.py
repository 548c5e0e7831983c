"""Ranges by the outputs: never worse than one rule for all on what they were searched on, and no slave to outliers."""

import itertools
from types import SimpleNamespace

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from compression.methods.quantize_static import QuantizeStatic
from compression.quantization.affine import sqnr_db
from compression.quantization.output_search import _energies
from tests.compression.quantization import graphs


def run(model, folder, **parameters):
    fields = {"method": "quantize_static", "placement": "all", "max_seconds": 20, **parameters}
    step = QuantizeStatic.model_validate(fields)
    outcome = step.apply(graphs.opened(model, folder), graphs.context(folder, model))
    return outcome, graphs.written(outcome.model, folder)


def unread_channel():
    """A product of which one input, a hundred times as large as the others, is multiplied by zeros."""
    scale = np.ones(64, np.float32)
    scale[5] = 100
    weight = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    weight[5] = 0
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["s"]),
        helper.make_node("MatMul", ["s", "w"], ["y"], name="m"),
    ]
    stored = [numpy_helper.from_array(scale, "scale"), numpy_helper.from_array(weight, "w")]
    values = [("x", TensorProto.FLOAT, ["n", 64])], [("y", TensorProto.FLOAT, ["n", 64])]
    return graphs.build(nodes, stored, *values)


def test_the_search_is_nearer_than_every_rule_for_all_tensors(tmp_path):
    outcome, _ = run(graphs.residual(), tmp_path, ranges="output_search")
    found = outcome.details
    assert found["decibels_after_search"] >= max(found["decibels_by_ranges"].values())
    assert found["ranges_started_from"] in found["decibels_by_ranges"]
    assert found["tensors_changed"] > 0 and found["trials"] > 6


def test_what_the_outputs_do_not_read_takes_no_steps(tmp_path):
    model, decibels = unread_channel(), {}
    for ranges in ("minmax", "mse", "output_search"):
        folder = tmp_path / ranges
        folder.mkdir()
        _, path = run(model, folder, ranges=ranges)
        given = graphs.feeds(model, 8, seed=3)
        before, after = (graphs.answers(file, given)[0] for file in (folder / "original.onnx", path))
        decibels[ranges] = sqnr_db(before, after)
    # The range of all values is about 70 times that of those that count, which costs 37 dB; a search gets back 10.
    assert decibels["output_search"] > max(decibels["minmax"], decibels["mse"]) + 10


def test_infinities_that_the_original_gives_too_are_no_noise():
    masked = np.array([1.0, -np.inf, 3.0], np.float32)
    assert _energies(masked, masked + np.float32(0.5)) == (10.0, 0.5)
    assert _energies(np.ones(3, np.float32), masked) == (0.0, np.inf)


def test_the_search_ends_when_its_time_is_up(tmp_path, monkeypatch):
    clock = itertools.count(step=0.3)
    monkeypatch.setattr(
        "compression.quantization.output_search.time", SimpleNamespace(monotonic=lambda: next(clock))
    )
    outcome, _ = run(graphs.residual(), tmp_path, ranges="output_search", max_seconds=2)
    assert outcome.details["trials"] == 0 and len(outcome.details["decibels_by_ranges"]) < 12

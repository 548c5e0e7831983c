"""Every rule on tensors whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from compression.quantization.affine import dequantize, from_range, quantize
from compression.quantization.ranges.error import Integers
from compression.quantization.ranges.rules import Rule, grid_candidates, grid_search, learn
from tests.compression.quantization.ranges.test_statistics import observed

RULES = ["minmax", "moving_average", "percentile", "entropy", "mse", "grid_search"]
UNSIGNED = Integers(dtype=np.uint8)
TYPES = [UNSIGNED, Integers(dtype=np.int8), Integers(dtype=np.int8, centred=True)]


def rule(ranges, integers=UNSIGNED, percentile=99.99):
    return Rule(ranges=ranges, integers=integers, percentile=percentile)


def error(values, bounds, integers):
    parameters = from_range(bounds, integers.dtype, centred=integers.centred)
    return float(np.mean((values - dequantize(quantize(values, parameters), parameters)) ** 2))


@pytest.mark.parametrize("integers", TYPES, ids=str)
@pytest.mark.parametrize("ranges", RULES)
@settings(max_examples=15)
@example(batches=[[2.000000238418579]])
@given(batches=st.lists(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=9), max_size=4))
def test_a_range_lies_within_the_extremes(ranges, integers, batches):
    found = learn(observed(batches, folds=2), rule(ranges, integers))
    values = np.concatenate([np.zeros(1), *(np.asarray(batch, np.float32) for batch in batches)])
    slack = 1e-6 * (values.max() - values.min())
    assert values.min() - slack <= found.low <= found.high <= values.max() + slack


@pytest.mark.parametrize("ranges", RULES)
@pytest.mark.parametrize("value", [0.0, -3.5, 7.0])
def test_a_constant_survives(ranges, value):
    found = learn(observed([np.full(5, value)] * 4, folds=2), rule(ranges))
    assert error(np.full(5, value, np.float32), found, UNSIGNED) <= (1e-3 * value) ** 2


def test_minmax_and_moving_average():
    seen = observed([[-1.0, 4.0], [-3.0, 2.0]])
    assert (learn(seen, rule("minmax")).low, learn(seen, rule("minmax")).high) == (-3, 4)
    average = learn(seen, rule("moving_average"))
    assert (average.low, average.high) == (-2, 3)


def test_percentile_cuts_half_of_the_rest_at_either_end():
    data = np.random.default_rng(0).normal(size=(50, 2000)).astype(np.float32)
    seen = observed(data)
    found = learn(seen, rule("percentile", percentile=99.0))
    low, high = np.percentile(data, [0.5, 99.5])
    assert found.low == pytest.approx(low, abs=seen.width)
    assert found.high == pytest.approx(high, abs=seen.width)
    everything = learn(seen, rule("percentile", percentile=100.0))
    assert (everything.low, everything.high) == (data.min(), data.max())


@pytest.mark.parametrize("integers", TYPES, ids=str)
def test_mse_errs_least_of_all(integers):
    data = np.random.default_rng(1).standard_t(5, size=(8, 20_000)).astype(np.float32)
    seen = observed(data)
    errors = {name: error(data, learn(seen, rule(name, integers)), integers) for name in RULES[:-1]}
    assert errors["mse"] <= min(errors.values()) * 1.02
    assert errors["mse"] < errors["minmax"] * 0.8


@pytest.mark.parametrize("integers", TYPES, ids=str)
def test_entropy_cuts_a_lone_outlier_and_keeps_the_bulk(integers):
    data = np.random.default_rng(2).normal(size=100_000).astype(np.float32)
    data[0] = 60
    found = learn(observed([data]), rule("entropy", integers))
    assert 2.5 < found.high < 15
    assert found.low < -2.5


def test_entropy_does_not_mind_how_many_zeros_there_are():
    data = np.abs(np.random.default_rng(3).normal(size=50_000)).astype(np.float32)
    few, many = observed([data]), observed([np.concatenate([data, np.zeros(500_000, np.float32)])])
    assert learn(few, rule("entropy")).high == pytest.approx(learn(many, rule("entropy")).high, rel=1e-3)


def test_grid_search_takes_what_holds_on_samples_it_was_not_learned_from():
    rng = np.random.default_rng(4)
    data = rng.standard_t(4, size=(9, 5000)).astype(np.float32)
    seen = observed(data, folds=3)
    errors = []
    for candidate in grid_candidates(rule("grid_search")):
        left_out = 0.0
        for fold in range(3):
            bounds = candidate.learn(seen.distribution(without=fold))
            left_out += error(data[fold::3], bounds, UNSIGNED)
        errors.append(left_out)
    chosen = grid_search(seen, rule("grid_search"))
    names = [candidate.name for candidate in grid_candidates(rule("grid_search"))]
    assert errors[names.index(chosen.name)] <= min(errors) * 1.02
    assert learn(seen, rule("grid_search")) == chosen.learn(seen.distribution())


def test_grid_search_without_folds_takes_the_extremes():
    seen = observed([[-1.0, 5.0]], folds=3)
    assert grid_search(seen, rule("grid_search")).name == "minmax"
    assert learn(seen, rule("grid_search")) == learn(seen, rule("minmax"))


def test_candidates_are_named_apart():
    names = [candidate.name for candidate in grid_candidates(rule("grid_search"))]
    assert len(set(names)) == len(names)
    assert replace(rule("mse"), ranges="minmax") == rule("minmax")

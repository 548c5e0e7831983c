import gc

import numpy as np
import pytest
from scipy import stats

from compression.evaluation.latency import measure_pairs


class Machine:
    """A clock that moves only while a model runs."""

    def __init__(self):
        self.now = 0.0
        self.log = ""

    def model(self, letter, *seconds):
        times = iter(seconds * 10_000)

        def run():
            assert not gc.isenabled()
            self.log += letter
            self.now += next(times)

        return run

    def clock(self):
        return self.now


def measured(machine, original, compressed, *, opening_s=10.0, **options):
    """By default opening takes so long that there is one round."""

    def reopen():
        machine.log += "|"
        machine.now += opening_s
        return original, compressed

    options = {"runs": 50, "seed": 0, "opening_s": opening_s} | options
    return measure_pairs((original, compressed), reopen, clock=machine.clock, **options)


def test_pairs_alternate_in_a_drawn_order_after_a_warm_up():
    machine = Machine()
    pairs = measured(machine, machine.model("A", 0.04), machine.model("B", 0.02))
    warm, timed = machine.log[:18], machine.log[18:]
    assert warm == "A" * 8 + "B" * 10
    assert len(timed) == 100 and {timed[i : i + 2] for i in range(0, 100, 2)} == {"AB", "BA"}
    assert pairs.speedup.value == pytest.approx(2)
    assert pairs.original.p50_ms == pytest.approx(40) and pairs.compressed.runs == 50
    assert gc.isenabled()


def test_the_order_repeats_with_the_seed():
    logs = []
    for seed in (1, 1, 2):
        machine = Machine()
        measured(machine, machine.model("A", 0.04), machine.model("B", 0.04), seed=seed)
        logs.append(machine.log)
    assert logs[0] == logs[1] != logs[2]


def test_models_that_open_quickly_are_opened_anew_over_twenty_rounds():
    machine = Machine()
    pairs = measured(machine, machine.model("A", 0.0049), machine.model("B", 0.0049), opening_s=0.01)
    assert machine.log.count("|") == 19 and pairs.original_ms.shape == (20, 6)


def test_fast_models_run_more_often_than_asked():
    machine = Machine()
    pairs = measured(machine, machine.model("A", 0.001), machine.model("B", 0.001))
    assert pairs.original.runs in {499, 500}
    machine = Machine()
    assert measured(machine, machine.model("A", 1e-6), machine.model("B", 1e-6)).original.runs == 1000


def test_slow_models_stop_at_the_budget_but_give_five_pairs():
    machine = Machine()
    pairs = measured(machine, machine.model("A", 0.3), machine.model("B", 0.3), opening_s=0.0)
    assert 5 <= pairs.original.runs < 20 and machine.now < 13
    machine = Machine()
    assert measured(machine, machine.model("A", 9.0), machine.model("B", 9.0)).original.runs == 5


def test_percentiles_are_numpys_and_one_round_takes_the_sign_test():
    machine = Machine()
    times = tuple(np.random.default_rng(0).uniform(0.04, 0.08, 60))
    pairs = measured(machine, machine.model("A", *times), machine.model("B", 0.04))
    assert pairs.original_ms.shape == (1, 50)
    assert pairs.original.p90_ms == pytest.approx(np.percentile(pairs.original_ms, 90))
    ratios = np.sort(pairs.original_ms.ravel() / 40)
    assert pairs.speedup.value == pytest.approx(np.median(ratios))
    assert (pairs.speedup.low, pairs.speedup.high) == pytest.approx((ratios[17], ratios[-18]))


def test_what_rounds_deviate_by_widens_the_interval():
    """Every round is perfectly steady, yet every session of A is faster or slower than the last."""
    machine = Machine()
    layouts = iter(np.random.default_rng(0).normal(1, 0.05, 20))

    def reopen():
        return machine.model("A", 0.01 * next(layouts)), machine.model("B", 0.01)

    pairs = measure_pairs(reopen(), reopen, opening_s=0, runs=100, seed=0, clock=machine.clock)
    logs = np.log(np.median(pairs.original_ms / pairs.compressed_ms, axis=1))
    half = stats.t.ppf(0.975, 19) * logs.std(ddof=1) / 20**0.5
    assert pairs.speedup.low == pytest.approx(np.exp(logs.mean() - half))
    assert pairs.speedup.high == pytest.approx(np.exp(logs.mean() + half))


def test_a_clock_that_does_not_move_divides_by_nothing():
    machine = Machine()
    pairs = measured(machine, machine.model("A", 0.0), machine.model("B", 0.0))
    assert pairs.speedup.value == 1


def test_garbage_collection_comes_back_after_a_failure():
    def fail():
        raise RuntimeError

    with pytest.raises(RuntimeError):
        measure_pairs((fail, fail), lambda: (fail, fail), opening_s=0, runs=5, seed=0)
    assert gc.isenabled()

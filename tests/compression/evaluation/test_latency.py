import gc

import numpy as np
import pytest

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


def measured(machine, original, compressed, **options):
    return measure_pairs(original, compressed, clock=machine.clock, **{"runs": 50, "seed": 0, **options})


def test_pairs_alternate_in_a_drawn_order_after_a_warm_up():
    machine = Machine()
    pairs = measured(machine, machine.model("A", 0.004), machine.model("B", 0.002))
    assert machine.log[:20] == "A" * 10 + "B" * 10
    timed = [machine.log[i : i + 2] for i in range(20, 120, 2)]
    assert len(timed) == 50 and set(timed) == {"AB", "BA"}
    assert pairs.speedup.value == pytest.approx(2)
    assert pairs.original.p50_ms == pytest.approx(4) and pairs.compressed.runs == 50
    assert gc.isenabled()


def test_the_order_repeats_with_the_seed():
    logs = []
    for seed in (1, 1, 2):
        machine = Machine()
        measured(machine, machine.model("A", 0.001), machine.model("B", 0.001), seed=seed)
        logs.append(machine.log)
    assert logs[0] == logs[1] != logs[2]


def test_slow_models_stop_at_the_budget_but_give_five_pairs():
    machine = Machine()
    pairs = measured(machine, machine.model("A", 0.3), machine.model("B", 0.3))
    assert 5 <= pairs.original.runs < 20 and machine.now < 11
    machine = Machine()
    assert measured(machine, machine.model("A", 9.0), machine.model("B", 9.0)).original.runs == 5


def test_percentiles_and_interval_are_numpys_and_the_pairs():
    machine = Machine()
    times = tuple(np.random.default_rng(0).uniform(0.001, 0.002, 60))
    pairs = measured(machine, machine.model("A", *times), machine.model("B", 0.001))
    expected = np.array(times[10:60]) * 1000
    assert pairs.original.p90_ms == pytest.approx(np.percentile(expected, 90))
    assert pairs.speedup.value == pytest.approx(np.median(expected))
    assert pairs.speedup.low < pairs.speedup.value < pairs.speedup.high


def test_a_clock_that_does_not_move_divides_by_nothing():
    machine = Machine()
    pairs = measured(machine, machine.model("A", 0.0), machine.model("B", 0.0))
    assert pairs.speedup.value == 1


def test_garbage_collection_comes_back_after_a_failure():
    def fail():
        raise RuntimeError

    with pytest.raises(RuntimeError):
        measure_pairs(fail, fail, runs=5, seed=0)
    assert gc.isenabled()

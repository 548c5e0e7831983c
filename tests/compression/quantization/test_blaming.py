"""Noise is found where it is, in few trials."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression.quantization.blaming import share_noise

FAR = float("inf")


def counted(own):
    tried = []

    def noise(names):
        tried.append(tuple(names))
        return sum(own[name] for name in names)

    return noise, tried


@given(st.lists(st.floats(0, 1), max_size=40))
def test_noise_that_adds_up_is_told_apart(values):
    own = {str(index): value for index, value in enumerate(values)}
    found = share_noise(list(own), counted(own)[0], until=FAR)
    assert found == pytest.approx(own, abs=1e-3 * sum(values) + 1e-9)


def test_one_culprit_among_many_takes_two_trials_a_halving_at_most():
    own = {str(index): 0.05 if index == 37 else 0.0 for index in range(128)}
    noise, tried = counted(own)
    found = share_noise(list(own), noise, until=FAR)
    assert found == own
    assert len(tried) <= 2 * 7 + 1


def test_when_time_is_up_a_group_shares_its_noise():
    own = {"a": 0.4, "b": 0.0}
    noise, tried = counted(own)
    assert share_noise(["a", "b"], noise, until=time.monotonic() - 1) == {"a": 0.2, "b": 0.2}
    assert tried == [("a", "b")]


def test_nothing_to_try():
    assert share_noise([], lambda names: 1.0, until=FAR) == {}

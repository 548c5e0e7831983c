"""Exactly so many weights leave, and the schedule is Zhu and Gupta's."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compression.pruning.masks import keep_above, keep_largest, sparsity_of_round

SCORES = {"a": torch.tensor([[0.5, 0.1], [0.3, 0.9]]), "b": torch.tensor([0.2, 0.4, 0.4, 0.4])}
NO_ZEROS = {name: torch.zeros_like(score, dtype=torch.bool) for name, score in SCORES.items()}


def test_a_global_cut_takes_the_least_of_all_and_of_equals_the_first() -> None:
    kept = keep_largest(SCORES, NO_ZEROS, 0.5, "global")
    assert kept["a"].tolist() == [[True, False], [False, True]]
    assert kept["b"].tolist() == [False, False, True, True]


def test_a_cut_by_layer_takes_the_same_share_of_each() -> None:
    kept = keep_largest(SCORES, NO_ZEROS, 0.5, "layer")
    assert kept["a"].tolist() == [[True, False], [False, True]]
    assert kept["b"].tolist() == [False, False, True, True]
    assert keep_largest(SCORES, NO_ZEROS, 0.25, "layer")["b"].tolist() == [False, True, True, True]


def test_zeros_that_are_there_count() -> None:
    zero = {**NO_ZEROS, "a": torch.tensor([[False, False], [False, True]])}
    kept = keep_largest(SCORES, zero, 0.25, "global")
    assert kept["a"].tolist() == [[True, False], [True, False]]
    assert not keep_above(SCORES, zero, 0.1)["a"][1, 1]


def test_a_threshold_keeps_what_reaches_it() -> None:
    assert keep_above(SCORES, NO_ZEROS, 0.4)["b"].tolist() == [False, True, True, True]


@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=50),
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=50),
    st.floats(0, 1),
)
def test_exactly_so_many_leave_and_none_is_above_one_that_stays(one: list, other: list, share: float) -> None:
    scores = {"a": torch.tensor(one), "b": torch.tensor(other)}
    zero = {name: torch.zeros_like(score, dtype=torch.bool) for name, score in scores.items()}
    kept = keep_largest(scores, zero, share, "global")
    stays = np.concatenate([kept["a"].numpy(), kept["b"].numpy()])
    values = np.concatenate([scores["a"].numpy(), scores["b"].numpy()])
    assert (~stays).sum() == round(share * len(values))
    assert values[~stays].max(initial=-1) <= values[stays].min(initial=2)


def test_ramps_by_hand() -> None:
    cubic = [sparsity_of_round(number, 4, 0.2, 0.9, "cubic") for number in range(1, 5)]
    expected = [0.9 - 0.7 * left**3 for left in (0.75, 0.5, 0.25, 0)]
    assert cubic == pytest.approx(expected)
    linear = [sparsity_of_round(number, 4, 0.0, 0.8, "linear") for number in range(1, 5)]
    assert linear == pytest.approx([0.2, 0.4, 0.6, 0.8])

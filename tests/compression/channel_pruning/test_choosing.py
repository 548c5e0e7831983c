"""How many units leave which group."""

import numpy as np
import pytest

from compression.channel_pruning.choosing import Chooser, apart, step_of
from compression.graph.channels import Group


def group(name: str, size: int, **changes: object) -> Group:
    given = {
        "id": name,
        "size": size,
        "producers": (),
        "consumers": (),
        "others": (),
        "activations": (),
        "layers": (name,),
        "unit": "channel",
        **changes,
    }
    return Group(**given)  # type: ignore[arg-type]


def chooser(groups: list[Group], **changes: object) -> Chooser:
    scores = {item.id: np.arange(item.size, dtype=np.float64) / item.size + 0.1 for item in groups}
    given = {"scope": "layer", "max_sparsity": 0.9, "round_to": 8, "scores": scores, **changes}
    return Chooser(groups=groups, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "share", "left"),
    [(64, 0.5, 32), (64, 0.3, 48), (20, 0.5, 8), (6, 0.5, 3), (3, 0.99, 1), (2, 0.5, 1)],
)
def test_counts_that_stay_are_rounded(size: int, share: float, left: int) -> None:
    doomed = chooser([group("a", size)], max_sparsity=0.99).by_share(share)
    assert size - len(doomed["a"]) == left


def test_the_lowest_scores_leave_and_equal_ones_in_order() -> None:
    same = chooser([group("a", 8)], round_to=1, scores={"a": np.ones(8)}).by_share(0.5)
    assert same["a"] == (0, 1, 2, 3)
    assert chooser([group("a", 8)], round_to=1).by_share(0.25)["a"] == (0, 1)


def test_a_global_cut_takes_the_least_of_all() -> None:
    scores = {"a": np.linspace(0, 1, 10), "b": np.linspace(2, 3, 10)}
    found = chooser([group("a", 10), group("b", 10)], scope="global", round_to=1, scores=scores)
    assert found.by_share(0.25) == {"a": (0, 1, 2, 3, 4)}
    assert {name: len(units) for name, units in found.by_share(0.9).items()} == {"a": 9, "b": 9}


def test_one_stays_whatever_is_asked() -> None:
    found = chooser([group("a", 10)], scope="global", round_to=1, max_sparsity=0.99).by_threshold(1e9)
    assert len(found["a"]) == 9


def test_multiples_are_kept() -> None:
    found = chooser([group("a", 12, multiple=4)], round_to=1).by_share(0.5)
    assert 12 - len(found["a"]) in (4, 8)


def test_heads_are_counted_one_by_one() -> None:
    assert step_of(group("a", 64, unit="head"), 8) == 1
    assert step_of(group("a", 64), 8) == 8
    assert step_of(group("a", 16), 8) == 4


def test_of_crossing_groups_the_heads_are_taken() -> None:
    inner = group("inner", 8, crosses=("heads",))
    heads = group("heads", 4, unit="head", crosses=("inner",))
    assert [item.id for item in apart([inner, heads, group("other", 8)])] == ["heads", "other"]

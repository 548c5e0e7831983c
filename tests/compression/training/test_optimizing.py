"""Learning rates by step, and decay of kernels alone."""

import math

import pytest
import torch
from torch import nn

from compression.methods.finetune import Finetune
from compression.training.optimizing import make_optimizer, rate_of_step


def rates(steps: int = 10, span: tuple[float, float] = (0.0, 1.0), **options: object) -> list[float]:
    settings = Finetune(learning_rate=1.0, **options)  # type: ignore[arg-type]
    return [rate_of_step(step, steps, span, settings) for step in range(steps)]


def test_schedules() -> None:
    assert rates(schedule="constant") == [1.0] * 10
    assert rates(schedule="cosine") == pytest.approx(
        [(1 + math.cos(math.pi * i / 10)) / 2 for i in range(10)]
    )
    falls = rates(schedule="step", decay=0.5, decay_every=0.3)
    assert falls == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]


def test_warm_up_rises_to_the_top() -> None:
    assert rates(schedule="constant", warmup=0.4)[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert rates(schedule="cosine", warmup=0.5)[5] == 1.0


def test_two_halves_make_the_whole() -> None:
    whole = rates(20, schedule="cosine", warmup=0.2)
    halves = [
        *rates(10, (0.0, 0.5), schedule="cosine", warmup=0.2),
        *rates(10, (0.5, 1.0), schedule="cosine", warmup=0.2),
    ]
    assert halves == pytest.approx(whole)


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_only_kernels_decay_and_only_learners_are_taken(name: str, kind: type) -> None:
    weights = {"w": nn.Parameter(torch.ones(2, 2)), "b": nn.Parameter(torch.ones(2))}
    weights["still"] = nn.Parameter(torch.ones(3, 3), requires_grad=False)
    made = make_optimizer(weights, Finetune(optimizer=name, weight_decay=0.1))  # type: ignore[arg-type]
    assert type(made) is kind
    assert [len(group["params"]) for group in made.param_groups] == [1, 1]
    assert [group["weight_decay"] for group in made.param_groups] == [0.1, 0.0]

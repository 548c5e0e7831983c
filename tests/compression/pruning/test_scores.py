"""Scores by hand."""

from types import SimpleNamespace

import numpy as np
import torch

from compression.pruning.masks import keep_largest
from compression.pruning.scores import layer_adaptive

WEIGHTS = {"wide": torch.tensor([[3.0, -1.0], [2.0, 0.0]]), "small": torch.tensor([0.1, -0.2])}


def test_lamp_is_each_square_over_those_that_are_no_smaller() -> None:
    scores = layer_adaptive(SimpleNamespace(weights=WEIGHTS), list(WEIGHTS))  # type: ignore[arg-type]
    np.testing.assert_allclose(scores["wide"], [[9 / 9, 1 / 14], [4 / 13, 0]])
    np.testing.assert_allclose(scores["small"], [0.01 / 0.05, 1])


def test_lamp_leaves_every_layer_its_largest_weight() -> None:
    scores = layer_adaptive(SimpleNamespace(weights=WEIGHTS), list(WEIGHTS))  # type: ignore[arg-type]
    zero = {name: weight == 0 for name, weight in WEIGHTS.items()}
    kept = keep_largest(scores, zero, 4 / 6, "global")
    assert {name: int(mask.sum()) for name, mask in kept.items()} == {"wide": 1, "small": 1}


def test_a_tensor_of_zeros_has_scores_of_zero() -> None:
    view = SimpleNamespace(weights={"w": torch.zeros(3)})
    assert layer_adaptive(view, ["w"])["w"].tolist() == [0, 0, 0]  # type: ignore[arg-type]

"""What training must not undo: zeros that stay zeros, values that stay shared, statistics that stay."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from compression.graph.constants import release
from compression.graph.naming import all_graphs
from compression.graph.trainable import TrainableGraph

LEAST_SPARSITY = 0.05
"""A tensor with fewer zeros than this was not pruned; a few zeros happen."""
MOST_CENTROIDS = 256
"""A codebook has as many values at most; quantized weights in floats count as one."""
LEAST_REPEATS = 4
"""How often a codebook's values are used on average; else few values are left because the tensor is sparse."""
SAMPLED = 4096


class Constraint(Protocol):
    """Holds a view to something. `apply` is called once before training and after each optimizer step."""

    def apply(self, view: TrainableGraph) -> None:
        """Brings the view's values back to what is asked for, in place."""

    def shape_gradients(self, view: TrainableGraph) -> None:
        """Called before each optimizer step: takes away from gradients what would only be undone."""


class Masks:
    """Keeps weights at zero where a mask is False. By initializer name, in the weights' shapes."""

    def __init__(self, kept: Mapping[str, Tensor]) -> None:
        self._factors = {name: mask.float() for name, mask in kept.items()}

    @torch.no_grad()
    def apply(self, view: TrainableGraph) -> None:
        for name, factor in self._factors.items():
            _multiply(view.weights[name], factor)

    def shape_gradients(self, view: TrainableGraph) -> None:
        for name, factor in self._factors.items():
            gradient = view.weights[name].grad
            if gradient is not None:
                _multiply(gradient, factor)


def _multiply(values: Tensor, factor: Tensor) -> None:
    """In place, many times as fast as filling by a mask; the sum turns -0 into the 0 that a mask stands for."""
    values.mul_(factor).add_(0.0)


class Tied:
    """Keeps equal the entries that share a centroid: each moves by the mean gradient of all that share it.

    Han et al. 2016, Deep Compression (arXiv:1510.00149), section 3.3, sum the gradients; their mean makes the
    learning rate mean the same for centroids and for weights.

    Args:
        codes: by initializer name which centroid each entry has, int64 in the weight's shape; below 0 are entries
            that have none, such as zeros that a mask keeps.
    """

    def __init__(self, codes: Mapping[str, Tensor]) -> None:
        self._shared = {name: _Shared(code.reshape(-1)) for name, code in codes.items()}

    @torch.no_grad()
    def apply(self, view: TrainableGraph) -> None:
        for name, shared in self._shared.items():
            shared.average(view.weights[name])

    def shape_gradients(self, view: TrainableGraph) -> None:
        for name, shared in self._shared.items():
            gradient = view.weights[name].grad
            if gradient is not None:
                shared.average(gradient)


class _Shared:
    """Which entries of one tensor share which centroid."""

    def __init__(self, codes: Tensor) -> None:
        self._places = None if bool((codes >= 0).all()) else torch.nonzero(codes >= 0).reshape(-1)
        self._codes = codes if self._places is None else codes[self._places]
        self._counts = torch.bincount(self._codes).clamp(min=1)

    def average(self, values: Tensor) -> None:
        """Puts the means in the entries' places."""
        flat = values.reshape(-1)
        mine = flat if self._places is None else flat[self._places]
        # In double precision, so that the mean of equal floats is that float again.
        sums = torch.zeros(len(self._counts), dtype=torch.float64, device=values.device)
        sums.index_add_(0, self._codes, mine.double())
        means = (sums / self._counts)[self._codes].to(values.dtype)
        if self._places is not None:
            means = flat.index_copy(0, self._places, means)
        values.copy_(means.reshape(values.shape))


class Held:
    """Keeps statistics of normalizations that are not to change."""

    def __init__(self, view: TrainableGraph, names: Iterable[str]) -> None:
        self._values = {name: view.statistics[name].clone() for name in names}

    @torch.no_grad()
    def apply(self, view: TrainableGraph) -> None:
        for name, value in self._values.items():
            view.statistics[name].copy_(value)

    def shape_gradients(self, view: TrainableGraph) -> None:
        pass


def preserved(
    model: ir.Model, view: TrainableGraph, *, zeros: bool = True, shared: bool = True
) -> tuple[tuple[Constraint, ...], Mapping[str, str]]:
    """What earlier steps left in kernels and matrices and training must keep; and by tensor, in words.

    Zeros count where they are 5 % or more of a tensor. Few distinct values, each used many times, are a
    codebook (k-means) or a grid (quantized values held in floats), and stay shared; a codebook's zeros stay
    zeros.
    """
    kept: dict[str, Tensor] = {}
    codes: dict[str, Tensor] = {}
    words: dict[str, str] = {}
    for name, array in _kernels(model, view):
        found = shared_values(array) if shared else None
        nonzero = array != 0
        share = 1 - np.count_nonzero(nonzero) / array.size
        sparse = zeros and share >= LEAST_SPARSITY
        if found is not None:
            words[name] = f"{int(found.max()) + 1} shared values"
            codes[name] = torch.from_numpy(np.where(nonzero | (not sparse), found, -1)).to(view.device)
        if sparse:
            kept[name] = torch.from_numpy(nonzero).to(view.device)
            words[name] = " and ".join(filter(None, (words.get(name), f"{share:.1%} zeros")))
    constraints: list[Constraint] = [Tied(codes)] if codes else []
    return (*constraints, *([Masks(kept)] if kept else [])), words


def _kernels(model: ir.Model, view: TrainableGraph) -> Iterator[tuple[str, np.ndarray]]:
    for graph in all_graphs(model):
        for name, value in graph.initializers.items():
            tensor = value.const_value
            if tensor is not None and name in view.weights and _is_kernel(tensor.shape.numpy()):
                yield name, np.asarray(tensor.numpy()).copy()
                release(tensor)


def _is_kernel(shape: Sequence[int]) -> bool:
    """A bias or a scale may be stored as [1, C, 1, 1]; its zeros were not pruned."""
    return sum(size > 1 for size in shape) >= 2


def shared_values(array: np.ndarray) -> np.ndarray | None:
    """Which of its distinct values each entry is; None where they are too many to be shared on purpose."""
    flat = array.astype(np.float64).reshape(-1)
    step = max(flat.size // SAMPLED, 1)
    if len(np.unique(flat[::step])) > MOST_CENTROIDS + 1:
        return None
    values, codes = np.unique(flat, return_inverse=True)
    distinct = int(np.count_nonzero(values))
    if not 1 < distinct <= MOST_CENTROIDS or np.count_nonzero(flat) < LEAST_REPEATS * distinct:
        return None
    return codes.reshape(array.shape).astype(np.int64)

"""What an operator function is and what it may know of the ONNX node it stands for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Node:
    """One ONNX node as its operator function sees it.

    `attributes` are plain Python values: int, float, str, tuples of them, numpy arrays for tensors (half
    precision already widened to float32), and callables for the bodies of If, Loop and Scan. `opset` is the
    version of the node's domain, `outputs` how many are wanted: unnamed trailing ones are cut off.
    """

    op_type: str
    domain: str = ""
    name: str = ""
    opset: int
    attributes: Mapping[str, Any]
    outputs: int = 1
    training: bool = False
    """Whether normalization takes its statistics from the batch."""


Value = Any
"""A tensor, a list of tensors (a sequence), or None where an optional is empty."""

Operator = Callable[..., Tensor | Sequence[Value]]
"""f(node, *inputs): inputs as in ONNX's schema, None where an optional one is absent.

Gives its only output, or a tuple of all; a sequence as the only output stands in a tuple of one.
"""

Table = Mapping[str, Operator]
"""Operators by type, as `Conv` for the default domain and `com.microsoft::FusedConv` for others."""


def integers(tensor: Tensor) -> list[int]:
    """The entries of a shape, axes or index tensor of any rank, in order."""
    return [int(item) for item in tensor.reshape(-1).tolist()]


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the front; ONNX counts negative ones from the back."""
    return axis + rank if axis < 0 else axis


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """The tensor on the device of another."""
    return tensor if tensor.device == other.device else tensor.to(other.device)


def shape_tensor(sizes: Sequence[int]) -> Tensor:
    """Sizes as ONNX carries them: int64, on the CPU wherever the data is."""
    return torch.tensor([int(size) for size in sizes], dtype=torch.int64)

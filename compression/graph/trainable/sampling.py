"""Reading an input at places that data gives."""

import torch.nn.functional as F
from torch import Tensor

from compression.graph.trainable.node import Node, integers

MODES = {"linear": "bilinear", "cubic": "bicubic"}


def grid_sample(node: Node, x: Tensor, grid: Tensor) -> Tensor:
    """Jaderberg et al. 2015; modes are called bilinear and bicubic before opset 20."""
    mode = node.attributes.get("mode", "linear")
    padding = node.attributes.get("padding_mode", "zeros")
    corners = bool(node.attributes.get("align_corners", 0))
    return F.grid_sample(x, grid.to(x.dtype), MODES.get(mode, mode), padding, corners)


def affine_grid(node: Node, theta: Tensor, size: Tensor) -> Tensor:
    corners = bool(node.attributes.get("align_corners", 0))
    return F.affine_grid(theta, integers(size), align_corners=corners)

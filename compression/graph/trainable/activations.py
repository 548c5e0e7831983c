"""Activations, alone and as onnxruntime joins them with a bias."""

import torch
import torch.nn.functional as F
from torch import Tensor

from compression.graph.trainable.arithmetic import plain
from compression.graph.trainable.node import Node, Table


def relu(node: Node, x: Tensor) -> Tensor:
    return F.relu(x) if x.is_floating_point() else x.clamp(min=0)


def leaky_relu(node: Node, x: Tensor) -> Tensor:
    return F.leaky_relu(x, node.attributes.get("alpha", 0.01))


def prelu(node: Node, x: Tensor, slope: Tensor) -> Tensor:
    """Before opset 7 one slope per channel stands for the second axis."""
    if node.opset < 7 and slope.ndim == 1 and slope.numel() > 1:
        slope = slope.reshape(-1, *[1] * (x.ndim - 2))
    return torch.where(x < 0, slope * x, x)


def elu(node: Node, x: Tensor) -> Tensor:
    return F.elu(x, node.attributes.get("alpha", 1.0))


def celu(node: Node, x: Tensor) -> Tensor:
    return F.celu(x, node.attributes.get("alpha", 1.0))


def selu(node: Node, x: Tensor) -> Tensor:
    alpha: float = node.attributes.get("alpha", 1.67326319217681884765625)
    gamma: float = node.attributes.get("gamma", 1.05070102214813232421875)
    return gamma * F.elu(x, alpha)


def gelu(node: Node, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=node.attributes.get("approximate", "none"))


def bias_gelu(node: Node, x: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.gelu(x if bias is None else x + bias)


def fast_gelu(node: Node, x: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.gelu(x if bias is None else x + bias, approximate="tanh")


def quick_gelu(node: Node, x: Tensor) -> Tensor:
    return x * torch.sigmoid(node.attributes.get("alpha", 1.702) * x)


def swish(node: Node, x: Tensor) -> Tensor:
    return x * torch.sigmoid(node.attributes.get("alpha", 1.0) * x)


def swiglu(node: Node, gate: Tensor, x: Tensor) -> Tensor:
    return swish(node, gate) * x


def hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    return torch.clamp(node.attributes.get("alpha", 0.2) * x + node.attributes.get("beta", 0.5), 0, 1)


def hard_swish(node: Node, x: Tensor) -> Tensor:
    return x * torch.clamp(x / 6 + 0.5, 0, 1)


def softplus(node: Node, x: Tensor) -> Tensor:
    return F.softplus(x)


def thresholded_relu(node: Node, x: Tensor) -> Tensor:
    return torch.where(x > node.attributes.get("alpha", 1.0), x, torch.zeros_like(x))


def shrink(node: Node, x: Tensor) -> Tensor:
    bound, bias = node.attributes.get("lambd", 0.5), node.attributes.get("bias", 0.0)
    return torch.where(x < -bound, x + bias, torch.where(x > bound, x - bias, torch.zeros_like(x))).to(
        x.dtype
    )


ACTIVATIONS: Table = {
    "Celu": celu,
    "Elu": elu,
    "Gelu": gelu,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": hard_swish,
    "LeakyRelu": leaky_relu,
    "Mish": plain(F.mish),
    "PRelu": prelu,
    "Relu": relu,
    "Selu": selu,
    "Shrink": shrink,
    "Sigmoid": plain(torch.sigmoid),
    "Softplus": softplus,
    "Softsign": plain(F.softsign),
    "SwiGLU": swiglu,
    "Swish": swish,
    "Tanh": plain(torch.tanh),
    "ThresholdedRelu": thresholded_relu,
    "com.microsoft::BiasGelu": bias_gelu,
    "com.microsoft::FastGelu": fast_gelu,
    "com.microsoft::Gelu": bias_gelu,
    "com.microsoft::QuickGelu": quick_gelu,
}

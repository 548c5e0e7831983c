"""Products of matrices."""

import torch
import torch.nn.functional as F
from torch import Tensor

from compression.graph.trainable.gates import activation
from compression.graph.trainable.node import Node, Table
from compression.graph.trainable.quantizing import requantized


def matmul(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return torch.matmul(a, b)


def gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """alpha * A' * B' + beta * C."""
    alpha, beta = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    a = a.t() if node.attributes.get("transA", 0) else a
    if alpha == 1 and beta == 1 and c is not None and c.ndim == 1 and c.is_floating_point():
        return F.linear(a, b if node.attributes.get("transB", 0) else b.t(), c)
    product = torch.matmul(a, b.t() if node.attributes.get("transB", 0) else b)
    product = product if alpha == 1 else (alpha * product).to(product.dtype)
    return product if c is None or beta == 0 else (product + beta * c).to(product.dtype)


def fused_matmul(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """alpha * A' * B' of onnxruntime, the last two axes exchanged where asked for."""
    a = _exchanged(a, node.attributes.get("transA", 0), node.attributes.get("transBatchA", 0))
    b = _exchanged(b, node.attributes.get("transB", 0), node.attributes.get("transBatchB", 0))
    alpha: float = node.attributes.get("alpha", 1.0)
    return torch.matmul(a, b) * alpha


def fused_gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """onnxruntime's Gemm with an activation behind it."""
    settings = [node.attributes.get(f"activation_{name}") for name in ("alpha", "beta")]
    name = node.attributes.get("activation", "")
    y = gemm(node, a, b, c)
    return activation(name, *(item for item in settings if item is not None))(y) if name else y


def _exchanged(x: Tensor, last: int, batch: int) -> Tensor:
    if batch:
        x = x.movedim(0, -2)
    return x.transpose(-1, -2) if last and x.ndim > 1 else x


def einsum(node: Node, *inputs: Tensor) -> Tensor:
    return torch.einsum(node.attributes["equation"].replace(" ", ""), *inputs)


def matmul_integer(
    node: Node, a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None
) -> Tensor:
    """Computed in float64, in which 8-bit products and their sums are exact.

    Operands that quantization with straight-through gradients holds as floats give a float result.
    """
    left = a.double() if a_zero is None else a.double() - _per_row(a_zero).double()
    right = b.double() if b_zero is None else b.double() - b_zero.double()
    product = torch.matmul(left, right)
    floating = [x.dtype for x in (a, b) if x.is_floating_point()]
    return product.to(floating[0] if floating else torch.int32)


def _per_row(setting: Tensor) -> Tensor:
    return setting.unsqueeze(-1) if setting.ndim == 1 and setting.numel() > 1 else setting


def qlinear_matmul(
    node: Node,
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
) -> Tensor:
    """Scales of a may be one per row, those of b one per column."""
    product = matmul_integer(node, a, b, a_zero, b_zero).double()
    factor = _per_row(a_scale) * b_scale / _per_row(y_scale)
    return requantized(node, product * factor, _per_row(y_zero), y_scale.dtype)


def determinant(node: Node, x: Tensor) -> Tensor:
    found: Tensor = torch.linalg.det(x)
    return found


PRODUCTS: Table = {
    "Det": determinant,
    "Einsum": einsum,
    "Gemm": gemm,
    "MatMul": matmul,
    "MatMulInteger": matmul_integer,
    "QLinearMatMul": qlinear_matmul,
    "com.microsoft::FusedGemm": fused_gemm,
    "com.microsoft::FusedMatMul": fused_matmul,
}

"""Which form of storage suits which weights: what onnxruntime 1.32 was seen to load and to compute right.

- `matmul_nbits`: com.microsoft MatMulNBits and GatherBlockQuantized, kernels that compute on the codes. Products: 2, 4
  and 8 bits, blocks of a power of two from 16 to 256. Gathers: the same but for zero points at 2 bits, which
  GatherBlockQuantized takes for 4.
- `dequantize_linear`: ONNX's own DequantizeLinear with blocks on INT4, UINT4, INT8 and UINT8 tensors (opset 21), which
  onnxruntime turns into MatMulNBits as it loads. Products alone, and whole blocks.
- `folded`: bits taken apart by BitShift (opset 11) and scaled; onnxruntime does so once, as it loads, and runs its
  float kernels. Everything, at any number of bits and any block.
"""

from collections.abc import Sequence

import onnx_ir as ir

from compression.quantization.narrow.layout import Layout
from compression.quantization.narrow.settings import Storage
from compression.quantization.narrow.uses import Use
from compression.quantization.rounding.blocks import Scheme

KERNEL_BITS = frozenset({2, 4, 8})
KERNEL_BLOCKS = frozenset({16, 32, 64, 128, 256})
STANDARD_BITS = frozenset({4, 8})
STANDARD_OPSET = 21
KERNEL_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16})


def form_for(
    wanted: Storage,
    scheme: Scheme,
    layout: Layout,
    uses: Sequence[Use] | None,
    *,
    dtype: ir.DataType | None,
    opset: int,
) -> tuple[Storage, str]:
    """The form that a weight takes, and why where it is not the one wanted (else an empty sentence)."""
    if wanted == "folded":
        return "folded", ""
    name = "MatMulNBits" if wanted in ("auto", "matmul_nbits") else "DequantizeLinear"
    reason = _shape_reason(layout, uses, dtype) or (
        _standard_reason(scheme, layout, uses or (), opset)
        if wanted == "dequantize_linear"
        else _kernel_reason(scheme, layout, uses or ())
    )
    if reason:
        return "folded", f"no {name}: {reason}"
    return ("matmul_nbits" if wanted == "auto" else wanted), ""


def _shape_reason(layout: Layout, uses: Sequence[Use] | None, dtype: ir.DataType | None) -> str:
    if not uses:
        return "something else than products and gathers reads the weight"
    if any((use.row_axis,) != layout.row_axes for use in uses):
        return "its blocks lie across what is summed over"
    if dtype not in KERNEL_FLOATS:
        return f"its kernels take no {dtype.name.lower() if dtype else 'unknown'} inputs"
    return ""


def _kernel_reason(scheme: Scheme, layout: Layout, uses: Sequence[Use]) -> str:
    if scheme.bits not in KERNEL_BITS:
        return f"it has kernels for 2, 4 and 8 bits, not for {scheme.bits}"
    if scheme.block is None or scheme.block not in KERNEL_BLOCKS:
        return f"it takes blocks of 16 to 256, a power of two, not {scheme.block or 'whole channels'}"
    if layout.width < scheme.block:
        return f"its {layout.width} inputs are fewer than a block"
    if any(use.kind == "gather" for use in uses):
        if scheme.bits == 2 and not scheme.symmetric:
            return "GatherBlockQuantized takes no zero points of 2 bits"
        if layout.width % scheme.block:
            return f"GatherBlockQuantized needs rows of whole blocks, and these are of {layout.width}"
    return ""


def _standard_reason(scheme: Scheme, layout: Layout, uses: Sequence[Use], opset: int) -> str:
    if opset < STANDARD_OPSET:
        return f"blocks need opset {STANDARD_OPSET}, and the model stays at {opset}"
    if scheme.bits not in STANDARD_BITS:
        return f"ONNX has tensors of 4 and 8 bits, not of {scheme.bits}"
    if scheme.block not in KERNEL_BLOCKS or layout.width % (scheme.block or 1):
        return "its inputs are no multiple of a block of 16 to 256"
    if any(use.kind != "product" for use in uses):
        return "an embedding would be dequantized whole at every run"
    return ""

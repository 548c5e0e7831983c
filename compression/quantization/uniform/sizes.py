"""What codes take in the file, told without opening a model."""

from compression.quantization.narrow.packing import folding_bytes, plane_bytes
from compression.quantization.weights import CHAIN_BYTES

SHIFT_OPSET = 11
"""The first with BitShift; below it every code takes a byte."""


def stored_bits(bits: int, opset: int) -> int:
    """Bits that a code of so many takes in the file."""
    return 16 if bits > 8 else bits if opset >= SHIFT_OPSET else 8


def coded_bytes(count: int, bits: int, opset: int = SHIFT_OPSET) -> int:
    """Of `count` codes in the file, with the nodes that turn them into floats."""
    stored = stored_bits(bits, opset)
    if stored == 16:
        return 2 * count + CHAIN_BYTES
    return plane_bytes(count, stored) + folding_bytes(stored, symmetric=True)

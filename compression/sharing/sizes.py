"""What indices and codebooks take in the file, told without opening a model."""

from typing import Literal

from compression.quantization.narrow.packing import folding_bytes, plane_bytes
from compression.quantization.uniform.sizes import SHIFT_OPSET, stored_bits

Indices = Literal["bits", "bytes"]
NODES = 250
"""What the nodes, names and shapes of one tensor cost in the file, about."""
UNSCALED = 400
"""Of what folding bits into scaled floats costs, the part that indices do without."""
BYTE = 8


def shared_bytes(
    weights: int,
    entries: int,
    indices: Indices,
    *,
    opset: int = SHIFT_OPSET,
    vector: int = 1,
    groups: int = 1,
    width: int = 4,
) -> int:
    """Bytes of a tensor's indices, codebooks and nodes, about.

    Args:
        weights: how many the tensor has.
        entries: of each codebook.
        indices: packed `bits`, or `bytes`.
        opset: of the model; bits need one that has BitShift.
        vector: weights for each index.
        groups: how many codebooks.
        width: bytes of a shared value.
    """
    bits = stored_bits(max((entries - 1).bit_length(), 1), opset) if indices == "bits" else BYTE
    folding = folding_bytes(bits, symmetric=True) - UNSCALED if bits < BYTE else 0
    return plane_bytes(weights // vector, bits) + entries * groups * vector * width + NODES + folding

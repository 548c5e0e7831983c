"""Codes as bits: eight to a byte at one bit, two at four, the first code in the lowest bits.

Widths that divide eight are one plane. The others are two or three, the low bits first: 3 = 2 + 1, 5 = 4 + 1,
6 = 4 + 2, 7 = 4 + 2 + 1, so that no code ever lies across two bytes. A single plane is what MatMulNBits,
GatherBlockQuantized and ONNX's INT4 and UINT4 tensors hold.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
PLANES: dict[int, tuple[int, ...]] = {
    1: (1,),
    2: (2,),
    3: (2, 1),
    4: (4,),
    5: (4, 1),
    6: (4, 2),
    7: (4, 2, 1),
    8: (8,),
}
"""Widths of the planes that a width is cut into, from the lowest bits up."""


def pack(codes: NDArray[Any], bits: int) -> tuple[Bytes, ...]:
    """A plane of bytes for each of `PLANES[bits]`; codes are taken flat and filled up with 0 to whole bytes.

    Raises:
        ValueError: a code does not fit into `bits`.
    """
    flat = np.ascontiguousarray(codes, np.uint8).reshape(-1)
    if flat.size and int(flat.max()) >> bits:
        raise ValueError(f"code {int(flat.max())} does not fit into {bits} bits")
    planes, shift = [], 0
    for width in PLANES[bits]:
        planes.append(_plane((flat >> shift) & (2**width - 1), width))
        shift += width
    return tuple(planes)


def unpack(planes: tuple[Bytes, ...], bits: int, count: int) -> Bytes:
    """The first `count` codes, flat."""
    out, shift = np.zeros(count, np.uint8), 0
    for plane, width in zip(planes, PLANES[bits], strict=True):
        starts = np.arange(0, 8, width, dtype=np.uint8)
        codes = (plane.reshape(-1, 1) >> starts) & np.uint8(2**width - 1)
        out |= (codes.reshape(-1)[:count] << shift).astype(np.uint8)
        shift += width
    return out


def plane_bytes(count: int, bits: int) -> int:
    """Bytes of all planes of so many codes."""
    return sum(-(-count * width // 8) for width in PLANES[bits])


def folding_bytes(bits: int, *, symmetric: bool) -> int:
    """What the nodes, names and shapes cost in the file that turn packed codes into floats, about."""
    if bits == 8:
        return 600 if symmetric else 700
    more = len(PLANES[bits]) - 1
    return 1000 + 720 * more + (0 if symmetric else 560 + 680 * more)


def _plane(codes: Bytes, width: int) -> Bytes:
    per_byte = 8 // width
    if per_byte == 1:
        return codes
    codes = np.pad(codes, (0, -codes.size % per_byte)).reshape(-1, per_byte)
    out = np.zeros(len(codes), np.uint8)
    for place in range(per_byte):
        out |= codes[:, place] << np.uint8(place * width)
    return out

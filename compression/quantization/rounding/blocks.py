"""Codes in blocks: how a matrix lies as unsigned integers, and how it is read back.

A matrix has shape (rows, K): one row for each output channel, K what the product sums over. Each row is cut into
blocks that have a scale and a zero point of their own: w ~ (code - zero_point) * scale, as MatMulNBits and
DequantizeLinear read it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Codes = NDArray[np.uint8]
_STRIP_ELEMENTS = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """What codes there are and which weights share a scale."""

    bits: int
    """2 to 8."""
    block: int | None
    """Weights along K that share a scale and a zero point; None for a whole row."""
    symmetric: bool
    """Whether the zero point is always the middle code, which then need not be stored."""

    @property
    def top(self) -> int:
        return int(2**self.bits) - 1

    @property
    def middle(self) -> int:
        return int(2 ** (self.bits - 1))

    def words(self) -> str:
        part = "per channel" if self.block is None else f"in blocks of {self.block}"
        return f"{self.bits} bits {part}"

    def size(self, width: int) -> int:
        """Weights in a block of a row of `width`."""
        return width if self.block is None else min(self.block, width)

    def count(self, width: int) -> int:
        """Blocks in a row; the last may be short."""
        return -(-width // max(self.size(width), 1))


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The reals that codes stand for. Arrays of shape (rows, blocks)."""

    scheme: Scheme
    scale: Floats
    """Never 0; below 0 where the largest weight of a block is below 0 and takes the lowest code's place."""
    zero_point: Codes

    def rows(self, part: slice) -> "Grid":
        return Grid(scheme=self.scheme, scale=self.scale[part], zero_point=self.zero_point[part])


@dataclass(frozen=True, kw_only=True)
class Rounded:
    """A matrix as codes of shape (rows, K), and their grid."""

    codes: Codes
    grid: Grid

    def values(self) -> Floats:
        """The matrix that the codes stand for, float32 of shape (rows, K)."""
        return decode(self.codes, self.grid)


def encode(weight: Floats, grid: Grid) -> Codes:
    """clip(round_half_to_even(w / scale) + zero_point) for a matrix (rows, K)."""
    out = np.empty(weight.shape, np.uint8)
    for part in strips(weight.shape):
        rows = grid.rows(part)
        scaled = weight[part] / spread(rows.scale, rows.scheme, weight.shape[1])
        np.rint(scaled, out=scaled)
        scaled += spread(rows.zero_point, rows.scheme, weight.shape[1])
        out[part] = np.clip(scaled, 0, rows.scheme.top, out=scaled).astype(np.uint8)
    return out


def decode(codes: Codes, grid: Grid) -> Floats:
    """(code - zero_point) * scale in float32, as the runtime does."""
    out = np.empty(codes.shape, np.float32)
    for part in strips(codes.shape):
        rows = grid.rows(part)
        np.subtract(
            codes[part], spread(rows.zero_point, rows.scheme, codes.shape[1]), out=out[part], dtype=np.float32
        )
        out[part] *= spread(rows.scale, rows.scheme, codes.shape[1])
    return out


def spread(of_blocks: NDArray[Any], scheme: Scheme, width: int) -> NDArray[Any]:
    """An entry for each block, repeated for each weight of it: (rows, blocks) to (rows, K)."""
    size = scheme.size(width)
    if of_blocks.shape[1] == 1:
        return of_blocks
    return np.repeat(of_blocks, size, axis=1)[:, :width]


def in_blocks(matrix: NDArray[Any], scheme: Scheme, fill: float = 0.0) -> NDArray[Any]:
    """(rows, K) to (rows, blocks, size); a short last block is filled up."""
    rows, width = matrix.shape
    count, size = scheme.count(width), scheme.size(width)
    if count * size != width:
        matrix = np.pad(matrix, ((0, 0), (0, count * size - width)), constant_values=fill)
    return matrix.reshape(rows, count, size)


def strips(shape: tuple[int, ...]) -> Iterator[slice]:
    """Runs of rows of about 4 million elements, so that scratch memory does not grow with the matrix."""
    step = max(_STRIP_ELEMENTS // max(shape[1], 1), 1)
    for start in range(0, shape[0], step):
        yield slice(start, start + step)

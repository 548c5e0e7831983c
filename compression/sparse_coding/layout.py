"""A weight as signals: blocks of consecutive weights of one output."""

from dataclasses import dataclass
from math import prod

import numpy as np

from compression.sparse_coding.pursuit import Doubles

LONG = 32
"""Taps of a kernel beyond which it is cut."""
USUAL = 8


def usual_block(shape: tuple[int, ...], outputs: int) -> int:
    """Whole kernels, as many as come near 8 weights, where kernels are small; else 8 weights.

    Args:
        shape: of the stored weight.
        outputs: its axis of output channels.
    """
    taps = prod(shape[2:]) if len(shape) > 2 and outputs < 2 else 1
    width = prod(shape) // max(shape[outputs], 1)
    block = USUAL if taps > LONG else taps * max(round(USUAL / taps), 1)
    return max(min(block, width), 1)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """`order` brings outputs to the front; rows of `width` weights are cut into blocks, the last one shorter."""

    shape: tuple[int, ...]
    order: tuple[int, ...]
    block: int

    @classmethod
    def of(cls, shape: tuple[int, ...], outputs: int, block: int | None) -> "Layout":
        order = (outputs, *(axis for axis in range(len(shape)) if axis != outputs))
        width = prod(shape) // max(shape[outputs], 1)
        asked = usual_block(shape, outputs) if block is None else block
        return cls(shape=shape, order=order, block=max(min(asked, width), 1))

    @property
    def turned(self) -> tuple[int, ...]:
        return tuple(self.shape[axis] for axis in self.order)

    @property
    def rows(self) -> int:
        return self.shape[self.order[0]]

    @property
    def width(self) -> int:
        return prod(self.shape) // max(self.rows, 1)

    @property
    def blocks(self) -> int:
        return -(-self.width // self.block)

    @property
    def signals(self) -> int:
        return self.rows * self.blocks

    def matrix(self, weight: np.ndarray) -> Doubles:
        """(rows, width)."""
        return np.ascontiguousarray(weight.transpose(self.order), np.float64).reshape(self.rows, self.width)

    def stored(self, matrix: Doubles) -> Doubles:
        """(rows, width) in the stored shape."""
        back = [self.order.index(axis) for axis in range(len(self.shape))]
        return matrix.reshape(self.turned).transpose(back)

    def whole(self, matrix: Doubles) -> Doubles:
        """The blocks that are not shorter, (n, block)."""
        full = self.width // self.block
        return matrix[:, : full * self.block].reshape(-1, self.block)

    def joined(self, signals: Doubles) -> Doubles:
        """Signals (rows * blocks, block) as (rows, width)."""
        return signals.reshape(self.rows, -1)[:, : self.width]

    def cut(self, matrix: Doubles) -> Doubles:
        """The inverse of `joined`, short blocks filled up with zeros."""
        more = self.blocks * self.block - self.width
        return np.pad(matrix, ((0, 0), (0, more))).reshape(-1, self.block)

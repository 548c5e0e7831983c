"""What a layer computes, in numbers: its sizes, and the multiplications of a chain of smaller layers in its place."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

NODE_BYTES = 160
"""What a further node with its names costs in the file, about."""


@dataclass(frozen=True, kw_only=True)
class StageShape:
    """One layer of a chain, of the weight shape (outputs, inputs, *kernel), or (outputs, 1, *kernel) if depthwise."""

    outputs: int
    inputs: int
    kernel: tuple[int, ...]
    carries: tuple[int, ...] = ()
    """Spatial axes whose stride, padding and dilation it has; of the others it has none."""
    depthwise: bool = False

    @property
    def weights(self) -> int:
        return self.outputs * (1 if self.depthwise else self.inputs) * prod(self.kernel)


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """A matrix product (no kernel) or an ungrouped convolution.

    `before` and `after` are the spatial sizes of what goes in and comes out; a matrix product has none, and is done
    `rows` times. Where sizes are unknown they stand for those of one output position, and `known` is False.
    """

    outputs: int
    inputs: int
    kernel: tuple[int, ...] = ()
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    rows: int = 1
    known: bool = True

    @property
    def whole(self) -> tuple[StageShape, ...]:
        """The layer as it is, as a chain of one."""
        axes = tuple(range(len(self.kernel)))
        return (StageShape(outputs=self.outputs, inputs=self.inputs, kernel=self.kernel, carries=axes),)

    @property
    def wide_axes(self) -> tuple[int, ...]:
        """Spatial axes along which the kernel has more than one tap."""
        return tuple(axis for axis, size in enumerate(self.kernel) if size > 1)

    def macs(self, chain: Sequence[StageShape]) -> int:
        """Multiply-accumulates of one sample."""
        sizes, total = list(self.before), 0
        for stage in chain:
            for axis in stage.carries:
                sizes[axis] = self.after[axis]
            total += self.rows * prod(sizes) * stage.weights
        return total

    def saves(self, chain: Sequence[StageShape], width: int) -> bool:
        """Whether the chain takes fewer multiplications and, at `width` bytes a weight, a smaller file."""
        added = NODE_BYTES * (len(chain) - 1)
        smaller = width * weights(chain) + added < width * weights(self.whole)
        return smaller and self.macs(chain) < self.macs(self.whole)


def weights(chain: Sequence[StageShape]) -> int:
    return sum(stage.weights for stage in chain)

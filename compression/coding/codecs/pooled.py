"""Signed bytes around zero, coded together with all bytes of the batch that are spread as wide."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from compression.coding.classes import MAX_CLASSES, Classes, read_classes
from compression.coding.codec import Array, Coded, Decode, Encode, Form, Incoming, Units, check

MAX_POOL = 63
MAX_TAPS = 64
_FEWEST = 1024
_SHORT = 512
_FEW = 40
"""Values that short vectors have which share a pool: bytes of exponents."""
_ROUNDS = 4
_OCTAVE = 4
"""Pools in a doubling of the spread."""
_LEAST = 0.25
"""The mean magnitude of pool 0."""
_COARSE_UNITS = 1 << 16
"""Up to so many, pools are half as many, since each block takes its time."""


class Pooled:
    """A row's class, a kernel's class and a tap's add up to the number of a pool, from which the next bytes come."""

    number: ClassVar[int] = 14
    name: ClassVar[str] = "pooled"

    def encode(self, units: Units, nested: Encode) -> Iterator[Coded]:
        if units.width != 1 or units.count < _FEWEST or min(units.rows, units.columns) < 2:
            return
        values = units.values.view(np.int8).reshape(units.rows, units.columns)
        for taps in sorted({1, units.taps if units.taps <= MAX_TAPS else 1}):
            yield self._coded(values, taps)

    def _coded(self, values: Array, taps: int) -> Coded:
        magnitudes = np.abs(values.astype(np.float32)).reshape(len(values), -1, taps)
        step = 2 if values.size <= _COARSE_UNITS else 1
        base, (rows, kernels, places) = _levels(magnitudes, step)
        side, runs = Classes(rows, kernels).coded()
        own = bytes([base, step, taps, *places[: taps if taps > 1 else 0].tolist()])
        order = Classes(rows, (kernels[:, None] + places).reshape(-1))
        numbers = _numbers(base, step, order.shape)
        blocks = order.blocks(values.view(np.uint8))
        pools = [(number, block) for number, block in zip(numbers, blocks, strict=True) if len(block)]
        return Coded(names=(self.name,), side=own + side, runs=runs, pools=tuple(pools))

    def decode(self, incoming: Incoming, form: Form, nested: Decode) -> Array:
        check(form.width == 1, f"pools for units of {form.width} bytes")
        base, step, taps = (incoming.side.byte() for _ in range(3))
        check(taps > 0 and form.columns % taps == 0, f"kernels of {taps} taps")
        places = np.frombuffer(incoming.side.take(taps if taps > 1 else 0) or b"\0", np.uint8)
        check(int(places.max()) < MAX_CLASSES, "the class of a tap is too high")
        own = read_classes(incoming, form.rows, form.columns // taps)
        order = Classes(own.rows, (own.columns[:, None] + places.astype(np.int64)).reshape(-1))
        ordered = np.empty((form.rows, form.columns), np.uint8)
        numbers = _numbers(base, step, order.shape)
        for number, (above, below, left, right) in zip(numbers, order.bounds(), strict=True):
            if above < below and left < right:
                block = incoming.pools.take(number, (below - above) * (right - left))
                ordered[above:below, left:right] = block.reshape(below - above, right - left)
        return order.restored(ordered).reshape(-1)


class Shared:
    """The next bytes of a pool, each and an offset modulo 256: of short vectors that are alike but for that."""

    number: ClassVar[int] = 16
    name: ClassVar[str] = "shared"

    def encode(self, units: Units, nested: Encode) -> Iterator[Coded]:
        if units.width != 1 or not 1 < units.count <= _SHORT or len(units.distinct[0]) > _FEW:
            return
        offset = int(units.distinct[0][-1])
        chances = units.distinct[1] / units.count
        number = MAX_POOL + 1 + round(-2 * float(chances @ np.log2(chances)))
        block = (units.values - np.uint8(offset)).astype(np.uint8)
        yield Coded(names=(self.name,), side=bytes([number, offset]), pools=((number, block),))

    def decode(self, incoming: Incoming, form: Form, nested: Decode) -> Array:
        check(form.width == 1, f"pools for units of {form.width} bytes")
        number, offset = incoming.side.byte(), incoming.side.byte()
        return incoming.pools.take(number, form.count) + np.uint8(offset)


def _numbers(base: int, step: int, shape: tuple[int, int]) -> list[int]:
    """The pool of each block."""
    rows, columns = shape
    return [min(base + step * (row + column), MAX_POOL) for row in range(rows) for column in range(columns)]


def _levels(magnitudes: Array, step: int) -> tuple[int, tuple[Array, Array, Array]]:
    """The first pool, and classes along each axis, such that a unit's mean magnitude is near that of its pool."""
    factors = [np.ones(size) for size in magnitudes.shape]
    for _ in range(_ROUNDS):
        for axis in range(3):
            weights = 1 / np.multiply.outer(*(factors[other] for other in range(3) if other != axis))
            factors[axis] = (np.moveaxis(magnitudes, axis, 0) * weights).mean(axis=(1, 2)) + 0.02
    whole = [np.rint(_OCTAVE / step * np.log2(factor)).astype(np.int64) for factor in factors]
    lows = [max(int(one.min()), int(one.max()) - MAX_CLASSES + 1) for one in whole]
    rows, kernels, places = (np.maximum(one - low, 0) for one, low in zip(whole, lows, strict=True))
    base = step * sum(lows) - round(_OCTAVE * np.log2(_LEAST))
    return min(max(base, 0), MAX_POOL), (rows, kernels, places)

"""Signed bytes whose rare large values are kept apart, so that short codes are left for the others."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from compression.coding.codec import Array, Coded, Decode, Encode, Form, Incoming, Units, check, joined

_FEWEST = 1 << 12
_SHARES = (0.01, 0.004)
"""Of units that lie beyond the limit, worth trying."""


class Tails:
    """Units of which -limit and limit stand for the next of those that are kept apart.

    zstd's Huffman codes have 11 bits at most: a hundred rare values would take 5% of the room for codes.
    """

    number: ClassVar[int] = 15
    name: ClassVar[str] = "tails"

    def encode(self, units: Units, nested: Encode) -> Iterator[Coded]:
        if units.width != 1 or units.count < _FEWEST:
            return
        values = units.values.view(np.int8).astype(np.int16)
        counts = np.bincount(np.abs(values), minlength=129)
        beyond = counts[::-1].cumsum()[::-1] / units.count
        limits = dict.fromkeys(int(np.argmax(beyond <= share)) for share in _SHARES)
        for limit in limits:
            if 0 < limit < 127 and beyond[limit + 1]:
                near = np.clip(values, -limit, limit).astype(np.int8).view(np.uint8)
                apart = units.values[np.abs(values) >= limit]
                yield joined(self.name, bytes([limit]), nested(Units(near)), nested(Units(apart)))

    def decode(self, incoming: Incoming, form: Form, nested: Decode) -> Array:
        limit = incoming.side.byte()
        check(form.width == 1 and 0 < limit < 128, "tails of an unknown kind")
        values = nested(form.flat(form.count)).copy()
        beyond = np.flatnonzero((values == limit) | (values == 256 - limit))
        values[beyond] = nested(form.flat(len(beyond)))
        return values

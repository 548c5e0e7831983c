"""Units in parts: bytes by their place, and few distinct values as a list with places in it."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from compression.coding.codec import Array, Coded, Decode, Encode, Form, Incoming, Units, check, joined
from compression.coding.wire import varint

MAX_PALETTE = 1 << 16
_WORTH = 4096
_SHARE = 3
_SAMPLE = 4096


class Planes:
    """Byte planes, the lowest first. Rotated, the sign goes last, so that a float's exponent fills one byte."""

    number: ClassVar[int] = 6
    name: ClassVar[str] = "planes"

    def encode(self, units: Units, nested: Encode) -> Iterator[Coded]:
        if units.width == 1:
            return
        sample = Units(units.values[:_SAMPLE])
        offers = [self._split(sample, rotated, nested).cost for rotated in (False, True)]
        yield self._split(units, offers[1] < offers[0], nested)

    def _split(self, units: Units, rotated: bool, nested: Encode) -> Coded:
        values = _rotated(units.values, 1) if rotated else units.values
        planes = values.view(np.uint8).reshape(-1, units.width)
        parts = [nested(Units(plane.copy(), units.columns)) for plane in planes.T]
        return joined(self.name, bytes([rotated]), *parts)

    def decode(self, incoming: Incoming, form: Form, nested: Decode) -> Array:
        rotated = incoming.side.byte()
        check(rotated <= 1 and form.width > 1, "planes of an unknown kind")
        planes = np.empty((form.count, form.width), np.uint8)
        for place in range(form.width):
            planes[:, place] = nested(Form(form.count, 1, form.columns))
        values = planes.view(form.dtype).reshape(-1)
        return _rotated(values, 8 * form.width - 1) if rotated else values


class Palette:
    """The distinct units in order, and for each unit its place among them (a codebook)."""

    number: ClassVar[int] = 7
    name: ClassVar[str] = "palette"

    def encode(self, units: Units, nested: Encode) -> Iterator[Coded]:
        if units.width == 1 or not units.count:
            return
        distinct, _ = units.distinct
        if len(distinct) > min(_WORTH, units.count // _SHARE):
            return
        width = 1 if len(distinct) <= 256 else 2
        places = np.searchsorted(distinct, units.values).astype(f"<u{width}")
        entries = nested(Units(distinct))
        yield joined(self.name, varint(len(distinct) - 1), entries, nested(Units(places, units.columns)))

    def decode(self, incoming: Incoming, form: Form, nested: Decode) -> Array:
        size = incoming.side.varint(min(MAX_PALETTE, form.count) - 1 if form.count else 0) + 1
        entries = nested(form.flat(size))
        width = 1 if size <= 256 else 2
        places = nested(Form(form.count, width, form.columns))
        check(not len(places) or int(places.max()) < size, "a place lies outside its palette")
        return entries[places]


def _rotated(values: Array, left: int) -> Array:
    bits = 8 * values.dtype.itemsize
    kind = values.dtype.type
    return np.asarray((values << kind(left)) | (values >> kind(bits - left)))

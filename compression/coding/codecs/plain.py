"""Units as they are, one unit repeated, and zstd frames."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from compression.coding.codec import Array, Coded, Decode, Encode, Form, Incoming, Units
from compression.coding.frames import literals_only, packed, unpacked
from compression.coding.wire import MAX_PAYLOAD_BYTES, varint

_QUICK, _STRONG = 3, 22
_SMALL_BYTES = 1 << 16


class Raw:
    """The bytes, little-endian."""

    number: ClassVar[int] = 0
    name: ClassVar[str] = "raw"

    def encode(self, units: Units, nested: Encode) -> Iterator[Coded]:
        yield Coded(names=(self.name,), side=units.values.tobytes())

    def decode(self, incoming: Incoming, form: Form, nested: Decode) -> Array:
        return np.frombuffer(incoming.side.take(form.count * form.width), form.dtype)


class Constant:
    """One unit, repeated."""

    number: ClassVar[int] = 1
    name: ClassVar[str] = "constant"

    def encode(self, units: Units, nested: Encode) -> Iterator[Coded]:
        if units.count and (units.values == units.values[0]).all():
            yield Coded(names=(self.name,), side=units.values[:1].tobytes())

    def decode(self, incoming: Incoming, form: Form, nested: Decode) -> Array:
        unit = np.frombuffer(incoming.side.take(form.width), form.dtype)
        return np.repeat(unit, form.count)


class Zstd:
    """A zstd frame of the bytes, little-endian; its Huffman coder alone where nothing repeats."""

    number: ClassVar[int] = 2
    name: ClassVar[str] = "zstd"

    def encode(self, units: Units, nested: Encode) -> Iterator[Coded]:
        data = units.values.tobytes()
        if len(data) > _SMALL_BYTES:
            plain, quick = literals_only(data), packed(data, _QUICK)
            yield self._coded(plain)
            if len(quick) > 0.999 * len(plain):
                return
        yield self._coded(packed(data, _STRONG))

    def _coded(self, frame: bytes) -> Coded:
        return Coded(names=(self.name,), side=varint(len(frame)) + frame)

    def decode(self, incoming: Incoming, form: Form, nested: Decode) -> Array:
        frame = incoming.side.take(incoming.side.varint(MAX_PAYLOAD_BYTES))
        return np.frombuffer(unpacked(frame, form.count * form.width), form.dtype)

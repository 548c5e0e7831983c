"""Canonical Huffman codes, as Deep Compression stores its indices (Han, Mao and Dally 2016, section 4)."""

import heapq
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from compression.coding.codec import Array, Coded, Decode, Encode, Form, Incoming, Units, check
from compression.coding.wire import MAX_PAYLOAD_BYTES, varint

LONGEST = 15
LANE_UNITS = 4096
MAX_LANES = 256
_MOST = 1 << 11
"""Units in whose coding the shorter table may outweigh whole bits."""


class Huffman:
    """Each value has a code of 1 to 15 bits; the units are cut into lanes, so that many are read at once."""

    number: ClassVar[int] = 11
    name: ClassVar[str] = "huffman"

    def encode(self, units: Units, nested: Encode) -> Iterator[Coded]:
        if units.width != 1 or units.count > _MOST or len(units.distinct[0]) < 2:
            return
        lengths = code_lengths(units.histogram)
        codes = canonical(lengths)
        first, last = int(units.distinct[0][0]), int(units.distinct[0][-1])
        own = bytes([first, last - first]) + _nibbles(lengths[first : last + 1])
        lanes = [
            _bits(codes[part], lengths[part]) for part in np.array_split(units.values, lanes_of(units.count))
        ]
        own += b"".join(varint(len(lane)) for lane in lanes) + b"".join(lanes)
        yield Coded(names=(self.name,), side=own)

    def decode(self, incoming: Incoming, form: Form, nested: Decode) -> Array:
        check(form.width == 1, f"codes for units of {form.width} bytes")
        first, size = incoming.side.byte(), incoming.side.byte() + 1
        check(first + size <= 256, "codes for values above 255")
        packed = np.frombuffer(incoming.side.take(-(-size // 2)), np.uint8)
        lengths = np.zeros(256, np.int64)
        lengths[first : first + size] = np.stack([packed >> 4, packed & 15], axis=1).reshape(-1)[:size]
        check(int((1 << LONGEST - lengths[lengths > 0]).sum()) == 1 << LONGEST, "the codes are not complete")
        sizes = [incoming.side.varint(MAX_PAYLOAD_BYTES) for _ in range(lanes_of(form.count))]
        data = np.frombuffer(incoming.side.take(sum(sizes)) + bytes(4), np.uint8)
        return _read(data, np.asarray(sizes), lengths, form.count)


def lanes_of(count: int) -> int:
    """A lane for each 4096 units, 256 at most. The first lanes have one unit more where they cannot be equal."""
    return min(max(count // LANE_UNITS, 1), MAX_LANES)


def code_lengths(histogram: Array) -> Array:
    """Of an optimal prefix code; where one is longer than 15 bits, of that for halved counts."""
    counts = histogram.astype(np.int64)
    while True:
        lengths = _optimal(counts)
        if lengths.max() <= LONGEST:
            return lengths
        counts = np.where(counts > 0, counts // 2 + 1, 0)


def _optimal(counts: Array) -> Array:
    lengths = np.zeros(len(counts), np.int64)
    heap = [(int(counts[value]), int(value), [int(value)]) for value in np.flatnonzero(counts)]
    heapq.heapify(heap)
    while len(heap) > 1:
        (few, _, left), (more, tie, right) = heapq.heappop(heap), heapq.heappop(heap)
        lengths[left + right] += 1
        heapq.heappush(heap, (few + more, tie, left + right))
    return lengths


def canonical(lengths: Array) -> Array:
    """Codes that count up through the values, the shorter first (as in deflate, RFC 1951, section 3.2.2)."""
    codes = np.zeros(len(lengths), np.int64)
    code = 0
    for length in range(1, LONGEST + 1):
        for value in np.flatnonzero(lengths == length):
            codes[value] = code
            code += 1
        code <<= 1
    return codes


def _nibbles(lengths: Array) -> bytes:
    even = np.append(lengths, 0)[: len(lengths) + len(lengths) % 2].astype(np.uint8)
    return (even[0::2] << 4 | even[1::2]).astype(np.uint8).tobytes()


def _bits(codes: Array, lengths: Array) -> bytes:
    """Codes one after the other, each from its high bit, filled with zeros to a byte."""
    shifts = LONGEST - 1 - np.arange(LONGEST)
    bits = (codes << LONGEST - lengths)[:, None] >> shifts & 1
    return np.packbits(bits[np.arange(LONGEST) < lengths[:, None]].astype(np.uint8)).tobytes()


def _read(data: Array, sizes: Array, lengths: Array, count: int) -> Array:
    """All lanes in step: a window of as many bits as the longest code has tells its next value and how far to go."""
    values, steps = _windows(lengths)
    if len(sizes) == 1:
        return _read_one(
            data.tobytes(), int(sizes[0]), values.tobytes(), steps.astype(np.uint8).tobytes(), count
        )
    mask = len(values) - 1
    unused = 24 - mask.bit_length()
    ends = 8 * np.cumsum(sizes)
    places = ends - 8 * sizes
    long = -(-count // len(sizes))
    found = np.empty((long, len(sizes)), np.uint8)
    wide = data.astype(np.int64)
    last = len(data) - 3
    more = count % len(sizes) or len(sizes)
    for step in range(long):
        if step == long - 1:
            places = places[:more]
        at = np.minimum(places >> 3, last)
        window = (wide[at] << 16 | wide[at + 1] << 8 | wide[at + 2]) >> unused - (places & 7) & mask
        found[step, : len(places)] = values[window]
        places = places + steps[window]
    check(bool((-(-places // 8) * 8 <= ends[: len(places)]).all()), "a lane is longer than its bytes")
    flat = np.asarray(found.T)
    return np.concatenate([flat[:more].reshape(-1), flat[more:, :-1].reshape(-1)]).astype(np.uint8)


def _read_one(data: bytes, size: int, values: bytes, steps: bytes, count: int) -> Array:
    """The same for one lane, for which plain integers are quicker."""
    found = bytearray(count)
    place, last, mask = 0, len(data) - 3, len(values) - 1
    unused = 24 - mask.bit_length()
    for index in range(count):
        at = min(place >> 3, last)
        window = (data[at] << 16 | data[at + 1] << 8 | data[at + 2]) >> unused - (place & 7) & mask
        found[index] = values[window]
        place += steps[window]
    check(-(-place // 8) <= size, "a lane is longer than its bytes")
    return np.frombuffer(found, np.uint8)


def _windows(lengths: Array) -> tuple[Array, Array]:
    """For all bits of the longest code's length, the value whose code they begin with, and its length."""
    used = np.flatnonzero(lengths)
    order = used[np.lexsort((used, lengths[used]))]
    spans = 1 << int(lengths.max()) - lengths[order]
    return np.repeat(order, spans).astype(np.uint8), np.repeat(lengths[order], spans)

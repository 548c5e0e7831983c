"""A chunk as stored: the cheapest coding of its units, found by trying, and reading it back."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression.coding.codec import (
    MAX_DEPTH,
    Codec,
    Coded,
    Form,
    Incoming,
    Units,
    check,
    numbered,
)
from compression.coding.codecs.entropy import Ans, Grid, Sorted
from compression.coding.codecs.huffman import Huffman
from compression.coding.codecs.lines import Lines
from compression.coding.codecs.plain import Constant, Raw, Zstd
from compression.coding.codecs.sparse import Gaps, Mask
from compression.coding.codecs.splitting import Palette, Planes
from compression.coding.codecs.steps import Steps
from compression.coding.symbols import Symbols, encode
from compression.coding.wire import Cursor, varint
from compression.errors import PackedError

Array = NDArray[Any]
CODECS: tuple[Codec, ...] = (
    Raw(),
    Constant(),
    Zstd(),
    Ans(),
    Grid(),
    Sorted(),
    Planes(),
    Palette(),
    Mask(),
    Gaps(),
    Lines(),
    Huffman(),
    Steps(),
)
_BY_NUMBER = {codec.number: codec for codec in CODECS}
PLAIN = CODECS[:4]
"""Those that nest nothing and read no rows."""
_LARGE_UNITS = 1 << 16
_NOISE_BITS = 7.98
SYMBOLS_MUST_SAVE = 0.01
"""In a large chunk, an ANS symbol for every byte is worth its time (25 ns against 1 ns) where it saves so much."""


LINES_MUST_SAVE = 0.03
"""They are read line by line, ten times slower than a mask."""


def encode_chunk(units: Units) -> tuple[bytes, tuple[str, ...]]:
    """The payload, and the names of the codecs in it."""
    coded = _best(units, 1)
    return varint(len(coded.side)) + coded.side + encode(coded.runs), coded.names


def decode_chunk(payload: bytes, form: Form) -> tuple[Array, tuple[str, ...]]:
    """The units and the names of their codecs.

    Raises:
        PackedError: the payload is damaged.
    """
    head = Cursor(payload, "chunk")
    side = Cursor(head.take(head.varint(len(payload))), "chunk")
    incoming = Incoming(side, Symbols(head.take(head.left)))
    units = _decoded(incoming, form, 1)
    side.end()
    incoming.symbols.end()
    return units, tuple(dict.fromkeys(incoming.names))


def _best(units: Units, depth: int) -> Coded:
    """The least of what all codecs offer."""
    if not units.count:
        return _offers(Raw(), units, depth)[0]
    constant = _offers(Constant(), units, depth)
    if constant:
        return constant[0]
    plain = depth == MAX_DEPTH or _is_noise(units)
    offers = [offer for codec in (PLAIN if plain else CODECS) for offer in _offers(codec, units, depth)]
    return min(offers, key=lambda offer: _weighed(offer, units))


def _is_noise(units: Units) -> bool:
    """Bytes so even that no table could save anything; only repetitions could."""
    if units.width > 1 or units.count < _LARGE_UNITS:
        return False
    chances = units.histogram[units.histogram > 0] / units.count
    return bool(-(chances * np.log2(chances)).sum() > _NOISE_BITS)


def _offers(codec: Codec, units: Units, depth: int) -> list[Coded]:
    return [
        numbered(codec.number, coded) for coded in codec.encode(units, lambda inner: _best(inner, depth + 1))
    ]


def _weighed(offer: Coded, units: Units) -> float:
    if offer.names[0] == Lines.name:
        return offer.cost * (1 + LINES_MUST_SAVE)
    if units.count < _LARGE_UNITS:
        return offer.cost
    return offer.cost * (1 + SYMBOLS_MUST_SAVE * min(offer.symbols / (units.count * units.width), 1.0))


def _decoded(incoming: Incoming, form: Form, depth: int) -> Array:
    number = incoming.side.byte()
    codec = _BY_NUMBER.get(number)
    if codec is None:
        raise PackedError(f"there is no codec {number}")
    check(depth <= MAX_DEPTH, f"codecs are nested more than {MAX_DEPTH} deep")
    check(form.count > 0 or number == Raw.number, "no units, and not raw")
    incoming.names.append(codec.name)
    units = codec.decode(incoming, form, lambda inner: _decoded(incoming, inner, depth + 1))
    return np.asarray(units)

"""Chunks as stored: the cheapest coding of the units of each, found by trying, and reading them back."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression.coding.codec import (
    MAX_DEPTH,
    Codec,
    Coded,
    Form,
    Incoming,
    Pools,
    Units,
    check,
    joined,
    numbered,
)
from compression.coding.codecs.entropy import Ans, Grid, Sorted
from compression.coding.codecs.huffman import Huffman
from compression.coding.codecs.lines import Lines
from compression.coding.codecs.plain import Constant, Raw, Zstd
from compression.coding.codecs.pooled import Pooled, Shared
from compression.coding.codecs.sparse import Gaps, Mask
from compression.coding.codecs.splitting import Palette, Planes
from compression.coding.codecs.steps import Steps
from compression.coding.codecs.tails import Tails
from compression.coding.codecs.taps import Taps
from compression.coding.symbols import WORD_BYTES, Symbols, encode
from compression.coding.wire import BATCH_BYTES, CHUNK_UNITS, Cursor, varint
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
    Taps(),
    Pooled(),
    Tails(),
    Shared(),
)
_BY_NUMBER = {codec.number: codec for codec in CODECS}
PLAIN = CODECS[:4]
"""Those that nest nothing and read no rows."""
WITHOUT_POOLS = tuple(codec for codec in CODECS if codec.name not in (Pooled.name, Shared.name))
OF_POOLS = (*PLAIN, *CODECS[8:10], CODECS[15])
"""Those that read no rows, and take from no pool."""
_LARGE_UNITS = 1 << 15
_NOISE_BITS = 7.98
SYMBOLS_MUST_SAVE = 0.04
"""In a large chunk, an ANS symbol for every byte is worth its time (20 ns against 1 ns) where it saves so much.

In what is nested in a chunk, as in a plane of its bytes, and in pools, half of it or less: it is but a part of the
chunk's time.
"""


LINES_MUST_SAVE = 0.03
"""They are read line by line, ten times slower than a mask."""


@dataclass(frozen=True)
class Chunk:
    """Whole rows of a tensor, which is told by its number in its group, from a unit on."""

    tensor: int
    start: int
    form: Form


@dataclass(frozen=True)
class Decoded:
    """A chunk that came out of a batch: its units, its codecs, and the bytes that it took there."""

    units: Array
    names: tuple[str, ...]
    stored: int


def chunks_of(tensor: int, units: int, width: int, columns: int) -> Iterator[Chunk]:
    """As many whole rows in each as fit into 2^20 units; the last has the rest."""
    step = CHUNK_UNITS // columns * columns
    for start in range(0, units, step):
        yield Chunk(tensor, start, Form(min(step, units - start), width, columns))


def batches(chunks: Iterable[Chunk]) -> Iterator[list[Chunk]]:
    """As many in each, in order, as have 8 MiB of units together."""
    batch: list[Chunk] = []
    room = BATCH_BYTES
    for chunk in chunks:
        if chunk.form.size_bytes > room:
            yield batch
            batch, room = [], BATCH_BYTES
        batch.append(chunk)
        room -= chunk.form.size_bytes
    if batch:
        yield batch


def coded(units: Units, *, pools: bool = True) -> Coded:
    """The cheapest coding of a chunk, without pools where they are not wanted."""
    return _best(units, 1, CODECS if pools else WITHOUT_POOLS)


def encode_batch(chunks: Sequence[Coded]) -> tuple[bytes, list[int]]:
    """The payload of chunks that share pools and a stream of symbols, and its bytes as `decode_batch` tells them."""
    held = _held(chunks)
    parts = (*map(_pool, held.values()), *chunks)
    stream, words = encode([run for part in parts for run in part.runs])
    counts = iter(words)
    sizes = [len(part.side) + WORD_BYTES * sum(islice(counts, len(part.runs))) for part in parts]
    side = bytes([len(held)])
    for (number, data), part in zip(held.items(), parts, strict=False):
        side += bytes([number]) + varint(len(data)) + part.side
    side += b"".join(chunk.side for chunk in chunks)
    payload = varint(len(side)) + side + stream
    own = _shares(chunks, sizes[len(held) :], Pools(held, dict(zip(held, sizes, strict=False))))
    own[0] += len(payload) - sum(own)
    return payload, own


def _held(chunks: Sequence[Coded]) -> dict[int, Array]:
    """The bytes of each pool, by its number."""
    blocks: dict[int, list[Array]] = {}
    for chunk in chunks:
        for number, block in chunk.pools:
            blocks.setdefault(number, []).append(block)
    return {number: np.concatenate(blocks[number]) for number in sorted(blocks)}


def _pool(data: Array) -> Coded:
    """One part for each 2^20 bytes."""
    pieces = (data[at : at + CHUNK_UNITS] for at in range(0, len(data), CHUNK_UNITS))
    return joined("pool", b"", *(_best(Units(piece), 2, OF_POOLS) for piece in pieces))


def _shares(chunks: Sequence[Coded], sizes: Sequence[int], pools: Pools) -> list[int]:
    """With what each chunk takes from pools."""
    own = []
    for chunk, size in zip(chunks, sizes, strict=True):
        left = pools.left_bytes
        for number, block in chunk.pools:
            pools.take(number, len(block))
        own.append(size + left - pools.left_bytes)
    return own


def decode_batch(payload: bytes, forms: Sequence[Form]) -> Iterator[Decoded]:
    """Chunk by chunk.

    Raises:
        PackedError: the payload is damaged; what came before is then worth nothing.
    """
    head = Cursor(payload, "batch")
    side = Cursor(head.take(head.varint(len(payload))), "batch")
    symbols = Symbols(head.take(head.left))
    pools = _read_pools(side, symbols, sum(form.size_bytes for form in forms))
    incoming = Incoming(side, symbols, pools)
    shared = len(payload) - incoming.left_bytes
    for form in forms:
        incoming.names.clear()
        left = incoming.left_bytes
        units = _decoded(incoming, form, 1)
        if units.dtype != form.dtype or units.shape != (form.count,):
            raise PackedError(f"{units.shape} units of {units.dtype} where {form} is due")
        yield Decoded(units, tuple(dict.fromkeys(incoming.names)), shared + left - incoming.left_bytes)
        shared = 0
    side.end()
    symbols.end()
    pools.end()


def _read_pools(side: Cursor, symbols: Symbols, most: int) -> Pools:
    """Pools of at most so many bytes together."""
    found: dict[int, Array] = {}
    stored: dict[int, int] = {}
    incoming = Incoming(side, symbols)
    for _ in range(side.byte()):
        number = side.byte()
        check(not found or number > max(found), "pools are not in order")
        size = side.varint(most)
        check(size > 0, "a pool is empty")
        most -= size
        left = incoming.left_bytes
        pieces = [
            _decoded(incoming, Form(min(CHUNK_UNITS, size - at), 1, 1), 1)
            for at in range(0, size, CHUNK_UNITS)
        ]
        found[number] = np.concatenate(pieces)
        stored[number] = left - incoming.left_bytes
    return Pools(found, stored)


def _best(units: Units, depth: int, codecs: Sequence[Codec]) -> Coded:
    """The least of what the codecs offer."""
    if not units.count:
        return _offers(Raw(), units, depth, codecs)[0]
    constant = _offers(Constant(), units, depth, codecs)
    if constant:
        return constant[0]
    plain = depth == MAX_DEPTH or _is_noise(units)
    offers = [
        offer for codec in (PLAIN if plain else codecs) for offer in _offers(codec, units, depth, codecs)
    ]
    return min(offers, key=lambda offer: _weighed(offer, units, depth))


def _is_noise(units: Units) -> bool:
    """Bytes so even that no table could save anything; only repetitions could."""
    if units.width > 1 or units.count < _LARGE_UNITS:
        return False
    chances = units.histogram[units.histogram > 0] / units.count
    return bool(-(chances * np.log2(chances)).sum() > _NOISE_BITS)


def _offers(codec: Codec, units: Units, depth: int, codecs: Sequence[Codec]) -> list[Coded]:
    coded = codec.encode(units, lambda inner: _best(inner, depth + 1, codecs))
    return [numbered(codec.number, offer) for offer in coded]


def _weighed(offer: Coded, units: Units, depth: int) -> float:
    if offer.names[0] == Lines.name:
        return offer.cost * (1 + LINES_MUST_SAVE)
    if units.count < _LARGE_UNITS:
        return offer.cost
    share = min(offer.symbols / (units.count * units.width), 1.0)
    return offer.cost * (1 + SYMBOLS_MUST_SAVE / depth * share)


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

"""Chunks of every kind come back bit by bit, and each codec is what the cheapest is made of where it should be."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compression.coding.chunks import CODECS, batches, chunks_of, coded, decode_batch, encode_batch
from compression.coding.codec import Coded, Form, Incoming, Pools, Units
from compression.coding.codecs.huffman import Huffman, canonical, code_lengths
from compression.coding.symbols import Symbols, encode
from compression.coding.wire import Cursor


def there_and_back(values: Any, columns: int = 1, taps: int = 1) -> tuple[int, tuple[str, ...]]:
    made = coded(Units(values, columns, taps))
    payload, sizes = encode_batch([made])
    (found,) = decode_batch(payload, [Form(len(values), values.dtype.itemsize, columns)])
    assert found.units.dtype == values.dtype
    np.testing.assert_array_equal(found.units, values)
    assert set(found.names) == set(made.names)
    assert sizes == [len(payload)] == [found.stored]
    assert len(payload) <= values.nbytes + 16
    return len(payload), made.names


def floats(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(0, 0.05, shape).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_units(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    kind = data.draw(st.sampled_from(["<u1", "<u2", "<u4", "<u8"]))
    few = st.sampled_from([0, 1, 5, 200]) if data.draw(st.booleans()) else None
    there_and_back(data.draw(hnp.arrays(kind, rows * columns, elements=few)), columns)


@pytest.mark.parametrize("kind", ["<u1", "<u2", "<u4", "<u8"])
def test_every_codec_alone(kind: str) -> None:
    """On units that all of them can code: mostly one value, few distinct ones, in rows of differing density."""
    rng = np.random.default_rng(3)
    density = np.outer(np.repeat([0.01, 0.6], 64), np.repeat([0.1, 1.0], 64))
    values = (rng.integers(1, 9, (128, 128)) * (rng.random((128, 128)) < density)).astype(kind).reshape(-1)
    offered = set()
    for codec in CODECS:
        for made in codec.encode(Units(values, 128), nested):
            incoming = Incoming(Cursor(made.side, codec.name), Symbols(encode(made.runs)[0]), pools_of(made))
            found = codec.decode(incoming, Form(len(values), values.itemsize, 128), raw(incoming))
            np.testing.assert_array_equal(found, values)
            incoming.side.end()
            incoming.symbols.end()
            incoming.pools.end()
            offered.add(codec.name)
    narrow = {"ans", "grid", "sorted", "pooled"} if kind == "<u1" else {"planes", "palette"}
    assert offered >= {"raw", "zstd", "mask", "gaps", "lines"} | narrow


def pools_of(made: Coded) -> Pools:
    numbers = dict.fromkeys(number for number, _ in made.pools)
    held = {number: np.concatenate([block for of, block in made.pools if of == number]) for number in numbers}
    return Pools(held, dict.fromkeys(held, 0))


def nested(units: Units) -> Any:
    return next(CODECS[0].encode(units, nested))


def raw(incoming: Incoming) -> Any:
    return lambda form: CODECS[0].decode(incoming, form, raw(incoming))


def test_noise_stays_raw() -> None:
    size, names = there_and_back(np.random.default_rng(0).integers(0, 256, 5000).astype("<u1"))
    assert names == ("raw",)
    assert size < 5010


def test_one_value_takes_nothing() -> None:
    assert there_and_back(np.full(1 << 20, 7, "<u4"), 1024)[0] < 8


def test_floats_lose_their_exponents_entropy() -> None:
    weights = floats(256, 256)
    size, names = there_and_back(weights.view("<u4").reshape(-1), 256)
    assert "planes" in names
    exponents = np.bincount((weights.view(np.uint32).reshape(-1) >> 23) & 255)
    shares = exponents[exponents > 0] / weights.size
    bound = weights.size * (24 - (shares * np.log2(shares)).sum()) / 8
    assert bound - 100 < size < bound + 300


def test_a_codebook_of_floats_takes_its_indices_entropy() -> None:
    rng = np.random.default_rng(1)
    entries = floats(32)
    places = rng.integers(0, 32, 300 * 100)
    size, names = there_and_back(entries[places].view("<u4"), 100)
    assert names[0] == "palette"
    assert size < 32 * 4 + places.size * 5 / 8 + 80


def test_dead_rows_and_columns_cost_next_to_nothing() -> None:
    """Places of non-zeros against their entropy where the density is known: 300 x 784, half of the columns dead."""
    rng = np.random.default_rng(2)
    chance = np.zeros((300, 784))
    alive = rng.permutation(784)[:392]
    chance[:, alive] = np.where(np.arange(300) < 60, 0.10, 0.01)[:, None]
    mask = rng.random((300, 784)) < chance
    values = np.where(mask, rng.integers(1, 17, mask.shape), 0).astype("<u1")
    size, names = there_and_back(values.reshape(-1), 784)
    assert names[0] == "mask"
    share = np.clip(chance, 1e-9, 1)
    places = -(np.where(mask, np.log2(share), np.log2(1 - share))).sum() / 8
    one_density = mask.size * entropy(mask.mean()) / 8
    classes = 784 / 8 + 300 * entropy(0.2) / 8
    others = mask.sum() * 4 / 8
    assert size < 1.03 * (places + classes + others) + 60
    assert size < 0.9 * (one_density + others)


def entropy(share: float) -> float:
    return float(-share * np.log2(share) - (1 - share) * np.log2(1 - share))


def test_integers_in_channels_of_differing_spread() -> None:
    rng = np.random.default_rng(4)
    spread = np.repeat([4.0, 12.0, 40.0], 128)[:, None]
    values = np.clip(np.round(rng.normal(0, spread, (384, 512))), -127, 127).astype(np.int8)
    size, names = there_and_back(values.view("<u1").reshape(-1), 512)
    assert names == ("pooled",)
    bits = np.log2(spread * np.sqrt(2 * np.pi * np.e)).mean()
    assert size < 1.01 * values.size * bits / 8 + 800


def test_kernels_are_told_by_their_taps() -> None:
    """Taps correlated by 0.9 from one to the next: all but the first hold log2(1 / sqrt(1 - 0.81)) bits less."""
    rng = np.random.default_rng(7)
    taps = [rng.normal(size=64 * 128)]
    for _ in range(8):
        taps.append(0.9 * taps[-1] + np.sqrt(0.19) * rng.normal(size=64 * 128))
    values = np.clip(np.round(30 * np.stack(taps, axis=1)), -127, 127).astype(np.int8).view("<u1").reshape(-1)
    plain, _ = there_and_back(values, 128 * 9)
    size, names = there_and_back(values, 128 * 9, 9)
    assert names == ("taps", "pooled")
    saved = values.size * 8 / 9 * np.log2(1 / np.sqrt(0.19)) / 8
    assert plain - size > 0.95 * saved
    there_and_back(values, 128 * 9, 128 * 9)
    rough = rng.integers(0, 256, values.size).astype("<u1")
    assert there_and_back(rough, 128 * 9, 9)[1] == ("raw",)


def test_chunks_share_pools() -> None:
    """Forty tensors of one spread cost little more than the entropy of all of them together."""
    rng = np.random.default_rng(8)
    tensors = [
        np.clip(np.round(rng.laplace(0, 12, (48, 48))), -127, 127).astype(np.int8).view("<u1").reshape(-1)
        for _ in range(40)
    ]
    payload, sizes = encode_batch([coded(Units(values, 48)) for values in tensors])
    found = list(decode_batch(payload, [Form(values.size, 1, 48) for values in tensors]))
    assert sum(sizes) == len(payload)
    assert [chunk.stored for chunk in found] == sizes
    for chunk, values in zip(found, tensors, strict=True):
        np.testing.assert_array_equal(chunk.units, values)
        assert chunk.names == ("pooled",)
    counts = np.bincount(np.concatenate(tensors))
    counts = counts[counts > 0]
    bound = -(counts * np.log2(counts / counts.sum())).sum() / 8
    assert len(payload) < 1.03 * bound


def test_batches_are_as_long_as_is_allowed() -> None:
    chunks = [*chunks_of(0, 9 << 20, 1, 64), *chunks_of(1, 5, 8, 5)]
    assert [chunk.start >> 20 for chunk in chunks] == [*range(9), 0]
    assert [len(batch) for batch in batches(chunks)] == [8, 2]


def test_tails_leave_short_codes_to_the_others() -> None:
    values = np.clip(np.round(np.random.default_rng(9).standard_t(3, 1 << 17) * 12), -127, 127)
    units = Units(values.astype(np.int8).view("<u1"))
    counts = units.distinct[1]
    bound = -(counts * np.log2(counts / units.count)).sum() / 8
    by_name = {codec.name: codec for codec in CODECS}

    def zstd(inner: Units) -> Coded:
        return next(by_name["zstd"].encode(inner, nested))

    best = min(by_name["tails"].encode(units, zstd), key=lambda made: made.cost)
    assert bound < best.cost < 1.01 * bound < zstd(units).cost
    incoming = Incoming(Cursor(best.side, "tails"), Symbols(b""))
    found = by_name["tails"].decode(
        incoming, Form(units.count, 1, 1), lambda form: by_name["zstd"].decode(incoming, form, raw(incoming))
    )
    np.testing.assert_array_equal(found, units.values)
    incoming.side.end()


def test_floats_on_a_grid_take_their_step_and_whole_numbers() -> None:
    rng = np.random.default_rng(6)
    whole = np.round(rng.laplace(0, 30, 40_000)).clip(-999, 999)
    values = whole.astype(np.int32).astype(np.float32) * np.float32(0.00312)
    size, names = there_and_back(values.view("<u4"), 200)
    assert names[0] == "steps"
    counts = np.unique(whole, return_counts=True)[1]
    bound = -(counts * np.log2(counts / whole.size)).sum() / 8
    assert size < 1.005 * bound + len(counts) + 60
    values[7] = np.float32(-0.0)
    assert "steps" not in there_and_back(values.view("<u4"), 200)[1]
    values[7] = np.float32(0.001)
    assert "steps" not in there_and_back(values.view("<u4"), 200)[1]


def test_lines_that_go_on_cost_less() -> None:
    """A mask of blobs on an image of 28 x 28 for each of 60 units, as pruned weights of a first layer look."""
    rng = np.random.default_rng(5)
    rough = rng.normal(size=(60, 28, 28))
    smooth = sum(np.roll(rough, (i, j), (1, 2)) for i in (-1, 0, 1) for j in (-1, 0, 1))
    mask = smooth > np.quantile(smooth, 0.97)
    values = np.where(mask, rng.integers(1, 17, mask.shape), 0).astype("<u1").reshape(-1)
    size, names = there_and_back(values, 784)
    assert names[0] == "lines"
    assert size < (0.85 * mask.size * entropy(mask.mean()) + 4 * mask.sum()) / 8


@pytest.mark.parametrize("count", [2, 1000, 4096, 30_001])
def test_huffman_codes_are_canonical_and_near_the_entropy(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example of RFC 1951, section 3.2.2, and a length against its bound."""
    codes = canonical(np.array([3, 3, 3, 3, 3, 2, 4, 4]))
    assert codes.tolist() == [2, 3, 4, 5, 6, 0, 14, 15]
    monkeypatch.setattr("compression.coding.codecs.huffman._MOST", 1 << 20)
    values = np.random.default_rng(0).geometric(0.3, count).clip(1, 40).astype("<u1")
    values[:2] = [3, 7]
    counts = np.bincount(values)[1:]
    bound = -(counts * np.log2(np.maximum(counts, 1) / values.size)).sum() / 8
    (coded,) = Huffman().encode(Units(values), nested)
    assert bound < len(coded.side) < 1.02 * bound + 60
    incoming = Incoming(Cursor(coded.side, "huffman"), Symbols(b""))
    np.testing.assert_array_equal(Huffman().decode(incoming, Form(count, 1, 1), raw(incoming)), values)


def test_huffman_codes_stay_short() -> None:
    """Counts like Fibonacci's would make a code of 24 bits."""
    counts = [1, 1]
    while len(counts) < 25:
        counts.append(counts[-1] + counts[-2])
    lengths = code_lengths(np.asarray(counts))
    assert 10 < lengths.max() <= 15
    assert (2.0 ** -lengths[lengths > 0]).sum() == 1

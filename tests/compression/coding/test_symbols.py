"""Symbol streams, against a decoder written out by hand: what docs/packed-format.md says is what is stored."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from compression.coding.symbols import (
    TOTAL,
    Run,
    Symbols,
    bernoulli,
    codes_of,
    encode,
    frequencies,
    read_table,
    table,
)
from compression.coding.wire import Cursor
from compression.errors import PackedError


def by_hand(stream: bytes, tables: Sequence[tuple[Any, int]]) -> list[list[int]]:
    """ANS with a state of 64 bits and words of 32, in plain integers."""
    words = np.frombuffer(stream + bytes(-len(stream) % 4), "<u4").tolist()
    state = 0
    found = []
    for table_, count in tables:
        starts = np.concatenate([[0], np.cumsum(table_)]).tolist()
        symbols = []
        for _ in range(count):
            while state < 1 << 32 and words:
                state = state << 32 | words.pop()
            place = state % TOTAL
            symbol = int(np.searchsorted(starts, place, side="right")) - 1
            symbols.append(symbol)
            state = (starts[symbol + 1] - starts[symbol]) * (state // TOTAL) + place - starts[symbol]
        found.append(symbols)
    assert state == 0 and not words
    return found


@pytest.mark.parametrize("alphabet", [2, 3, 10, 256, 4096])
def test_streams_are_plain_ans(alphabet: int) -> None:
    rng = np.random.default_rng(alphabet)
    runs = []
    for count in (0, 1, 7, 400):
        symbols = rng.geometric(0.3, count).clip(1, alphabet) - 1
        counts = np.bincount(np.append(symbols, alphabet - 1), minlength=alphabet)
        runs.append(Run(symbols=symbols, frequencies=frequencies(codes_of(counts))))
    runs.append(Run(symbols=rng.integers(0, 256, 50), frequencies=bernoulli(200)))
    stream, words = encode(runs)
    assert sum(words) == -(-len(stream) // 4)
    assert abs(len(stream) - sum(run.bits for run in runs) / 8) <= 5
    expected = [run.symbols.tolist() for run in runs]
    assert by_hand(stream, [(run.frequencies, len(run.symbols)) for run in runs]) == expected
    symbols = Symbols(stream)
    assert [symbols.read(run.frequencies, len(run.symbols)).tolist() for run in runs] == expected
    symbols.end()


def test_a_table_takes_the_shortest_arc_and_comes_back() -> None:
    counts = np.zeros(256, np.int64)
    counts[[254, 255, 0, 3]] = [5, 100, 1000, 1]
    made = table(counts)
    assert made.first == 254
    assert len(made.side) == 2 + 1
    assert [len(run.symbols) for run in made.runs] == [6]
    found, again = read_table(Cursor(made.side, "here"), Symbols(encode(made.runs)[0]), 256)
    assert again == made.first
    np.testing.assert_array_equal(found, made.frequencies)
    assert found.sum() == TOTAL
    assert found.min() >= 1


def test_frequencies_follow_the_formula() -> None:
    """Bytes 1, 17 and 240 stand for 16, 32 and 31 << 14."""
    weights = [0, 16, 32, 31 << 14]
    room = TOTAL - 4
    share = [weight * room // sum(weights) for weight in weights]
    share[3] += room - sum(share)
    np.testing.assert_array_equal(
        frequencies(np.array([0, 1, 17, 240], np.uint8)), [part + 1 for part in share]
    )


@pytest.mark.parametrize("code", [0, 1, 16, 100, 200, 240, 255])
def test_bernoulli_frequencies(code: int) -> None:
    found = bernoulli(code)
    assert found.sum() == TOTAL
    assert found.min() >= 1
    chance = max(1, (16 + code % 16 << code // 16) // 16) / 65536
    assert found[0b00010001] / TOTAL == pytest.approx(chance**2 * (1 - chance) ** 6, abs=2 / TOTAL)


def test_damage_is_told() -> None:
    stream, _ = encode((Run(symbols=np.arange(4), frequencies=np.full(4, TOTAL // 4)),))
    longer = Symbols(stream + b"\x01" * 8)
    longer.read(np.full(4, TOTAL // 4), 4)
    with pytest.raises(PackedError, match="longer"):
        longer.end()
    with pytest.raises(PackedError, match="zero"):
        Symbols(b"\x01\x00")
    with pytest.raises(PackedError, match="empty"):
        frequencies(np.zeros(3, np.uint8))

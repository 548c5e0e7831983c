"""Whatever the bytes are: the same file, or PackedError, in bounded memory and time."""

import io
import resource
import zlib
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx.helper
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from compression.coding import Unpacker, pack_file
from compression.coding.wire import MAGIC, VERSION, varint
from compression.errors import PackedError

LIMIT = 1 << 24


def tensors() -> list[onnx.TensorProto]:
    """Such that all codecs are used."""
    rng = np.random.default_rng(0)
    wide = np.outer(np.repeat([1.0, 9.0], 40), np.repeat([1.0, 4.0], 40))
    sparse = np.where(rng.random((80, 80)) < wide / 40, rng.integers(1, 9, (80, 80)), 0)
    arrays = {
        "int8": np.round(rng.normal(0, wide)).astype(np.int8),
        "kernels": np.cumsum(rng.normal(0, 9, (16, 8, 9)), axis=2).round().clip(-99, 99).astype(np.int8),
        "sparse": sparse.astype(np.int8),
        "codebook": rng.normal(size=8).astype(np.float32)[rng.integers(0, 8, (20, 30))],
        "floats": rng.normal(size=(20, 30)).astype(np.float32),
        "zeros": np.zeros(500, np.float32),
        "repeated": np.tile(rng.integers(0, 256, 64).astype(np.uint8), 9),
    }
    return [numpy_helper.from_array(array, name) for name, array in arrays.items()]


@cache
def sound() -> tuple[bytes, bytes]:
    """A model and its packed file."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        graph = onnx.helper.make_graph([], "g", [], [], tensors())
        path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
        pack_file(path, Path(folder) / "packed")
        return path.read_bytes(), (Path(folder) / "packed").read_bytes()


def unpack(content: bytes) -> bytes:
    return b"".join(piece.data for piece in Unpacker(io.BytesIO(content), max_output_bytes=LIMIT).pieces())


def right_or_refused(content: bytes) -> None:
    try:
        found = unpack(content)
    except PackedError as error:
        assert error.message
        assert error.where
    else:
        assert found == sound()[0]


@settings(max_examples=120, deadline=2000)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4))
@example([(0.5, 0)])
def test_changed_bytes(changes: list[tuple[float, int]]) -> None:
    content = bytearray(sound()[1])
    for place, value in changes:
        content[min(int(place * len(content)), len(content) - 1)] = value
    right_or_refused(bytes(content))


@settings(max_examples=100, deadline=2000)
@given(st.floats(0, 1), st.floats(0, 1), st.binary(max_size=12))
def test_cut_and_filled(start: float, stop: float, filling: bytes) -> None:
    _, content = sound()
    left, right = sorted((int(start * len(content)), int(stop * len(content))))
    right_or_refused(content[:left] + filling + content[right:])


def body(*parts: bytes, size: int = 1 << 20) -> bytes:
    """A file of one name with a true header, so that what follows is read."""
    head = varint(1) + varint(0) + varint(size)
    start = MAGIC + bytes([VERSION])
    crc = zlib.crc32(start + head).to_bytes(4, "little")
    return start + varint(len(head)) + head + crc + b"".join(parts)


def control(operations: bytes) -> bytes:
    from compression.coding.frames import packed

    frame = packed(operations, 3, primed=True)
    return varint(len(operations)) + varint(len(frame)) + frame


@settings(max_examples=300, deadline=2000)
@given(st.sampled_from([1, 3, 4, 7]), st.integers(1, 5000), st.integers(1, 70), st.binary(max_size=200))
def test_chunks_of_random_bytes(dtype: int, rows: int, columns: int, payload: bytes) -> None:
    """The way to the codecs is open, and their input is arbitrary."""
    operation = varint(1) + varint(0) + bytes([dtype]) + varint(rows * columns) + varint(columns)
    with pytest.raises(PackedError):
        unpack(body(control(operation), varint(len(payload)), payload))


@settings(max_examples=300, deadline=2000)
@given(
    st.integers(0, 17),
    st.binary(min_size=4, max_size=120),
    st.integers(0, 100),
    st.sampled_from([1, 3, 4, 7]),
    st.sampled_from([b"\0", b"\1\x14\x80\x01\1\7", b"\2\x14\x80\x01\1\7\x40\xff\x1f\1\0"]),
)
@example(3, b"\xff" * 4 + b"\x0f\x00\x01", 0, 1, b"\0")
@example(14, b"\x14\1\1\0\0", 0, 3, b"\1\x14\x80\x01\1\7")
def test_codecs_of_random_bytes(codec: int, rest: bytes, cut: int, dtype: int, pools: bytes) -> None:
    """After no pools, one of constant bytes, or two."""
    side = pools + bytes([codec]) + rest[: len(rest) - cut]
    payload = varint(len(side)) + side + rest[len(rest) - cut :]
    operation = varint(1) + varint(0) + bytes([dtype]) + varint(4096) + varint(64)
    with pytest.raises(PackedError):
        unpack(body(control(operation), varint(len(payload)), payload))


@settings(max_examples=100, deadline=2000)
@given(st.binary(max_size=300))
def test_any_bytes(content: bytes) -> None:
    with pytest.raises(PackedError):
        unpack(content)
    with pytest.raises(PackedError):
        unpack(body(content))
    if content:
        with pytest.raises(PackedError):
            unpack(body(control(content)))


def test_huge_sizes_allocate_nothing() -> None:
    """A frame that claims 2^40 bytes, a tensor of 2^60 units, a header of 2^35 bytes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    claims = bytes([0xE0]) + (1 << 40).to_bytes(8, "little")
    zstd = bytes([0, 2]) + varint(len(claims)) + claims
    pool = bytes([1, 20]) + varint(1 << 40) + bytes([1, 7])
    operation = varint(1) + varint(0) + b"\x01" + varint(1 << 19) + varint(1 << 19)
    for content in (
        body(control(operation), varint(len(zstd) + 1), varint(len(zstd)), zstd),
        body(control(varint(1) + varint(0) + b"\x01" + varint(1 << 60) + varint(1))),
        body(size=1 << 35),
        body(control(operation), varint(len(pool) + 1), varint(len(pool)), pool),
        body(control(operation), varint(8 << 20)),
        body(varint(1 << 21), varint(1 << 21), b"x"),
    ):
        with pytest.raises(PackedError):
            unpack(content)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100_000


def test_names_stay_inside() -> None:
    for name in (b"../x", b"/x", b"a/../../x", b"c:x", b"\xff"):
        head = varint(2) + varint(0) + varint(1) + varint(len(name)) + name + varint(1)
        start = MAGIC + bytes([VERSION])
        crc = zlib.crc32(start + varint(len(head))[:0] + head).to_bytes(4, "little")
        with pytest.raises(PackedError, match=r"outside|UTF-8"):
            unpack(start + varint(len(head)) + head + crc)

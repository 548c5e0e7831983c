"""Throws damaged and made-up packed files at the reader: `python -m benchmarks.fuzz_packed --minutes 60`.

Each input is a sound file with bytes changed, cut, doubled or swapped, or a true header before random structure and
chunks that begin like codecs. Whatever comes must be the right file or `PackedError`, in bounded memory and time.
"""

import argparse
import io
import resource
import sys
import tempfile
import time
import zlib
from pathlib import Path
from random import Random

import numpy as np
import onnx
from onnx import numpy_helper

from compression.coding import Unpacker, pack_file
from compression.coding.frames import packed
from compression.coding.wire import MAGIC, VERSION, varint
from compression.errors import PackedError

OUTPUT_LIMIT = 1 << 24
SECONDS_LIMIT = 5.0
GROWTH_LIMIT_BYTES = 400 << 20
CODECS = 17


def sound_files() -> list[tuple[bytes, bytes]]:
    """Models of several kinds and their packed files."""
    return [_sound(seed) for seed in range(8)]


def _sound(seed: int) -> tuple[bytes, bytes]:
    rng = np.random.default_rng(seed)
    rows, columns = int(rng.integers(4, 120)), int(rng.integers(4, 120))
    wide = np.outer(rng.uniform(1, 9, rows), rng.uniform(1, 4, columns))
    arrays = {
        "int8": np.round(rng.normal(0, wide)).clip(-127, 127).astype(np.int8),
        "kernels": np.cumsum(rng.normal(0, 9, (24, rows, 9)), axis=2).round().clip(-99, 99).astype(np.int8),
        "sparse": np.where(
            rng.random((rows, columns)) < wide / 90, rng.integers(1, 9, (rows, columns)), 0
        ).astype(np.int8),
        "rare": np.where(rng.random((rows, columns)) < 0.01, 1.5, 0).astype(np.float32),
        "codebook": rng.normal(size=8).astype(np.float16)[rng.integers(0, 8, (rows, columns))],
        "floats": rng.normal(size=(rows, columns)).astype(np.float32),
        "constant": np.full(300, 7, np.int64),
        "repeated": np.tile(rng.integers(0, 256, 64).astype(np.uint8), 20),
    }
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        pack_file(path, Path(folder) / "packed")
        return path.read_bytes(), (Path(folder) / "packed").read_bytes()


def mutated(content: bytes, random: Random) -> bytes:
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 4, 16))):
        at = random.randrange(len(data))
        match random.randrange(6):
            case 0 | 1:
                data[at] ^= 1 << random.randrange(8)
            case 2:
                data[at] = random.choice((0, 1, 127, 128, 255, random.randrange(256)))
            case 3:
                del data[at : at + random.randrange(1, 9)]
            case 4:
                data[at:at] = random.randbytes(random.randrange(1, 9))
            case _:
                other = random.randrange(len(data))
                data[at : at + 8] = data[other : other + 8]
        if not data:
            break
    return bytes(data)


def made_up(random: Random) -> bytes:
    """A true header and a group of one tensor, then a chunk that begins like a codec, or a part of one."""
    large = random.random() < 0.01
    columns = random.choice((1, 7, 64, 1000)) if large else random.choice((1, 7, 32))
    units = columns * (random.choice((64, 1000)) if large else random.choice((1, 3, 32)))
    kind = random.choice((1, 3, 4, 7))
    operations = varint(1) + varint(0) + bytes([kind]) + varint(units) + varint(columns)
    frame = packed(operations, 3, primed=True)
    side = _pools(random) + b"".join(_part(random) for _ in range(random.randrange(1, 5)))
    stream = random.randbytes(random.choice((0, 3, 8, 64, 400)))
    payload = varint(len(side)) + side + stream
    names = varint(1) + varint(0) + varint(units * 8)
    start = MAGIC + bytes([VERSION])
    header = start + varint(len(names)) + names + zlib.crc32(start + names).to_bytes(4, "little")
    return header + varint(len(operations)) + varint(len(frame)) + frame + varint(len(payload)) + payload


def _pools(random: Random) -> bytes:
    """Mostly none or constant ones, so that what follows is reached."""
    count = random.choice((0, 0, 1, 2, 3))
    numbers = sorted(random.sample(range(80), count))
    return bytes([count]) + b"".join(
        bytes([number])
        + varint(random.choice((1, 7, 32, 500)))
        + (bytes([1, 7]) if random.random() < 0.8 else _part(random))
        for number in numbers
    )


def _part(random: Random) -> bytes:
    few = bytes(random.choice((0, 1, 2, 3, 16, 100, 240, 255)) for _ in range(random.randrange(24)))
    return bytes([random.randrange(CODECS)]) + (few if random.random() < 0.7 else random.randbytes(40))


def judge(content: bytes, right: bytes | None) -> str:
    """What became of an input; raises whatever a reader must not."""
    try:
        pieces = Unpacker(io.BytesIO(content), max_output_bytes=OUTPUT_LIMIT).pieces()
        found = b"".join(piece.data for piece in pieces)
    except PackedError:
        return "refused"
    if found != right:
        raise AssertionError("other bytes came out, unnoticed")
    return "right"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random, files = Random(options.seed), sound_files()
    told = {"right": 0, "refused": 0}
    began, slowest = time.monotonic(), 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while time.monotonic() - began < 60 * options.minutes:
        right, whole = random.choice(files)
        content = mutated(whole, random) if random.random() < 0.6 else made_up(random)
        start = time.process_time()
        try:
            told[judge(content, right)] += 1
        except BaseException:
            Path("fuzz_packed_failure.bin").write_bytes(content)
            print("the input is in fuzz_packed_failure.bin", file=sys.stderr)
            raise
        slowest = max(slowest, time.process_time() - start)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    print(
        f"{sum(told.values())} inputs: {told['refused']} refused, {told['right']} right all the same; "
        f"slowest {slowest:.2f} s, memory grew by {grown / 1e6:.0f} MB"
    )
    return int(slowest > SECONDS_LIMIT or grown > GROWTH_LIMIT_BYTES)


if __name__ == "__main__":
    sys.exit(main())

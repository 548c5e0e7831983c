"""zstd frames without their magic number, and reading them within bounds."""

from functools import cache
from importlib.resources import files

import zstandard

from compression.errors import PackedError

WINDOW_BYTES = 1 << 23
"""The most that a frame may look back."""
DICTIONARY = "structure.dict"


def packed(data: bytes, level: int, *, primed: bool = False) -> bytes:
    """One frame that names neither size nor dictionary; `primed` uses the format's dictionary."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=len(data),
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        write_content_size=0,
        write_checksum=0,
        write_dict_id=0,
    )
    prime = _dictionary() if primed else None
    return zstandard.ZstdCompressor(compression_params=parameters, dict_data=prime).compress(data)


def literals_only(data: bytes) -> bytes:
    """A frame that looks for no repetition, so that all is left to zstd's Huffman coder, table by table."""
    parameters = zstandard.ZstdCompressionParameters(
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        strategy=zstandard.STRATEGY_FAST,
        window_log=18,
        hash_log=6,
        chain_log=6,
        search_log=1,
        min_match=7,
        target_length=0,
        write_content_size=0,
        write_checksum=0,
        write_dict_id=0,
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


def unpacked(frame: bytes, size: int, *, primed: bool = False) -> bytes:
    """Exactly `size` bytes from exactly one frame. Nothing a frame says of itself is allocated.

    Raises:
        PackedError: it is no frame, or gives fewer or more bytes.
    """
    decompressor = zstandard.ZstdDecompressor(
        dict_data=_dictionary() if primed else None,
        max_window_size=WINDOW_BYTES,
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
    )
    try:
        with decompressor.stream_reader(frame) as reader:
            data = reader.read(size)
            extra = reader.read(1)
    except zstandard.ZstdError as error:
        raise PackedError(f"a zstd frame is damaged: {error}") from error
    if len(data) != size or extra:
        raise PackedError(f"a zstd frame does not hold the {size} bytes that are due")
    return bytes(data)


@cache
def _dictionary() -> zstandard.ZstdCompressionDict:
    content = files("compression.coding").joinpath(DICTIONARY).read_bytes()
    return zstandard.ZstdCompressionDict(content, dict_type=zstandard.DICT_TYPE_RAWCONTENT)

"""What a model takes on disk, as it is and under deflate, without holding it in memory."""

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

CHUNK_BYTES = 1 << 20
QUICK_ABOVE_BYTES = 256 << 20


def model_files(path: Path, model: "ir.Model") -> tuple[Path, ...]:
    """The file itself and every external data file that the loaded model reads, each once."""
    from compression.graph import external_files

    return (path, *external_files(model))


def size_bytes(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def deflated_bytes(files: Iterable[Path], *, level: int = 6) -> int:
    """Size of the files under deflate (RFC 1951), read in chunks: what zeros and repeats are worth."""
    total = 0
    for file in files:
        packer = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
        with file.open("rb") as source:
            while chunk := source.read(CHUNK_BYTES):
                total += len(packer.compress(chunk))
        total += len(packer.flush())
    return total


def deflate_level(largest_bytes: int) -> int:
    """One level for both models: the usual 6, or 1 for files that would take minutes."""
    return 1 if largest_bytes > QUICK_ABOVE_BYTES else 6

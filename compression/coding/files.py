"""Packed files back on disk, or as a stream of bytes."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from compression.coding.unpacking import Unpacker
from compression.coding.wire import MAX_OUTPUT_BYTES, Source
from compression.errors import PackedError


def unpack_file(source: Path, target: Path, *, max_output_bytes: int = MAX_OUTPUT_BYTES) -> tuple[Path, ...]:
    """Write the packed files: the first as `target`, others beside it by the names they had. Returns all paths.

    Nothing is left where the packed file is damaged; a file that was there before is then as it was.

    Raises:
        PackedError: it is damaged, no packed file, or larger than `max_output_bytes` once unpacked.
    """
    with source.open("rb") as file, ExitStack() as cleanup:
        unpacker = Unpacker(file, max_output_bytes=max_output_bytes)
        paths = [target, *(target.parent / packed.name for packed in unpacker.files[1:])]
        if len(set(paths)) < len(paths):
            raise PackedError(f"{target.name} is also the name of a file in it", where="header")
        partial = [path.with_name(path.name + ".partial") for path in paths]
        for path in partial:
            cleanup.callback(path.unlink, missing_ok=True)
        _write(unpacker, partial)
        for made, path in zip(partial, paths, strict=True):
            made.replace(path)
    return tuple(paths)


def _write(unpacker: Unpacker, paths: list[Path]) -> None:
    with ExitStack() as stack:
        sinks = []
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            sinks.append(stack.enter_context(path.open("wb")))
        for piece in unpacker.pieces():
            sinks[piece.file].write(piece.data)


def unpack_stream(source: Source, *, max_output_bytes: int = MAX_OUTPUT_BYTES) -> Iterator[bytes]:
    """The bytes of a packed file that holds one file, in order. Only once all are taken are they known to be right.

    Raises:
        PackedError: as `unpack_file` does; or it holds several files.
    """
    unpacker = Unpacker(source, max_output_bytes=max_output_bytes)
    if len(unpacker.files) > 1:
        raise PackedError(
            f"it holds {len(unpacker.files)} files, which are no one stream",
            hint="unpack it to a folder: python -m compression.coding unpack",
        )
    return (piece.data for piece in unpacker.pieces())

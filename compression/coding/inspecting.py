"""What each tensor takes in a packed file, with the names that the ONNX file gives them."""

import mmap
import tempfile
from contextlib import suppress
from pathlib import Path

from compression.coding.locating import Payload, locate
from compression.coding.packing import PackedReport, PackedTensor
from compression.coding.unpacking import Piece, Unpacker
from compression.coding.wire import MAX_OUTPUT_BYTES

_UNNAMED = "?"


def inspect(source: Path, *, max_output_bytes: int = MAX_OUTPUT_BYTES) -> PackedReport:
    """Unpacks the file, checks it to its end, and tells what its parts take.

    Raises:
        PackedError: it is damaged, or no packed file.
    """
    tensors: dict[tuple[int, int], list[Piece]] = {}
    starts: dict[tuple[int, int], int] = {}
    with source.open("rb") as file, tempfile.TemporaryFile() as scratch:
        unpacker = Unpacker(file, max_output_bytes=max_output_bytes)
        places = [0] * len(unpacker.files)
        for piece in unpacker.pieces():
            if piece.file == 0:
                scratch.write(piece.data)
            if piece.dtype:
                key = piece.file, piece.tensor
                starts.setdefault(key, places[piece.file])
                tensors.setdefault(key, []).append(_without_data(piece))
            places[piece.file] += len(piece.data)
        scratch.flush()
        names = _names(scratch.fileno(), [packed.name for packed in unpacker.files])
    told = tuple(_told(pieces, names.get((key[0], starts[key]))) for key, pieces in tensors.items())
    stored = source.stat().st_size
    return PackedReport(
        size_bytes=sum(packed.size for packed in unpacker.files),
        stored_bytes=stored,
        structure_bytes=stored - sum(tensor.stored_bytes for tensor in told),
        tensors=told,
    )


def _without_data(piece: Piece) -> Piece:
    return Piece(file=len(piece.data), data=b"", stored=piece.stored, dtype=piece.dtype, codecs=piece.codecs)


def _told(pieces: list[Piece], payload: Payload | None) -> PackedTensor:
    return PackedTensor(
        name=payload.name if payload else _UNNAMED,
        dtype=pieces[0].dtype,
        shape=payload.shape if payload else (),
        size_bytes=sum(piece.file for piece in pieces),
        stored_bytes=sum(piece.stored for piece in pieces),
        codecs=tuple(dict.fromkeys(codec for piece in pieces for codec in piece.codecs)),
    )


def _names(number: int, files: list[str]) -> dict[tuple[int, int], Payload]:
    """By file and place."""
    found: list[Payload] = []
    with suppress(ValueError), mmap.mmap(number, 0, access=mmap.ACCESS_READ) as data:
        found = locate(data)
    order = {name: index for index, name in enumerate(files)}
    return {(order.get(payload.location or "", 0), payload.start): payload for payload in found}

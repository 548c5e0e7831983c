"""`python -m compression.coding`: pack, unpack and inspect."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from compression.coding import PackedReport, inspect, pack_file, unpack_file
from compression.coding.wire import MAX_OUTPUT_BYTES
from compression.errors import CompressionError

_BITS = 8


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (CompressionError, OSError) as error:
        where = getattr(error, "where", None)
        print(f"{options.source}: {error}" + (f" ({where})" if where else ""), file=sys.stderr)
        return 1
    return 0


def _pack(options: argparse.Namespace) -> None:
    report = pack_file(options.source, options.target)
    print(
        f"{options.target}: {report.stored_bytes} bytes for {report.size_bytes}, {report.ratio:.2f}x smaller"
    )


def _unpack(options: argparse.Namespace) -> None:
    for path in unpack_file(options.source, options.target, max_output_bytes=options.max_bytes):
        print(f"{path}: {path.stat().st_size} bytes")


def _inspect(options: argparse.Namespace) -> None:
    print(table_of(inspect(options.source, max_output_bytes=options.max_bytes)))


def table_of(report: PackedReport) -> str:
    """One line a tensor: bytes as they were and as stored, the ratio, bits for each byte that was, codecs, name."""
    lines = [f"{'bytes':>12} {'stored':>12} {'ratio':>8} {'bits/byte':>9}  {'codecs':<28} tensor"]
    for tensor in report.tensors:
        ratio = tensor.size_bytes / tensor.stored_bytes
        codecs = "+".join(tensor.codecs)
        sizes = f"{tensor.size_bytes:>12} {tensor.stored_bytes:>12} {ratio:>7.2f}x {_BITS / ratio:>9.3f}"
        lines.append(f"{sizes}  {codecs:<28} {tensor.name} {list(tensor.shape)}")
    around = report.size_bytes - sum(tensor.size_bytes for tensor in report.tensors)
    lines.append(f"{around:>12} {report.structure_bytes:>12}  structure, names and checksums")
    lines.append(f"{report.size_bytes:>12} {report.stored_bytes:>12} {report.ratio:>7.2f}x  in all")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m compression.coding", description="The packed format.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    command = commands.add_parser("pack", help="pack an ONNX file and its external data")
    command.add_argument("source", type=Path)
    command.add_argument("target", type=Path)
    command.set_defaults(run=_pack)
    for name, run, what in (
        ("unpack", _unpack, "give back the files, byte for byte"),
        ("inspect", _inspect, "check a packed file and tell what each tensor takes in it"),
    ):
        command = commands.add_parser(name, help=what)
        command.add_argument("source", type=Path)
        if name == "unpack":
            command.add_argument("target", type=Path)
        command.add_argument(
            "--max-bytes", type=int, default=MAX_OUTPUT_BYTES, help="refuse what unpacks to more"
        )
        command.set_defaults(run=run)
    return parser


if __name__ == "__main__":
    sys.exit(main())

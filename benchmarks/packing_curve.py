"""Size against accuracy of `pack` under a bound: `python -m benchmarks.packing_curve IMAGES NETWORK.onnx ...`.

IMAGES is a folder as `benchmarks.images` reads it, the networks take such images and were trained on them. Writes
packing_curve.md.
"""

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from benchmarks.images import Images, read_images
from benchmarks.packing import stepped
from compression.coding import pack_file

PAGE = Path(__file__).with_name("packing_curve.md")
BOUNDS = (50, 40, 30, 25, 20, 15, 12)
BATCH = 500


@dataclass(frozen=True)
class Point:
    words: str
    stored: int
    ratio: float
    accuracy: float


def points(network: Path, images: Images) -> Iterator[Point]:
    """The first is the network as it is."""
    size = network.stat().st_size
    ways: list[tuple[str, Sequence[Mapping[str, Any]]]] = [
        ("as it is", ()),
        ("`quantize_weights`, 8 bits a channel", [{"method": "quantize_weights"}]),
        *((f"`min_sqnr_db: {db}`", [{"method": "pack", "min_sqnr_db": db}]) for db in BOUNDS),
    ]
    for words, steps in ways:
        with tempfile.TemporaryDirectory() as folder:
            path = stepped(network, steps, Path(folder))
            stored = pack_file(path, Path(folder) / "packed").stored_bytes
            point = Point(words, stored, size / stored, accuracy(path, images))
        print(network.stem, point, flush=True)
        yield point


def accuracy(path: Path, images: Images) -> float:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    right = 0
    for at in range(0, len(images.test_y), BATCH):
        (scores,) = session.run(None, {name: images.test_x[at : at + BATCH]})
        right += int((np.argmax(scores, axis=1) == images.test_y[at : at + BATCH]).sum())
    return right / len(images.test_y)


def page(tables: Mapping[str, Sequence[Point]]) -> str:
    lines = [
        "# pack under a bound",
        "",
        "By `python -m benchmarks.packing_curve`: bytes of `model.packed`, the whole file, and accuracy on the 10,000",
        "test images of Fashion-MNIST. Nothing is trained again after rounding.",
        "",
    ]
    for name, found in tables.items():
        lines += [f"## {name}", "", "| weights | packed | ratio | accuracy |", "|---|---:|---:|---:|"]
        lines += [
            f"| {point.words} | {point.stored:,} | {point.ratio:.1f}x | {point.accuracy:.2%} |"
            for point in found
        ]
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("networks", type=Path, nargs="+")
    options = parser.parse_args()
    images = read_images(options.images)
    tables = {network.stem: list(points(network, images)) for network in options.networks}
    PAGE.write_text(page(tables), encoding="utf-8")


if __name__ == "__main__":
    main()

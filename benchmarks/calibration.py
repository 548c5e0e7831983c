"""Calibration side by side with onnxruntime's and NNCF's: time and memory; writes calibration.md.

python -m benchmarks.calibration --model FILE [--images 48] [--rounds 3] [--nncf FOLDER] [--largest 1024]

The file is a detector with one image input, such as the one of ddddocr that `python -m tests.corpus.fetch FOLDER`
brings. NNCF is compared where `--nncf` names a folder that
`pip install --no-deps --target FOLDER nncf tabulate pydot pyparsing openvino-telemetry` filled.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.calibration_cases import CASES, SIDE
from compression.runtime import device_description

PAGE = Path(__file__).with_suffix(".md")
OURS = ("modelpress: minmax", "modelpress: minmax, percentile, entropy and mse")
GROWTH = OURS[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--largest", type=int, default=1024)
    parser.add_argument("--nncf", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        names = [name for name in CASES if options.nncf or "nncf" not in name]
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for _ in range(options.rounds):
            for name in names:
                found[name].append(_run(name, options.images, options, folder))
        sizes = [size for size in (16, 64, 256, 1024, 4096) if size <= options.largest]
        growth = {size: _run(GROWTH, size, options, folder) for size in sizes}
    page = "\n".join([*_head(options), *_table(found, options), *_growth(growth)])
    print(page)
    PAGE.write_text(page + "\n")


def _run(name: str, images: int, options: argparse.Namespace, folder: str) -> dict[str, Any]:
    """One case in a process of its own."""
    request = {"name": name, "images": images, "model": str(options.model), "folder": folder}
    environment = {**os.environ}
    if options.nncf and "nncf" in name:
        environment["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), str(options.nncf)])
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.calibration_cases", json.dumps(request)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(name, images, result, file=sys.stderr)
    return result


def _head(options: argparse.Namespace) -> Iterator[str]:
    yield "# Calibration, measured\n"
    yield "Written by `python -m benchmarks.calibration` on"
    yield f"{device_description('cpu')}, {os.cpu_count()} threads, Python {platform.python_version()}.\n"
    yield f"The model is `{options.model.name}`, {options.images} images of {SIDE}x{SIDE}, one per inference."
    yield "Every row is a process of its own, in which plain inference over the same images is timed first, after a"
    yield f"warm-up, so that a busy machine slows down both. Medians of {options.rounds} rounds; peak memory is the"
    yield "process's resident set, libraries and model included.\n"


def _table(found: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> Iterator[str]:
    yield f"| {options.images} images | seconds | times plain inference | peak MB |"
    yield "|---|---|---|---|"
    for name, rounds in found.items():
        good = [item for item in rounds if "failed" not in item]
        if not good:
            yield f"| {name} | {rounds[0]['failed']} | | |"
            continue
        middle = {
            key: statistics.median(item[key] for item in good) for key in ("seconds", "times", "peak_mb")
        }
        yield f"| {name} | {middle['seconds']:.1f} | {middle['times']:.2f} | {middle['peak_mb']:.0f} |"
    yield ""
    yield "Modelpress's second row learns every rule from the one run; its extremes are exact, and its histograms hold"
    yield "values drawn at random where tensors are large; the error is bounded in"
    yield "`compression/quantization/calibration.py`."
    if options.nncf:
        version = _version("nncf", options.nncf)
        yield f"NNCF {version} writes the quantized model too; its share of that is not told apart."
    yield ""


def _growth(growth: dict[int, dict[str, Any]]) -> Iterator[str]:
    yield "## Memory over the number of images\n"
    yield "| images | " + " | ".join(str(size) for size in growth) + " |"
    yield "|---|" + "---|" * len(growth)
    yield "| peak MB | " + " | ".join(f"{item['peak_mb']:.0f}" for item in growth.values()) + " |"


def _version(name: str, folder: Path) -> str:
    return next(importlib.metadata.distributions(name=name, path=[str(folder)])).version


if __name__ == "__main__":
    main()

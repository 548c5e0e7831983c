"""Deep Compression's table, by jobs through the HTTP API; writes deep_compression.md.

    python -m benchmarks.deep_compression --mnist FOLDER [--only 'lenet5*'] [--again]

LeNet-300-100 and LeNet-5 are trained here, uploaded to a service of its own with MNIST's digits and distorted copies of
them, and compressed by jobs. Whole files count, and the one that is judged is the one that came back. Finished rows
stay in deep_compression.json. benchmarks/images.py says where the digits come from.
"""

import argparse
import hashlib
import os
import time
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import onnxruntime

from api.embedded import Service
from benchmarks.client import Client
from benchmarks.deep_compression_page import Row, layers_of, page
from benchmarks.deep_compression_recipes import COPIES, RECIPES, Recipe
from benchmarks.images import Images, distorted, read_images, write_datasets
from benchmarks.measuring import Kept
from benchmarks.methods_run import EPOCHS
from benchmarks.networks import trained
from compression.coding import unpack_file
from compression.runtime import device_description

PAGE = Path(__file__).with_suffix(".md")
KEPT = Kept(PAGE.with_suffix(".json"), Row, [recipe.key for recipe in RECIPES])


def main() -> None:
    options = _parser().parse_args()
    wanted = [recipe for recipe in RECIPES if any(fnmatchcase(recipe.key, given) for given in options.only)]
    missing = [recipe for recipe in wanted if options.again or not _is_current(recipe)]
    if missing:
        digits = read_images(options.mnist)
        with Service(port=0, data=options.folder / "service") as service:
            for recipe in missing:
                KEPT.keep(recipe.key, _run(Client(service.url), recipe, digits, options.folder))
    PAGE.write_text(page(KEPT.read()))


def _is_current(recipe: Recipe) -> bool:
    found = KEPT.read().get(recipe.key)
    return found is not None and found.steps == recipe.steps


def _run(client: Client, recipe: Recipe, digits: Images, folder: Path) -> Row:
    print(recipe.key, flush=True)
    data = write_datasets(distorted(digits, COPIES[recipe.network]), folder / "data")
    network = trained(
        recipe.network, digits, folder / f"{recipe.network}.onnx", epochs=EPOCHS[recipe.network]
    )
    model = client.upload("models", network)
    given = {role: client.upload("datasets", data[role]) for role in ("training", "evaluation")}
    began = time.monotonic()
    job = client.run(recipe.key, model, given, recipe.steps)
    seconds = time.monotonic() - began
    packed = client.download(job["id"], "model.packed", folder / f"{recipe.network}.packed")
    opened = packed.with_name("opened.onnx")
    unpack_file(packed, opened)
    _same(opened, client.download(job["id"], "model.onnx", folder / "delivered.onnx"))
    _same(opened, client.download(job["id"], "model.packed", folder / "served.onnx", form="onnx"))
    return Row(
        steps=recipe.steps,
        seconds=seconds,
        original_bytes=network.stat().st_size,
        packed_bytes=packed.stat().st_size,
        errors_before=_errors(network, digits),
        errors_after=_errors(opened, digits),
        device=f"{device_description('cpu')}, {os.cpu_count()} threads",
        layers=layers_of(opened, packed),
    )


def _same(one: Path, other: Path) -> None:
    if hashlib.sha256(one.read_bytes()).digest() != hashlib.sha256(other.read_bytes()).digest():
        raise RuntimeError(f"{one.name} and {other.name} are not the same bytes")


def _errors(model: Path, digits: Images) -> int:
    """Of the 10,000 test digits, by onnxruntime."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: digits.test_x[at : at + 1000]})[0] for at in range(0, 10_000, 1000)]
    return int((np.concatenate(parts).argmax(axis=1) != digits.test_y).sum())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mnist", type=Path, required=True, help="folder with MNIST's four files")
    parser.add_argument(
        "--folder", type=Path, default=Path("build/deep"), help="for networks, data and results"
    )
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="rows to run")
    parser.add_argument("--again", action="store_true", help="run also rows that are finished")
    return parser


if __name__ == "__main__":
    main()

"""The page of deep_compression.py: what each file holds, layer by layer, beside the paper's figures."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from pydantic import BaseModel

from benchmarks.deep_compression_recipes import COPIES, HAN, LAYERS, PUBLISHED, RECIPES, Recipe
from compression.coding import inspect
from compression.coding.chunks import coded, encode_batch
from compression.coding.codec import Units

DIGITS = 10_000
_INDICES = "_indices"
FLOAT_BYTES = 4


class LayerRow(BaseModel):
    """A weight matrix or kernel in the packed file."""

    name: str
    weights: int
    kept: int
    values: int
    """Shared ones, zero not among them."""
    stored_bytes: int
    places_bytes: int
    """Of them, what a mask of the weights that are kept takes by itself."""

    @property
    def value_bits(self) -> float:
        return 8 * (self.stored_bytes - self.places_bytes) / self.kept

    @property
    def index_bits(self) -> float:
        return 8 * self.places_bytes / self.kept

    @property
    def rate(self) -> float:
        return self.stored_bytes / (FLOAT_BYTES * self.weights)


class Row(BaseModel):
    steps: tuple[dict[str, Any], ...]
    seconds: float
    original_bytes: int
    packed_bytes: int
    errors_before: int
    errors_after: int
    device: str
    """Where it was trained and measured."""
    layers: tuple[LayerRow, ...]

    @property
    def ratio(self) -> float:
        return self.original_bytes / self.packed_bytes


def layers_of(model: Path, packed: Path) -> tuple[LayerRow, ...]:
    """From a model whose weights are floats, or indices of bytes of which entry 0 is zero, in the order of its
    layers."""
    stored = {tensor.name: tensor.stored_bytes for tensor in inspect(packed).tensors}
    graph = onnx.load(model).graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    return tuple(
        _layer(name.removesuffix(_INDICES), tensors, stored)
        for name in sorted(tensors)
        if tensors[name].ndim > 1
    )


def _layer(name: str, tensors: Mapping[str, np.ndarray], stored: Mapping[str, int]) -> LayerRow:
    book = tensors.get(f"{name}_codebook")
    weights = tensors[name if book is None else name + _INDICES]
    mask = (weights != 0).astype(np.uint8)
    places, _ = encode_batch([coded(Units(mask.reshape(-1), mask[0].size))])
    parts = {name: 0} if book is None else {name + _INDICES: 0, f"{name}_codebook": book.nbytes}
    return LayerRow(
        name=name,
        weights=weights.size,
        kept=int(mask.sum()),
        values=len(np.unique(weights[weights != 0])),
        stored_bytes=sum(stored.get(part, size) for part, size in parts.items()),
        places_bytes=len(places),
    )


def page(rows: Mapping[str, Row]) -> str:
    return "\n".join([*_head(rows), *_whole(rows), *_each(rows)]) + "\n"


def _head(rows: Mapping[str, Row]) -> Iterator[str]:
    devices = ", or on ".join(dict.fromkeys(row.device for row in rows.values()))
    copies = " and ".join(f"{count} for {network}" for network, count in COPIES.items())
    yield "# Deep Compression, reproduced and passed\n"
    yield "Written by `python -m benchmarks.deep_compression --mnist FOLDER` on"
    yield f"{devices}:"
    yield "each row with a network that was trained there.\n"
    yield "LeNet-300-100 and LeNet-5 (266,610 and 431,080 parameters) are trained on MNIST as benchmarks/networks.py"
    yield "says, uploaded, and compressed by jobs through the HTTP API. The jobs' training data are MNIST's 60,000"
    yield f"digits and distorted copies of each ({copies}), which the networks"
    yield "themselves were not trained on; nothing but the data and the steps goes in. Test errors are those of"
    yield "onnxruntime on the 10,000 test digits, after the packed file was downloaded and unpacked; its bytes were"
    yield "those of the job's `model.onnx`. Sizes are of whole files: of the uploaded ONNX file, and of `model.packed`,"
    yield "with graph, biases, codebooks and checksums.\n"


def _whole(rows: Mapping[str, Row]) -> Iterator[str]:
    yield "| network | | bytes | times smaller | test error | from |"
    yield "|---|---|---|---|---|---|"
    for network, published in PUBLISHED.items():
        for recipe in RECIPES:
            row = rows.get(recipe.key)
            if recipe.network == network and row is not None:
                yield (
                    f"| {network} | {recipe.aim} | {row.packed_bytes:,} of {row.original_bytes:,} | "
                    f"**{row.ratio:.0f}x** | {_error(row.errors_after)} | {_error(row.errors_before)} |"
                )
        for paper in published:
            yield (
                f"| {network} | *{paper.source}* | | {paper.ratio:g}x | {paper.error:.2f} % | "
                f"{paper.baseline:.2f} % |"
            )
    yield ""


def _error(errors: int) -> str:
    return f"{100 * errors / DIGITS:.2f} %"


def _each(rows: Mapping[str, Row]) -> Iterator[str]:
    yield "## Layer by layer\n"
    yield f"Beside each figure, in brackets, that of {HAN}, tables 4 and 5. Bits are those of a kept weight after"
    yield "entropy coding: of its value, and of its place. Where units were taken out, the weights are those of what is"
    yield "left.\n"
    for recipe in RECIPES:
        row = rows.get(recipe.key)
        if row is not None:
            yield from _layers(recipe, row)


def _layers(recipe: Recipe, row: Row) -> Iterator[str]:
    yield f"### {recipe.key}\n"
    yield "| layer | weights | kept | shared values | bits a value | bits a place | bytes | of its float32 bytes |"
    yield "|---|---|---|---|---|---|---|---|"
    for layer, paper in zip(row.layers, LAYERS[recipe.network], strict=True):
        yield (
            f"| `{layer.name}` | {layer.weights:,} | {100 * layer.kept / layer.weights:.1f} % ({paper.kept:g} %) | "
            f"{layer.values} | {layer.value_bits:.1f} ({paper.value_bits}) | "
            f"{layer.index_bits:.1f} ({paper.index_bits}) | {layer.stored_bytes:,} | "
            f"{100 * layer.rate:.2f} % ({paper.rate:.2f} %) |"
        )
    rest = row.packed_bytes - sum(layer.stored_bytes for layer in row.layers)
    yield f"| graph, biases, checksums | | | | | | {rest:,} | |\n"
    yield "<details><summary>the steps</summary>\n\n```json"
    yield from _json(recipe)
    yield "```\n\n</details>\n"


def _json(recipe: Recipe) -> Iterator[str]:
    lines = [json.dumps(step) for step in recipe.steps]
    yield "[" + ",\n ".join(lines) + "]"

"""Cuts models in the way that the tests want it, and holds the results to what cutting promises."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from compression.graph import check_same_interface, interface, load, save
from compression.graph.channels import TOLERANCE, Grouping, cut, find_groups, prove
from tests.compression.graph.running import answers, write

HEADER = '<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]>\n'
Feeds = Mapping[str, np.ndarray]


def written(
    folder: Path, body: str, feeds: Feeds, weights: Feeds, *, opset: int = 20, outputs: str = "y"
) -> Path:
    """A model in ONNX's text form whose inputs are as the feeds, with a free first axis."""
    inputs = ", ".join(_declared(name, array) for name, array in feeds.items())
    given = ", ".join(f"float {name}" for name in outputs.split())
    text = f"{HEADER.format(opset=opset)}g ({inputs}) => ({given}) {{ {body} }}"
    path = write(folder / "model.onnx", text, **weights)
    _declare_outputs(path, feeds)
    return path


def _declare_outputs(path: Path, feeds: Feeds) -> None:
    """Gives the outputs as many free axes as they turn out to have."""
    model = onnx.load(path)
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    found = answers(path, dict(feeds))
    for output in model.graph.output:
        for axis in range(found[output.name].ndim):
            output.type.tensor_type.shape.dim.add().dim_param = f"{output.name}{axis}"
    onnx.save(model, path)


def doomed(grouping: Grouping, share: float, seed: int = 0) -> dict[str, list[int]]:
    """Some units of every group, drawn at random; one at least stays, and one at least leaves."""
    random = np.random.default_rng(seed)
    return {
        group.id: random.permutation(group.size)[
            : min(max(int(group.size * share), 1), group.size - 1)
        ].tolist()
        for group in grouping.groups
    }


def cut_and_prove(
    path: Path, feeds: Feeds, share: float = 0.5, seed: int = 0, *, widths: bool = False
) -> ir.Model:
    """The cut model: proven, of the same interface, smaller, and saved beside the original."""
    original, model = load(path), load(path)
    before = interface(model)
    chosen = doomed(find_groups(model, widths=widths), share, seed)
    assert chosen, "nothing can be cut"
    cut(model, chosen, widths=widths)
    check_same_interface(before, interface(model))
    assert prove(original, model, chosen, feeds, widths=widths) <= TOLERANCE
    assert prove(original, original, chosen, feeds, widths=widths) > 100 * TOLERANCE, (
        "the proof would hold for any cut"
    )
    assert elements(model) < elements(original)
    (saved,) = save(model, path.with_name("cut.onnx"))
    onnx.checker.check_model(onnx.load(saved), full_check=True)
    assert prove(original, load(saved), chosen, feeds, widths=widths) <= TOLERANCE
    return model


def elements(model: ir.Model) -> int:
    """Of all stored tensors of numbers that are no shapes."""
    tensors = [value.const_value for graph in model.graphs() for value in graph.initializers.values()]
    return sum(tensor.size for tensor in tensors if tensor is not None and tensor.dtype != ir.DataType.INT64)


def _declared(name: str, array: np.ndarray) -> str:
    kind = {"f": "float", "i": "int64", "b": "bool"}[array.dtype.kind]
    sizes = ", ".join(["N", *map(str, array.shape[1:])]) if array.ndim else ""
    return f"{kind}[{sizes}] {name}" if array.ndim else f"{kind} {name}"

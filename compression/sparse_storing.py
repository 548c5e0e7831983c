"""Marks the weights that a file holds in fewer bytes without their zeros, and tells why others are left."""

from collections.abc import Sequence

import onnx_ir as ir

from compression.errors import NotApplicable
from compression.graph import Layer, shared_weights
from compression.graph.limits import MAX_UNPACK_RATIO, SINGLE_FILE_BYTES
from compression.graph.saving import file_bytes
from compression.graph.sparse import STORED_SPARSE, sparse_bytes
from compression.graph.summaries import count_zeros
from compression.method import LayerOutcome, StepOutcome

NO_FASTER = "onnxruntime makes sparse tensors dense as it loads: the file is smaller and nothing gets faster"


def store_sparse(model: ir.Model, chosen: Sequence[Layer]) -> StepOutcome:
    """Mark the chosen layers' weights for `save`, where that makes them smaller.

    Raises:
        NotApplicable: the model would still not fit into one file, beside which ONNX has no sparse tensors.
    """
    owners = shared_weights(model)
    names = {layer.name for layer in chosen}
    layers = tuple(
        _layer(layer, model, [_outsider(v, owners, names) for v in layer.weights]) for layer in chosen
    )
    changed = [layer for layer in layers if layer.changed]
    if changed and file_bytes(model) > SINGLE_FILE_BYTES:
        raise NotApplicable(
            "the model stays over 1.9 GB and so keeps its weights in another file, where ONNX has no sparse tensors",
            hint="`pack` stores zeros in next to nothing, in models of any size",
        )
    before, after = (
        int(sum(layer.numbers[f"stored_bytes_{when}"] for layer in changed)) for when in ("before", "after")
    )
    told = f"{before:,} bytes of weights became {after:,}, for each value that is not zero its own bytes and 8 more"
    return StepOutcome(
        model=model,
        layers=layers,
        notes=(told, NO_FASTER) if changed else ("no weight has zeros enough to be smaller without them",),
        details={"stored_sparse": len(changed), "bytes_before": before, "bytes_after": after},
        unchanged=not changed,
    )


def _layer(layer: Layer, model: ir.Model, outsiders: Sequence[str | None]) -> LayerOutcome:
    kept: list[str] = []
    elements = zeros = before = after = 0
    for value, outsider in zip(layer.weights, outsiders, strict=True):
        tensor = ir.convenience.get_const_tensor(value)
        if tensor is None:
            continue
        found = count_zeros(tensor)
        reason = _reason(value, tensor, found, model, outsider)
        if reason is not None:
            kept.append(f"{value.name} {reason}")
            continue
        value.meta[STORED_SPARSE] = True
        elements, zeros = elements + int(tensor.size), zeros + found
        before += int(tensor.nbytes)
        after += sparse_bytes(int(tensor.size) - found, tensor.dtype.bitwidth // 8)
    if not before:
        return LayerOutcome(layer=layer.name, changed=False, note="; ".join(kept) or "it has no weight")
    numbers = {
        "sparsity": zeros / elements,
        "density": 1 - zeros / elements,
        "stored_bytes_before": float(before),
        "stored_bytes_after": float(after),
    }
    words = [f"{zeros / elements:.1%} zeros, {before:,} bytes became {after:,}", *kept]
    return LayerOutcome(layer=layer.name, changed=True, note="; ".join(words), numbers=numbers)


def _reason(
    value: ir.Value, tensor: ir.TensorProtocol, zeros: int, model: ir.Model, outsider: str | None
) -> str | None:
    """Why a weight is left, as the end of a sentence."""
    if outsider is not None:
        return f"is shared with {outsider!r}, which is not selected"
    if value.graph is not model.graph or value.producer() is not None or value.is_graph_output():
        return "stands in a body or a function, or is an output of the model"
    width = tensor.dtype.bitwidth // 8
    if not width:
        return f"holds {tensor.dtype.name.lower()}, of which several share a byte"
    size = sparse_bytes(int(tensor.size) - zeros, width)
    if size >= tensor.nbytes:
        return f"has {zeros / max(tensor.size, 1):.0%} zeros and would take {size:,} bytes instead of {tensor.nbytes:,}"
    if tensor.nbytes > MAX_UNPACK_RATIO * size:
        return "is nearly all zeros: this service refuses files that open to so many times their bytes"
    return None


def _outsider(value: ir.Value, owners: dict[ir.Value, tuple[Layer, ...]], names: set[str]) -> str | None:
    return next((layer.name for layer in owners.get(value, ()) if layer.name not in names), None)

"""Which stored weights of the chosen layers can be narrowed, each once, and why the others cannot."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from compression.graph import Layer
from compression.quantization.narrow.layout import Layout, layout_of
from compression.quantization.narrow.narrowed import Narrowed, narrowed_bytes
from compression.quantization.narrow.packing import folding_bytes
from compression.quantization.narrow.settings import Narrowing, Storage
from compression.quantization.narrow.taps import Tap, tap_of
from compression.quantization.storage import as_numpy, blocker, release
from compression.quantization.weight_only import weight_matrices
from compression.quantization.weights import require_finite


@dataclass(kw_only=True, eq=False)
class Item:
    """One stored weight and what becomes of it."""

    layer: Layer
    """The first chosen layer that reads it."""
    value: ir.Value
    tensor: ir.TensorProtocol
    layout: Layout
    tap: Tap | str
    """Where the layer's inputs are seen, or why they are not."""
    kept: str | None = None
    """Why it stays as it was."""
    narrowed: Narrowed | None = None
    form: Storage = "folded"
    form_note: str = ""

    @property
    def bytes_after(self) -> int:
        made = self.narrowed
        if made is None:
            return 0
        return narrowed_bytes(self.layout.rows, self.layout.width, made.scheme, made.stored_bits)


@dataclass(frozen=True, kw_only=True)
class Plan:
    items: tuple[Item, ...]
    of_layer: dict[str, tuple[Item, ...]]
    """By the layer's name, its weights that were planned for, here or with a layer before it."""
    kept: dict[str, str] = field(default_factory=dict)
    """By the layer's name, why a weight of it was not planned for."""


def plan(model: ir.Model, chosen: Sequence[Layer], everyone: Iterable[Layer], asked: Narrowing) -> Plan:
    """Look at every weight of the chosen layers.

    Raises:
        NotApplicable: a weight holds NaN or infinity; `where` names it.
    """
    users: dict[int, list[Layer]] = {}
    for layer in everyone:
        for value in weight_matrices(layer):
            users.setdefault(id(value), []).append(layer)
    names = {layer.name for layer in chosen}
    items: dict[int, Item] = {}
    of_layer: dict[str, tuple[Item, ...]] = {}
    kept: dict[str, str] = {}
    for layer in chosen:
        for value in weight_matrices(layer):
            readers = users.get(id(value), [layer])
            outside = sorted(other.name for other in readers if other.name not in names)
            reason = _reason(value, outside)
            if reason:
                kept[layer.name] = reason
                continue
            if id(value) not in items:
                items[id(value)] = _item(model, layer, value, readers, asked)
            of_layer[layer.name] = (*of_layer.get(layer.name, ()), items[id(value)])
    return Plan(items=tuple(items.values()), of_layer=of_layer, kept=kept)


def _reason(value: ir.Value, outside: Sequence[str]) -> str | None:
    if outside:
        return f"its weight is shared with {outside[0]}, which is not to be touched"
    return blocker(value)


def _item(model: ir.Model, layer: Layer, value: ir.Value, readers: Sequence[Layer], asked: Narrowing) -> Item:
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None:
        raise ValueError(f"{value.name} is no constant")
    require_finite(value.name or layer.name, as_numpy(tensor))
    release(tensor)
    # Of layers that share a weight, a product tells best how it is read: its inputs can be seen.
    lead = next((reader for reader in readers if reader.node.op_type in ("MatMul", "Gemm")), layer)
    layout = layout_of(lead, value, tensor)
    tap: Tap | str = tap_of(lead, model, layout.width)
    if len({id(reader.node.inputs[0]) for reader in readers if reader.node.op_type != "Gather"}) > 1:
        tap = "layers with different inputs share its weight"
    item = Item(layer=lead, value=value, tensor=tensor, layout=layout, tap=tap)
    scheme = asked.scheme
    stored = asked.stored_bits(model.opset_imports.get("", 0))
    after = narrowed_bytes(layout.rows, layout.width, scheme, stored)
    after += folding_bytes(stored, symmetric=scheme.symmetric)
    if after >= tensor.nbytes:
        item.kept = f"{scheme.bits} bits would be no smaller ({tensor.nbytes} bytes now)"
    return item

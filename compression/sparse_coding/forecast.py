"""What sparse codes would make of a layer, told from its summary alone."""

from typing import Literal, Protocol

from compression.quantization.forecast import as_type, is_matrix
from compression.quantization.weights import channel_axes
from compression.sparse_coding.layout import Layout
from compression.sparse_coding.sizes import coded_bytes, usual_atoms
from compression.summary import LayerSummary, WeightSummary


class Wish(Protocol):
    """The fields of sparse_code that sizes depend on."""

    @property
    def atoms(self) -> int | None: ...
    @property
    def block(self) -> int | None: ...
    @property
    def nonzeros(self) -> int: ...
    @property
    def error(self) -> float | None: ...
    @property
    def value_bits(self) -> int: ...
    @property
    def codes(self) -> Literal["bits", "bytes"]: ...


def coded_layer(layer: LayerSummary, wish: Wish) -> LayerSummary:
    """The layer with its matrices as codes, where that is smaller. With a bound on the error half the atoms that a
    block may have are reckoned with."""
    weights = []
    for position, weight in enumerate(layer.weights):
        size = _bytes(layer.op_type, weight, wish) if is_matrix(layer, position) else weight.size_bytes
        weights.append(as_type(weight, "uint8", size) if size < weight.size_bytes else weight)
    return layer.model_copy(update={"weights": tuple(weights)})


def _bytes(op_type: str, weight: WeightSummary, wish: Wish) -> int:
    axes = channel_axes(op_type, 1, weight.shape, {}) or (0,)
    layout = Layout.of(tuple(weight.shape), axes[-1], wish.block)
    if layout.width // layout.block * layout.rows < 2:
        return weight.size_bytes
    atoms = min(wish.atoms or usual_atoms(layout.signals), layout.signals)
    each = wish.nonzeros if wish.error is None else max(min(wish.nonzeros // 2, 2 * layout.block // 3), 1)
    return coded_bytes(
        layout.signals, layout.signals * each, atoms, layout.block, wish.value_bits, storage=wish.codes
    )

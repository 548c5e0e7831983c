"""Weight-only int8 for chosen layers: every shared weight once, the outcome told layer by layer."""

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field

import onnx_ir as ir

from compression.graph import Layer
from compression.method import LayerOutcome
from compression.quantization.recovery.drift import settling
from compression.quantization.recovery.means import Means
from compression.quantization.storage import (
    Chain,
    Names,
    as_numpy,
    blocker,
    integer_attributes,
    release,
    store,
    stored_bytes,
)
from compression.quantization.weights import (
    channel_axes,
    guess_axes,
    is_finite,
    quantize_weight,
    require_finite,
)

FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})
_MOVERS = frozenset({"Slice", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Split", "Identity"})
_LOOSE_BYTES = 4096
_BIASES = {"Conv": {2}, "ConvTranspose": {2}, "Gemm": {2}, "LSTM": {3, 7}, "GRU": {3}, "RNN": {3}}


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What became of one constant."""

    reason: str | None = None
    """Why it was kept as it was; None where it was stored as integers."""
    sqnr_db: float = float("inf")
    chain: Chain | None = None
    bytes_before: int = 0
    bytes_after: int = 0


@dataclass(kw_only=True)
class WeightStore:
    """Stores weights as int8, each constant once however many layers share it."""

    model: ir.Model
    min_sqnr_db: float
    chosen: frozenset[str]
    """Names of the layers that may change."""
    users: dict[int, set[str]]
    """Names of the layers that use a constant, by the identity of its value."""
    nodes: dict[int, tuple[ir.Node, ...]] = field(default_factory=dict)
    """The layers that read a constant themselves, by the same."""
    means: Means = field(default_factory=dict)
    """Of layers' inputs, by layer: their biases then make good what rounding does to their outputs' means."""
    wide: Set[str] = frozenset()
    """Names of the layers stored as int16, since int8 there spoils the outputs."""
    names: Names = field(init=False)
    done: dict[int, Stored] = field(default_factory=dict)
    chains: dict[str, tuple[Chain, ...]] = field(default_factory=dict)
    _alive: list[ir.Value] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.names = Names(self.model)

    def layer(self, layer: Layer) -> LayerOutcome:
        """Store the layer's weights and say what became of them."""
        results = [self._weight(layer, value) for value in weight_matrices(layer)]
        stored = [result for result in results if result.reason is None]
        if not stored:
            reasons = [result.reason for result in results if result.reason]
            return LayerOutcome(
                layer=layer.name,
                changed=False,
                note=reasons[0] if reasons else "it has no float weight matrix",
                numbers=_numbers(results),
            )
        kept = sorted({result.reason for result in results if result.reason})
        bits = 16 if layer.name in self.wide else 8
        note = f"int{bits} per channel, stored as Cast * scale" + "".join(
            f"; one weight kept: {reason}" for reason in kept
        )
        return LayerOutcome(layer=layer.name, changed=True, note=note, numbers=_numbers(stored))

    def _weight(self, layer: Layer, value: ir.Value) -> Stored:
        if id(value) not in self.done:
            self._alive.append(value)
            made = self.done[id(value)] = self._store(layer, value)
            if made.chain:
                self.chains[layer.name] = (*self.chains.get(layer.name, ()), made.chain)
        return self.done[id(value)]

    def _store(self, layer: Layer, value: ir.Value) -> Stored:
        outside = sorted(self.users.get(id(value), set()) - self.chosen)
        if outside:
            return Stored(reason=f"its weight is shared with {outside[0]}, which is not to be touched")
        reason = blocker(value)
        tensor = ir.convenience.get_const_tensor(value)
        if reason or tensor is None:
            return Stored(reason=reason or "it is no constant")
        weight = as_numpy(tensor)
        require_finite(value.name or layer.name, weight)
        axes = channel_axes(
            layer.node.op_type, _index(layer.node, value), weight.shape, integer_attributes(layer.node)
        )
        axes = guess_axes(weight) if axes is None else axes
        bits = 16 if layer.name in self.wide else 8
        quantized = quantize_weight(weight, axes, bits=bits)
        del weight
        release(tensor)
        size = stored_bytes(quantized, source=tensor.dtype)
        if quantized.sqnr_db < self.min_sqnr_db:
            text = (
                f"int8 would reach {quantized.sqnr_db:.1f} dB only, below min_sqnr_db = {self.min_sqnr_db:g}"
            )
            return Stored(reason=text, sqnr_db=quantized.sqnr_db)
        if size >= tensor.nbytes:
            return Stored(
                reason=f"int8 would be no smaller ({tensor.nbytes} bytes now)", sqnr_db=quantized.sqnr_db
            )
        followers = (settling(node, self.means, self.names) for node in self.nodes.get(id(value), ()))
        chain = store(value, quantized, axes, self.names, bits=bits, followers=tuple(filter(None, followers)))
        return Stored(sqnr_db=quantized.sqnr_db, chain=chain, bytes_before=tensor.nbytes, bytes_after=size)


def store_layers(
    model: ir.Model,
    chosen: Sequence[Layer],
    everyone: Iterable[Layer],
    *,
    min_sqnr_db: float,
    wide: Set[str] = frozenset(),
    means: Means | None = None,
    report: Callable[[float, str], None],
) -> tuple[tuple[LayerOutcome, ...], dict[str, tuple[Chain, ...]]]:
    """Store the weights of `chosen` as int8, one tensor in memory at a time.

    With `means` of layers' inputs their biases are corrected for what rounding does to the means of their outputs.
    Returns the outcome of every chosen layer, and the chains by the first layer that uses them.

    Raises:
        NotApplicable: a weight holds NaN or infinity.
    """
    users: dict[int, set[str]] = {}
    nodes: dict[int, tuple[ir.Node, ...]] = {}
    for layer in everyone:
        for value in weight_matrices(layer):
            users.setdefault(id(value), set()).add(layer.name)
            if _index(layer.node, value) == 1:
                nodes[id(value)] = (*nodes.get(id(value), ()), layer.node)
    worker = WeightStore(
        model=model,
        min_sqnr_db=min_sqnr_db,
        chosen=frozenset(layer.name for layer in chosen),
        users=users,
        nodes=nodes,
        means=means or {},
        wide=wide,
    )
    outcomes = []
    for count, layer in enumerate(chosen):
        report(count / max(len(chosen), 1), f"storing the weights of {layer.name}")
        outcomes.append(worker.layer(layer))
    return tuple(outcomes), worker.chains


def store_loose(model: ir.Model, everyone: Iterable[Layer], *, min_sqnr_db: float) -> int:
    """Store large matrices that reach their operators through nodes that only move data; returns how many.

    Exporters leave such behind (an LSTM's gates reordered by Slice and Concat); no layer owns them until
    constants are folded, and the runtime folds the whole chain when it loads the model.
    """
    owned = {id(value) for layer in everyone for value in layer.weights}
    names, count = Names(model), 0
    for graph in list(model.graphs()):
        for value in list(graph.initializers.values()):
            tensor = value.const_value
            if id(value) in owned or tensor is None or not _is_loose(value, tensor) or blocker(value):
                continue
            weight = as_numpy(tensor)
            if not is_finite(weight):
                continue
            axes = guess_axes(weight)
            quantized = quantize_weight(weight, axes)
            if (
                quantized.sqnr_db >= min_sqnr_db
                and stored_bytes(quantized, source=tensor.dtype) < tensor.nbytes
            ):
                store(value, quantized, axes, names)
                count += 1
    return count


def _is_loose(value: ir.Value, tensor: ir.TensorProtocol) -> bool:
    if tensor.dtype not in FLOATS or len(tensor.shape) < 2 or tensor.nbytes < _LOOSE_BYTES:
        return False
    return bool(value.uses()) and all(use.node.op_type in _MOVERS and use.idx == 0 for use in value.uses())


def weight_matrices(layer: Layer) -> tuple[ir.Value, ...]:
    """The layer's float constants of rank 2 and more that are no biases: what is worth storing as
    integers."""
    return tuple(value for value in layer.weights if _is_matrix(layer.node, value))


def _is_matrix(node: ir.Node, value: ir.Value) -> bool:
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None or tensor.dtype not in FLOATS or len(tensor.shape) < 2:
        return False
    return _index(node, value) not in _BIASES.get(node.op_type, set())


def _index(node: ir.Node, value: ir.Value) -> int:
    """Which input of the node it is; -1 where it comes through other nodes."""
    return next((index for index, given in enumerate(node.inputs) if given is value), -1)


def _numbers(results: Sequence[Stored]) -> dict[str, float]:
    worst = min((result.sqnr_db for result in results), default=float("inf"))
    numbers = {"sqnr_db": worst} if abs(worst) != float("inf") else {}
    after = sum(result.bytes_after for result in results)
    if after:
        numbers["size_ratio"] = sum(result.bytes_before for result in results) / after
    return numbers

"""Weight sharing from end to end: k-means, training of the shared values, storing, telling."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from compression.graph import Layer
from compression.graph import layers as layers_of
from compression.method import LayerOutcome, StepContext, StepOutcome
from compression.quantization.affine import sqnr_db
from compression.quantization.check import figures, output_check
from compression.quantization.probe import fidelity
from compression.quantization.storage import Names, as_numpy, blocker, integer_attributes, release
from compression.quantization.weights import channel_axes, require_finite
from compression.sharing.codebook import Codebook, Sharing, learn_codebook
from compression.sharing.sizes import Indices, shared_bytes
from compression.sharing.storing import store_codebook
from compression.weight_targets import Target, find_targets

if TYPE_CHECKING:
    from compression.training.settings import TrainingMethod

NO_FASTER = "only the storage changes: the runtime computes in floats as before, so that nothing gets faster"
_POOR_DB = 20.0


@dataclass(kw_only=True)
class _Shared:
    """One tensor and what becomes of it."""

    value: ir.Value
    layers: tuple[str, ...]
    book: Codebook | None = None
    note: str = ""
    numbers: dict[str, float] = field(default_factory=dict)


def share_weights(
    model: ir.Model,
    chosen: Sequence[Layer],
    sharing: Sharing,
    context: StepContext,
    *,
    indices: Indices,
    biases: bool,
    training: "TrainingMethod | None",
) -> StepOutcome:
    """Give the chosen layers' weights shared values, train those where `training` is given, and store them.

    Raises:
        NotApplicable: a weight holds NaN or infinity; `where` names it.
        CompressionError: see `compression.training.run.prepare`.
    """
    check = output_check(model, context, _POOR_DB)
    everyone = layers_of(model)
    targets, kept = find_targets(chosen, everyone)
    found = [_Shared(value=target.value, layers=_names(target)) for target in targets]
    found += list(_biases(chosen, everyone)) if biases else []
    before = {id(item): np.array(as_numpy(_stored(item.value))) for item in found}
    for count, item in enumerate(found):
        context.report(0.3 * count / max(len(found), 1), f"clustering {item.value.name}")
        _cluster(model, item, sharing, indices)
    notes: tuple[str, ...] = ()
    details: dict[str, Any] = {}
    if training is not None:
        notes, details = _train(model, [item for item in found if item.book], training, context)
    _store(model, found, before, indices)
    context.report(0.97, "comparing the outputs with the original's")
    if check.probe is not None:
        details["outputs"] = figures(fidelity(check.probe, model, context))
    return StepOutcome(
        model=model,
        layers=tuple(_outcome(layer.name, found, kept) for layer in chosen),
        notes=(NO_FASTER, *notes, *((check.reason,) if check.probe is None else ())),
        details=details,
    )


def _cluster(model: ir.Model, item: _Shared, sharing: Sharing, indices: Indices) -> None:
    """Learn a codebook, and put its values in the weights' places."""
    tensor = _stored(item.value)
    weight = as_numpy(tensor)
    require_finite(item.value.name or "", weight)
    reason = blocker(item.value)
    opset = model.opset_imports.get("", 0)
    book = reason or learn_codebook(weight, _channel_axis(item.value), sharing)
    if isinstance(book, str):
        item.note = book
        return
    size = _bytes(book, weight.size, tensor, indices, opset)
    if size >= tensor.nbytes:
        item.note = f"{book.bits} bits a weight would be no smaller ({tensor.nbytes} bytes now)"
        return
    item.book = book
    _put(item.value, book.decoded())


def _train(
    model: ir.Model, shared: Sequence[_Shared], settings: "TrainingMethod", context: StepContext
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Train the shared values by the mean gradients of what shares them (Han et al. 2016, section 3.3)."""
    import torch

    from compression.graph.trainable import write_back
    from compression.training.constraints import Masks, Tied
    from compression.training.loop import Plan, train
    from compression.training.run import prepare

    later = _later(context)
    training = prepare(model, settings, later)
    books = [(item.value.name or "", item.book) for item in shared if item.book is not None]
    shapes = {name: training.view.weights[name].shape for name, _ in books}
    masks = {
        name: torch.from_numpy(book.decoded() != 0).reshape(shapes[name]) for name, book in books if book.zero
    }
    codes = {name: torch.from_numpy(book.codes()).reshape(shapes[name]) for name, book in books}
    codes |= {name: torch.where(mask, codes[name], -1) for name, mask in masks.items()}
    device = training.view.device
    record = train(
        training.view,
        training.objective,
        training.batches,
        settings,
        later,
        constraints=(
            Tied({name: code.to(device) for name, code in codes.items()}),
            Masks({name: mask.to(device) for name, mask in masks.items()}),
            *training.constraints,
        ),
        plan=Plan(epochs=settings.epochs, precision=training.precision),
        keeper=training.keeper,
    )
    write_back(training.view, model)
    return (*training.notes, f"shared values were trained: {record.words()}"), {
        "training": record.as_details()
    }


def _store(
    model: ir.Model, found: Sequence[_Shared], before: Mapping[int, np.ndarray], indices: Indices
) -> None:
    names, opset = Names(model), model.opset_imports.get("", 0)
    for item in found:
        if item.book is None:
            continue
        tensor = _stored(item.value)
        weight = as_numpy(tensor)
        book = _with_values(item.book, weight)
        size = _bytes(book, weight.size, tensor, indices, opset)
        figure = sqnr_db(before[id(item)], weight)
        item.numbers = {"size_ratio": tensor.nbytes / size, "index_bits": round(book.entropy(), 3)}
        item.numbers |= {"sqnr_db": figure} if abs(figure) != float("inf") else {}
        zeros = ", zero one of them" if book.zero else ""
        each = f" for each of {len(book.values)} groups" if len(book.values) > 1 else ""
        depth = f" of {book.values.shape[2]} weights" if book.values.shape[2] > 1 else ""
        item.note = f"{book.entries} shared values{depth}{zeros}{each}, {book.bits} bits an index"
        release(tensor)
        store_codebook(item.value, book, names, opset=opset, indices=indices)


def _with_values(book: Codebook, weight: np.ndarray) -> Codebook:
    """The codebook that the weights have now: training moved them together."""
    values = book.values.reshape(-1).copy()
    values[book.codes()] = weight.astype(np.float64).reshape(-1)
    return replace(book, values=values.reshape(book.values.shape))


def _bytes(book: Codebook, weights: int, tensor: ir.TensorProtocol, indices: Indices, opset: int) -> int:
    groups, entries, depth = book.values.shape
    width = tensor.dtype.bitwidth // 8
    return shared_bytes(weights, entries, indices, opset=opset, vector=depth, groups=groups, width=width)


def _biases(chosen: Sequence[Layer], everyone: Sequence[Layer]) -> Iterator[_Shared]:
    """One-dimensional float weights that only chosen layers compute with."""
    names = {layer.name for layer in chosen}
    owners: dict[int, list[str]] = {}
    for layer in everyone:
        for value in layer.weights:
            owners.setdefault(id(value), []).append(layer.name)
    seen: set[int] = set()
    for layer in chosen:
        for value in layer.weights[1:]:
            tensor = value.const_value
            flat = tensor is not None and tensor.dtype.is_floating_point() and len(tensor.shape) == 1
            if flat and id(value) not in seen and names.issuperset(owners[id(value)]):
                seen.add(id(value))
                yield _Shared(value=value, layers=tuple(owners[id(value)]))


def _names(target: Target) -> tuple[str, ...]:
    return tuple(layer.name for layer in target.layers)


def _channel_axis(value: ir.Value) -> int:
    """Of the output channels in the first layer that reads the weight; the first axis where no rule is known."""
    use = next(iter(value.uses()), None)
    if use is None or value.shape is None:
        return 0
    shape = [int(size) for size in value.shape.numpy()]
    axes = channel_axes(use.node.op_type, use.idx, shape, integer_attributes(use.node))
    return (axes or (0,))[0]


def _stored(value: ir.Value) -> ir.TensorProtocol:
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None:
        raise ValueError(f"{value.name} is no constant")
    return tensor


def _put(value: ir.Value, flat: np.ndarray) -> None:
    tensor = _stored(value)
    array = flat.reshape(tuple(tensor.shape.numpy())).astype(tensor.dtype.numpy())
    made = ir.Tensor(array, dtype=tensor.dtype, name=tensor.name)
    producer = value.producer()
    if producer is not None:
        producer.attributes.add(ir.AttrTensor("value", made))
    value.const_value = made


def _later(context: StepContext) -> StepContext:
    return replace(context, report=lambda done, words: context.report(0.3 + 0.65 * done, words))


def _outcome(name: str, found: Sequence[_Shared], kept: Mapping[str, str]) -> LayerOutcome:
    mine = [item for item in found if name in item.layers]
    done = [item for item in mine if item.book is not None]
    if not done:
        note = kept.get(name) or (mine[0].note if mine else "it has no float weight matrix")
        return LayerOutcome(layer=name, changed=False, note=note)
    note = "; ".join(dict.fromkeys(item.note for item in mine))
    return LayerOutcome(layer=name, changed=True, note=note, numbers=done[0].numbers)

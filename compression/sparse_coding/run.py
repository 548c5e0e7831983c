"""Sparse coding from end to end: codes, storing, telling."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from threadpoolctl import threadpool_limits

from compression.graph import Layer
from compression.graph import layers as layers_of
from compression.method import StepContext, StepOutcome
from compression.quantization.check import figures, output_check
from compression.quantization.probe import fidelity
from compression.quantization.storage import Names, as_numpy, blocker, release
from compression.quantization.weights import require_finite
from compression.sparse_coding.fitting import Coding, Fitted, fit, relative_error
from compression.sparse_coding.inputs import Inputs
from compression.sparse_coding.keeping import Finished
from compression.sparse_coding.layout import Layout
from compression.sparse_coding.pursuit import Doubles
from compression.sparse_coding.sizes import Storage, coded_bytes, usual_atoms
from compression.sparse_coding.storing import as_stored, prepared, store
from compression.sparse_coding.telling import Told, notes, outcome, totals
from compression.weight_targets import Target, find_targets, output_axis

_POOR_DB = 20.0
_DENSE = 0.5


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What every tensor's turn needs."""

    coding: Coding
    storage: Storage
    inputs: Inputs
    names: Names
    opset: int
    finished: Finished


def sparse_code(
    model: ir.Model,
    chosen: Sequence[Layer],
    coding: Coding,
    inputs: Inputs,
    context: StepContext,
    *,
    storage: Storage,
) -> StepOutcome:
    """Put dictionaries and codes in the places of the chosen layers' weights, in place.

    Raises:
        NotApplicable: a weight holds NaN or infinity; `where` names it.
    """
    check = output_check(model, context, _POOR_DB)
    targets, kept = find_targets(chosen, layers_of(model))
    work = _Work(
        coding=coding,
        storage=storage,
        inputs=inputs,
        names=Names(model),
        opset=model.opset_imports.get("", 0),
        finished=Finished(context.checkpoints),
    )
    items = [Told(target=target) for target in targets]
    for count, item in enumerate(items):
        later = _part(context, count / len(items), (count + 1) / len(items))
        # Sums in another order on more threads would give other codes.
        with threadpool_limits(limits=1):
            _code(item, work, later)
    context.report(0.97, "comparing the outputs with the original's")
    changed = any(item.changed for item in items)
    details = totals(items)
    if check.probe is not None and changed:
        details["outputs"] = figures(fidelity(check.probe, model, context))
    unchecked = check.reason if check.probe is None else ""
    return StepOutcome(
        model=model,
        layers=tuple(outcome(layer.name, items, kept) for layer in chosen),
        notes=tuple(notes(items, fitted=bool(inputs.stored), unchecked=unchecked)),
        details=details,
        unchanged=not changed,
    )


def _code(item: Told, work: _Work, context: StepContext) -> None:
    value, tensor = item.target.value, item.target.tensor
    array = as_numpy(tensor)
    require_finite(value.name or "", array)
    layout = Layout.of(item.target.shape, _outputs(item.target), work.coding.block)
    weight = layout.matrix(array)
    release(tensor)
    coding = replace(work.coding, atoms=_atoms(work.coding, layout, weight))
    item.note = blocker(value) or _hopeless(weight, layout, coding, work, item.before_bytes) or ""
    if item.note:
        return
    seen = work.inputs.moments(value)
    centred = seen is not None and work.inputs.centred(value)
    moments = None if seen is None else seen.norm_matrix(centred=centred)
    fitted = _fitted(value.name or "", weight, layout, coding, moments=moments, work=work, context=context)
    stored = prepared(fitted, value_bits=coding.value_bits, storage=work.storage, opset=work.opset)
    made = fitted.matrix()
    item.note = _no_smaller(stored.size_bytes, item.before_bytes) or _too_far(weight, made, coding, moments)
    if item.note:
        return
    if seen is not None and centred:
        work.inputs.correct(value, weight - made, seen, work.names)
    after = store(value, stored, work.names, opset=work.opset)
    item.tell(stored, weight, made, moments=moments, after_bytes=after)
    blind = work.inputs.blind(value)
    item.note += f"; by the weights alone, since {blind}" if blind else ""


def _fitted(
    name: str,
    weight: Doubles,
    layout: Layout,
    coding: Coding,
    *,
    moments: Doubles | None,
    work: _Work,
    context: StepContext,
) -> Fitted:
    """As it will lie in the file: what an earlier attempt found, or found now."""
    kept = work.finished.found(name, layout)
    if kept is not None:
        return kept
    made = fit(
        weight,
        layout,
        coding,
        moments=moments,
        told=lambda done: context.report(done, f"coding {name}"),
    )
    made = replace(made, dictionary=as_stored(made.dictionary))
    work.finished.keep(name, made)
    return made


def _atoms(coding: Coding, layout: Layout, weight: Doubles) -> int:
    """As many as suit the blocks that are not all zeros."""
    learned = int(np.count_nonzero(layout.whole(weight).any(axis=1)))
    return min(coding.atoms or usual_atoms(learned), max(learned, 1))


def _outputs(target: Target) -> int:
    """The axis of the output channels; the first where it is not known."""
    return output_axis(target.layers[0], target.value) or 0


def _hopeless(weight: Doubles, layout: Layout, coding: Coding, work: _Work, before: int) -> str | None:
    """Why a weight need not be tried."""
    if not weight.any():
        return "all its weights are zero"
    if layout.rows * (layout.width // layout.block) < 2:
        return f"it is cut into {layout.signals} blocks of {layout.block}, too few to learn from"
    each = coding.nonzeros if coding.error is None else 1
    size = coded_bytes(
        layout.signals,
        layout.signals * each,
        coding.atoms or 1,
        layout.block,
        coding.value_bits,
        storage=work.storage,
        opset=work.opset,
    )
    # Where many weights are zero, so may be whole blocks, which then take no codes.
    dense = np.count_nonzero(weight) > _DENSE * weight.size
    return _no_smaller(size, before) if dense else None


def _no_smaller(size: int, before: int) -> str:
    if size < before:
        return ""
    return f"dictionary and codes would take {size:,} bytes and the weights take {before:,}"


def _too_far(weight: Doubles, made: Doubles, coding: Coding, moments: Doubles | None) -> str:
    if coding.error is None:
        return ""
    error = relative_error(weight, made, moments)
    if error <= coding.error:
        return ""
    return (
        f"its error would be {error:.3g}, over the bound of {coding.error:g}: {coding.nonzeros} nonzeros of "
        f"{coding.value_bits} bits are too few"
    )


def _part(context: StepContext, start: float, stop: float) -> StepContext:
    """Progress of one tensor within 0.3 to 0.97 of the whole."""
    low, high = 0.3 + 0.67 * start, 0.3 + 0.67 * stop
    return replace(context, report=lambda done, words: context.report(low + (high - low) * done, words))

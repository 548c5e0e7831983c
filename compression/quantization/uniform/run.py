"""Fixed point and levels from end to end: code each weight once, store it, compare the outputs, tell."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from compression.graph import Layer
from compression.graph import layers as layers_of
from compression.method import LayerOutcome, StepContext, StepOutcome
from compression.quantization.affine import Array
from compression.quantization.check import OutputCheck, figures, output_check
from compression.quantization.probe import fidelity
from compression.quantization.storage import Names, as_numpy, blocker, release
from compression.quantization.uniform.coding import Coded
from compression.quantization.uniform.sizes import coded_bytes
from compression.quantization.uniform.storing import store_coded
from compression.quantization.weights import require_finite
from compression.weight_targets import Target, find_targets

Coder = Callable[[Array], Coded]
_NO_FASTER = "only the storage changes: the runtime computes in floats as before, so that nothing gets faster"
_POOR_DB = 20.0


@dataclass(frozen=True, kw_only=True)
class _Made:
    """What became of one tensor."""

    note: str
    changed: bool = False
    numbers: dict[str, float] = field(default_factory=dict)
    saturated: int = 0


def store_uniformly(
    model: ir.Model, chosen: Sequence[Layer], code: Coder, context: StepContext
) -> StepOutcome:
    """Code the weights of the chosen layers, where that makes them smaller.

    Raises:
        NotApplicable: a weight holds NaN or infinity; `where` names it.
    """
    check = output_check(model, context, _POOR_DB)
    targets, kept = find_targets(chosen, layers_of(model))
    names = Names(model)
    made: dict[str, list[_Made]] = {}
    for count, target in enumerate(targets):
        context.report(0.8 * count / len(targets), f"storing {target.value.name}")
        result = _store(model, target, code, names)
        for layer in target.layers:
            made.setdefault(layer.name, []).append(result)
    context.report(0.9, "comparing the outputs with the original's")
    notes, details = _judged(check, model)
    saturated = sum(result.saturated for results in made.values() for result in results)
    return StepOutcome(
        model=model,
        layers=tuple(_outcome(layer.name, made.get(layer.name, []), kept) for layer in chosen),
        notes=(_NO_FASTER, *notes),
        details={**details, "saturated_weights": saturated},
    )


def _store(model: ir.Model, target: Target, code: Coder, names: Names) -> _Made:
    opset = model.opset_imports.get("", 0)
    reason = blocker(target.value)
    if reason:
        return _Made(note=reason)
    weight = as_numpy(target.tensor)
    require_finite(target.value.name or "", weight)
    coded = code(weight)
    before, after = target.tensor.nbytes, coded_bytes(weight.size, coded.bits, opset)
    del weight
    release(target.tensor)
    if after >= before:
        return _Made(note=f"{coded.bits} bits would be no smaller ({before} bytes now)")
    store_coded(target.value, coded, names, opset=opset)
    numbers = {"size_ratio": before / after}
    if abs(coded.sqnr_db) != float("inf"):
        numbers["sqnr_db"] = coded.sqnr_db
    words = f"{coded.words}, {coded.bits} bits a weight"
    if coded.saturated:
        words += f"; {coded.saturated} weights do not fit and lie on the edge"
    return _Made(note=words, changed=True, numbers=numbers, saturated=coded.saturated)


def _outcome(name: str, results: Sequence[_Made], kept: dict[str, str]) -> LayerOutcome:
    done = [result for result in results if result.changed]
    if not done:
        note = kept.get(name) or (results[0].note if results else "it has no float weight matrix")
        return LayerOutcome(layer=name, changed=False, note=note)
    worst = min(done, key=lambda result: result.numbers.get("sqnr_db", float("inf")))
    note = "; ".join(dict.fromkeys(result.note for result in results))
    return LayerOutcome(layer=name, changed=True, note=note, numbers=worst.numbers)


def _judged(check: OutputCheck, model: ir.Model) -> tuple[tuple[str, ...], dict[str, Any]]:
    if check.probe is None:
        return (check.reason,), {}
    found = fidelity(check.probe, model, check.context)
    details = {"inputs": check.probe.source, "outputs": figures(found)}
    if not found.comparable or found.sqnr_db >= _POOR_DB:
        return (), details
    return (
        f"output {found.output!r} reaches {found.sqnr_db:.1f} dB only: one grid for a whole tensor is coarse; more "
        "bits or levels, or quantize_weights, whose grids follow each channel, would bring it nearer",
    ), details

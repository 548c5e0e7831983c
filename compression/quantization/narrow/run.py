"""quantize_weights below and beside int8 per channel, from end to end: plan, round, place, compare, tell."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from compression.errors import NotApplicable
from compression.graph import Layer, upgrade_opset
from compression.graph import layers as layers_of
from compression.method import LayerOutcome, StepContext, StepOutcome
from compression.quantization.check import OutputCheck, figures, output_check
from compression.quantization.narrow.deciding import Decision, decide
from compression.quantization.narrow.mending import mend
from compression.quantization.narrow.placing import choose_forms
from compression.quantization.narrow.planning import Item, Plan, plan
from compression.quantization.narrow.rounding_items import round_items
from compression.quantization.narrow.settings import SHIFT_OPSET, Narrowing
from compression.quantization.narrow.spill import Spill
from compression.quantization.narrow.table import STANDARD_OPSET
from compression.quantization.probe import fidelity

_STANDARD_IR = 10
"""The IR version that has tensors of 4 bits."""
_NAMES = {
    "matmul_nbits": "MatMulNBits",
    "dequantize_linear": "blocked DequantizeLinear",
    "folded": "packed bits that fold at load",
}


def narrow_weights(
    model: ir.Model,
    chosen: Sequence[Layer],
    asked: Narrowing,
    context: StepContext,
    *,
    min_output_sqnr_db: float | None,
) -> StepOutcome:
    """Round the weights of the chosen layers to few bits and store them where onnxruntime has kernels for them.

    Raises:
        NotApplicable: a weight holds NaN or infinity, or the operator set cannot be raised.
        DataMismatch: the calibration data does not fit the model.
    """
    notes = list(raise_opset(model, asked))
    planned = plan(model, chosen, layers_of(model), asked)
    check = output_check(model, context, min_output_sqnr_db or 0.0)
    spill = Spill(folder=context.workdir)
    facts = round_items(model, planned.items, asked, context, spill)
    if min_output_sqnr_db:
        context.report(0.8, "looking for the layers that spoil the outputs")
        mended = mend(model, planned.items, asked, check, spill=spill, bound=min_output_sqnr_db)
        notes += [mended] if mended else []
    choose_forms(planned.items, asked.storage, opset=model.opset_imports.get("", 0))
    context.report(0.82, "comparing forms of storage")
    made = decide(model, planned.items, asked, check)
    context.report(0.92, "comparing the outputs with the original's")
    notes += made.notes
    details = {**facts, **made.details}
    judged = _judge(check, made.model, min_output_sqnr_db)
    return StepOutcome(
        model=made.model,
        layers=_outcomes(chosen, planned, asked, made),
        notes=(*notes, *_fallbacks(planned, asked), *judged.notes),
        details={**details, **judged.details},
    )


def raise_opset(model: ir.Model, asked: Narrowing) -> list[str]:
    """Raises the operator set where the storage wants it; says so where that cannot be.

    Tried on a copy first: a model that could not be raised is of no more use.
    """
    before = model.opset_imports.get("", STANDARD_OPSET)
    standard = asked.storage == "dequantize_linear"
    notes = []
    for wanted in (STANDARD_OPSET, SHIFT_OPSET) if standard else (SHIFT_OPSET,):
        if before >= wanted:
            break
        try:
            upgrade_opset(model.clone(), wanted)
        except NotApplicable as error:
            notes.append(f"the operator set stays below {wanted}: {error.message}")
            continue
        upgrade_opset(model, wanted)
        notes.append(f"the operator set was raised from {before} to {wanted}")
        break
    if standard and model.opset_imports.get("", 0) >= STANDARD_OPSET:
        model.ir_version = max(model.ir_version, _STANDARD_IR)
    return notes


@dataclass(frozen=True, kw_only=True)
class _Judged:
    notes: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


def _judge(check: OutputCheck, model: ir.Model, bound: float | None) -> _Judged:
    if check.probe is None:
        return _Judged(notes=(check.reason,))
    found = fidelity(check.probe, model, check.context)
    details = {"inputs": check.probe.source, "outputs": figures(found)}
    if bound is None or not found.comparable or found.sqnr_db >= bound:
        return _Judged(details=details)
    note = (
        f"output {found.output!r} reaches {found.sqnr_db:.1f} dB, below min_output_sqnr_db = {bound:g}: more bits, "
        "smaller blocks, gptq with calibration data, or leaving layers out would bring it nearer"
    )
    return _Judged(notes=(note,), details=details)


def _outcomes(
    chosen: Sequence[Layer], planned: Plan, asked: Narrowing, made: "Decision"
) -> tuple[LayerOutcome, ...]:
    return tuple(_outcome(layer, planned, asked, made) for layer in chosen)


def _outcome(layer: Layer, planned: Plan, asked: Narrowing, made: "Decision") -> LayerOutcome:
    items = planned.of_layer.get(layer.name, ())
    done = [item for item in items if item.narrowed is not None]
    kept = [reason for reason in (planned.kept.get(layer.name), *(item.kept for item in items)) if reason]
    if not done:
        return LayerOutcome(
            layer=layer.name, changed=False, note=kept[0] if kept else "it has no float weight matrix"
        )
    words = ", ".join(dict.fromkeys(item.narrowed.scheme.words() for item in done if item.narrowed))
    note = f"{words}, {_found_by(done)}, stored as {_stored_as(done, made)}"
    parts = [note, *(f"one weight kept: {reason}" for reason in kept)]
    return LayerOutcome(layer=layer.name, changed=True, note="; ".join(parts), numbers=_numbers(done))


def _found_by(items: Sequence[Item]) -> str:
    return ", ".join(dict.fromkeys(item.narrowed.algorithm for item in items if item.narrowed))


def _stored_as(items: Sequence[Item], made: "Decision") -> str:
    forms = dict.fromkeys("folded" if made.folded_only else item.form for item in items)
    words = ", ".join(_NAMES[form] for form in forms)
    reasons = dict.fromkeys(item.form_note for item in items if item.form_note and not made.folded_only)
    return words + "".join(f" ({reason})" for reason in reasons)


def _numbers(items: Sequence[Item]) -> dict[str, float]:
    worst = min(items, key=lambda item: item.narrowed.errors.sqnr_db if item.narrowed else 0)
    numbers = worst.narrowed.errors.numbers() if worst.narrowed else {}
    before, after = sum(item.tensor.nbytes for item in items), sum(item.bytes_after for item in items)
    return {**numbers, "size_ratio": before / max(after, 1)}


def _fallbacks(planned: Plan, asked: Narrowing) -> list[str]:
    """Which layers were not rounded by the algorithm asked for, and why."""
    unseen: dict[str, list[str]] = {}
    for item in planned.items:
        if item.narrowed is not None and asked.by_inputs and isinstance(item.tap, str):
            unseen.setdefault(item.tap, []).append(item.layer.name)
    notes = [
        f"{asked.algorithm} had no inputs to fit to in {_some(names)}: {reason}; scales were searched for instead"
        for reason, names in unseen.items()
    ]
    nearest = [
        item.layer.name
        for item in planned.items
        if item.narrowed is not None
        and item.narrowed.algorithm == "rtn"
        and item.narrowed.scheme == asked.scheme
        and asked.algorithm != "rtn"
    ]
    if nearest:
        notes.append(f"rounding to the nearest was no worse than {asked.algorithm} in {_some(nearest)}")
    return notes


def _some(given: Sequence[str]) -> str:
    names = list(dict.fromkeys(given))
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown

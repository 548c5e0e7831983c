"""cast_float from end to end: convert, compare, tell; fall back to storage where arithmetic in float16
strays."""

from collections.abc import Sequence

import onnx_ir as ir

from compression import runtime
from compression.errors import CompressionError
from compression.graph import Layer, clean, infer_shapes
from compression.graph import layers as layers_of
from compression.method import LayerOutcome, StepContext, StepOutcome
from compression.quantization.calibration import calibrate
from compression.quantization.check import OutputCheck, figures, output_check
from compression.quantization.halves import Converted, compute_in_halves
from compression.quantization.latency import Speed, paired_speeds
from compression.quantization.narrow_floats import FLOAT16, FloatForm, store_floats
from compression.quantization.probe import Probe, fidelity
from compression.quantization.storage import Names

_SECONDS = 2.0


def cast_floats(
    model: ir.Model,
    chosen: Sequence[Layer],
    context: StepContext,
    *,
    form: FloatForm,
    arithmetic: bool,
    min_output_sqnr_db: float,
) -> StepOutcome:
    """Store the chosen layers in the form; with `arithmetic` compute in float16, and store so what cannot."""
    check = output_check(model, context, min_output_sqnr_db)
    if arithmetic:
        outcome = _arithmetic(model, chosen, check)
        if isinstance(outcome, StepOutcome):
            return outcome
        note = f"{outcome}; weights are stored as float16 and computed with in float32"
        return _storage(model, chosen, check, form, (note,))
    return _storage(model, chosen, check, form, ())


def _storage(
    model: ir.Model,
    chosen: Sequence[Layer],
    check: OutputCheck,
    form: FloatForm,
    notes: tuple[str, ...],
) -> StepOutcome:
    outcomes = store_floats(
        chosen,
        layers_of(model),
        Names(model),
        check.context.report,
        form=form,
        opset=model.opset_imports.get("", form.opset),
    )
    judged = check.judge(model, outcomes, {})
    return StepOutcome(
        model=model,
        layers=outcomes,
        notes=(*notes, *judged.notes),
        details={"compute": "float32", "format": form.name, **judged.details},
    )


def _arithmetic(model: ir.Model, chosen: Sequence[Layer], check: OutputCheck) -> StepOutcome | str:
    """The converted model, or the sentence that says why it was not kept."""
    if check.probe is None:
        return f"float16 arithmetic could not be checked: {check.reason}"
    names = frozenset(layer.name for layer in chosen)
    copy = infer_shapes(clean(model.clone()))
    keep = frozenset(layer.name for layer in layers_of(copy)) - names
    converted = compute_in_halves(copy, keep, _large(copy, check.probe, check.context))
    everyone = layers_of(copy)
    rest = [layer for layer in everyone if layer.name in names - converted.nodes]
    stored = store_floats(rest, everyone, Names(copy), check.context.report) if rest else ()
    try:
        found = fidelity(check.probe, copy, check.context)
    except CompressionError as error:
        return f"the runtime does not take the model in float16: {error.message}"
    if found.comparable and found.sqnr_db < check.min_sqnr_db:
        return f"float16 arithmetic brings output {found.output!r} to {found.sqnr_db:.1f} dB"
    speed = _speed(model, copy, check.probe, check.context)
    details = {
        "compute": "float16",
        "nodes_in_float16": converted.count,
        "outputs": figures(found),
        "speedup": round(speed.speedup, 3),
    }
    slower = f"float16 arithmetic runs at {speed.speedup:.2f}x the original's speed on this device"
    return StepOutcome(
        model=copy,
        layers=_outcomes(chosen, converted, stored),
        notes=(slower,) if speed.speedup < 1 else (),
        details=details,
    )


def _large(model: ir.Model, probe: Probe, context: StepContext) -> dict[str, str]:
    """Tensors that go beyond half of float16's range, or hold no finite number, on the probe's inputs.

    Measured on the float32 model: a CPU computes float16 operators in float32, where nothing would overflow.
    """
    tensors = [
        value
        for node in model.graph
        for value in node.outputs
        if value.dtype == ir.DataType.FLOAT and value.name
    ]
    tensors += [value for value in model.graph.inputs if value.dtype == ir.DataType.FLOAT]
    seen = calibrate(model, tensors, probe.feeds, context, expected=len(probe.feeds), drawing=False)
    peaks = {name: max(-bounds.low, bounds.high) for name, bounds in seen.extremes().items()}
    large = {name: f"{name} reaches {peak:.4g}" for name, peak in peaks.items() if peak > FLOAT16.largest / 2}
    return {**large, **seen.refused}


def _speed(model: ir.Model, copy: ir.Model, probe: Probe, context: StepContext) -> Speed:
    sessions = [
        runtime.open_session(item, device=context.device, threads=context.threads) for item in (model, copy)
    ]
    with context.timing():
        return paired_speeds(sessions[0], sessions[1:], probe.feeds, seconds=_SECONDS)[0]


def _outcomes(
    chosen: Sequence[Layer], converted: Converted, stored: Sequence[LayerOutcome]
) -> tuple[LayerOutcome, ...]:
    by_name = {outcome.layer: outcome for outcome in stored}
    outcomes = []
    for layer in chosen:
        outcome = by_name.get(layer.name) or LayerOutcome(
            layer=layer.name, changed=True, note="computes in float16"
        )
        reason = None
        if layer.name not in converted.nodes:
            reason = converted.kept.get(layer.name, "it stands in a subgraph or function, or was folded away")
        note = f"computes in float32, since {reason}; {outcome.note}" if reason else outcome.note
        outcomes.append(outcome.model_copy(update={"note": note}))
    return tuple(outcomes)

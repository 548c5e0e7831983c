"""Says of each layer which precision it got and what every other would have cost."""

from collections.abc import Mapping, Sequence
from math import log10
from typing import Any

from compression.graph import Layer
from compression.method import LayerOutcome, StepOutcome
from compression.quantization.mixed.finding import Found
from compression.quantization.mixed.forms import Packed
from compression.quantization.mixed.searching import Problem
from compression.quantization.mixed.settings import KEPT, PRECISIONS, MixedOptions, Precision
from compression.quantization.mixed.units import Unit, Units

_BITS: Mapping[Precision, int] = {"int4": 4, "int8": 8, "float16": 16, "float32": 32}
_POINTS = 24
_MOST_DB = 200.0


def tell(
    chosen: Sequence[Layer], units: Units, found: Found, options: MixedOptions, *, notes: Sequence[str]
) -> StepOutcome:
    """The outcome of the step."""
    layers = tuple(_outcome(layer.name, units, found) for layer in chosen)
    return StepOutcome(
        model=found.built.model,
        layers=layers,
        notes=(
            _sentence(units, found),
            *notes,
            *found.problem.table.notes,
            *found.built.notes,
            *_caveats(found),
        ),
        details={**units.facts, **found.built.details, **_details(units, found, options)},
    )


def _outcome(layer: str, units: Units, found: Found) -> LayerOutcome:
    own = units.of_layer(layer)
    kept = units.kept.get(layer)
    if not own:
        return LayerOutcome(layer=layer, changed=False, note=kept or "it has no float weight matrix")
    words = ", ".join(dict.fromkeys(_words(unit, found) for unit in own))
    if kept:
        words += f"; one weight kept: {kept}"
    changed = any(found.mixture[unit.name] != KEPT for unit in own)
    return LayerOutcome(layer=layer, changed=changed, note=words, numbers=_numbers(own, found))


def _words(unit: Unit, found: Found) -> str:
    precision = found.mixture[unit.name]
    form = unit.forms[precision]
    if precision == KEPT:
        reasons = "".join(f"; {reason}" for reason in dict.fromkeys(unit.refused.values()))
        return f"kept as it was: fewer bits here cost more than they save elsewhere{reasons}"
    if isinstance(form, Packed):
        in_kernel = found.built.accuracy is not None and form.item.form != "folded"
        stored = "MatMulNBits" if in_kernel else "packed bits that fold at load"
        return f"{form.words}, stored as {stored}"
    return f"{form.words}, folds into floats at load"


def _numbers(own: Sequence[Unit], found: Found) -> dict[str, float]:
    """Bits, the weight's own noise, and in the order of precisions what each would do to the outputs."""
    table = found.problem.table
    before = sum(unit.value.const_value.nbytes for unit in own if unit.value.const_value is not None)
    after = sum(unit.forms[found.mixture[unit.name]].size_bytes for unit in own)
    numbers: dict[str, float] = {
        "bits": float(min(_BITS[found.mixture[unit.name]] for unit in own)),
        "size_ratio": before / max(after, 1),
    }
    noises = [unit.forms[found.mixture[unit.name]].sqnr_db for unit in own]
    if abs(min(noises)) != float("inf"):
        numbers["sqnr_db"] = min(noises)
    for kind, column in (("alone", table.alone), ("rest", table.rest)):
        for precision in PRECISIONS:
            harms = [column[unit.name, precision] for unit in own if (unit.name, precision) in column]
            if harms:
                numbers |= _harm(f"{kind}_{precision}", max(harms), by_labels=found.metric is not None)
    return numbers


def _harm(name: str, harm: float, *, by_labels: bool) -> dict[str, float]:
    return {f"{name}_loss": harm} if by_labels else {f"{name}_db": _decibels(harm)}


def _decibels(noise: float) -> float:
    return min(-10 * log10(max(noise, 1e-30)), _MOST_DB)


def _sentence(units: Units, found: Found) -> str:
    counts = _counts(found)
    told = ", ".join(f"{count} at {precision}" for precision, count in counts.items())
    if set(counts) == {KEPT}:
        told = "no weight can be stored in fewer bits within the budgets: all are as they were"
    verdict = found.verdict
    reached = f"{verdict.sqnr_db:.1f} dB" if verdict.noise > 0 else "no noise at all"
    drop = "" if verdict.metric_drop is None else f", {found.metric} down by {verdict.metric_drop:.4g}"
    return f"{told}; on {found.samples[1]} samples kept aside: {reached} in the worst output{drop}"


def _counts(found: Found) -> dict[str, int]:
    taken = list(found.mixture.values())
    return {precision: taken.count(precision) for precision in PRECISIONS if precision in taken}


def _caveats(found: Found) -> list[str]:
    notes = []
    table = found.problem.table
    if table.grouped:
        notes.append(
            "max_seconds did not allow to try every weight by itself: some shared the noise of a group, split by the "
            "noise of the weights themselves"
        )
    if found.repairs:
        notes.append(
            f"on the samples kept aside {found.repairs} weights needed more bits than on those measured on"
        )
    if not found.lifted:
        notes.append(
            "the runtime does not take this model's weights as inputs: every trial was built and opened"
        )
    return notes


def _details(units: Units, found: Found, options: MixedOptions) -> dict[str, Any]:
    problem, verdict = found.problem, found.verdict
    details: dict[str, Any] = {
        "precisions": _counts(found),
        "samples_measured": found.samples[0],
        "samples_kept_aside": found.samples[1],
        "samples_in_a_trial": problem.table.samples,
        "trials": problem.table.trials,
        "harm_by": "loss on labels" if found.metric else "noise in the outputs",
        "harm_expected": problem.harm(found.mixture),
        "bytes_expected": problem.cost(found.mixture),
        "front_is_exact": problem.front.exact,
        "front": _front(problem, by_labels=found.metric is not None),
        "sensitivity": _sensitivity(units, problem),
    }
    if verdict.noise > 0:
        details["sqnr_db"] = round(verdict.sqnr_db, 2)
    if verdict.metric_drop is not None:
        details |= {"metric": found.metric, "metric_drop": verdict.metric_drop}
    return details


def _front(problem: Problem, *, by_labels: bool) -> list[dict[str, float]]:
    """Some points of it: cost, and what harm adds up to."""
    count = len(problem.front)
    step = max(count // _POINTS, 1)
    return [
        {"cost": float(cost), "harm": float(noise)}
        if by_labels
        else {"cost": float(cost), "sqnr_db": round(_decibels(float(noise)), 2)}
        for cost, noise in zip(problem.front.cost[::step], problem.front.noise[::step], strict=True)
    ]


def _sensitivity(units: Units, problem: Problem) -> dict[str, dict[str, dict[str, float]]]:
    """By weight, by kind, by precision: noise over signal, or the loss's rise."""
    table = problem.table
    found: dict[str, dict[str, dict[str, float]]] = {}
    for unit in units.items:
        columns = {"alone": table.alone, "rest": table.rest}
        found[unit.name] = {
            kind: {
                precision: column[unit.name, precision]
                for precision in unit.forms
                if (unit.name, precision) in column
            }
            for kind, column in columns.items()
            if column
        }
    return found

"""Factorization from end to end: find the layers, learn of their inputs, choose ranks, write the chains, tell."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from compression.errors import NotApplicable
from compression.graph import Layer, infer_shapes
from compression.graph.macs import count_macs
from compression.lowrank.biases import add_to_bias
from compression.lowrank.budget import allot, ladder
from compression.lowrank.choosing import by_energy, by_noise, by_ratio
from compression.lowrank.factors import Built, Option, Problem
from compression.lowrank.finding import Place, find_places
from compression.lowrank.forms import build
from compression.lowrank.material import Material, collect
from compression.lowrank.norm import Norm
from compression.lowrank.telling import Told, outcomes, summary
from compression.lowrank.wish import Wish
from compression.lowrank.writing import write_chain
from compression.method import StepContext, StepOutcome
from compression.quantization.check import figures, output_check
from compression.quantization.probe import fidelity
from compression.quantization.storage import Names

_POOR_DB = 20.0


def factorize(model: ir.Model, chosen: Sequence[Layer], wish: Wish, context: StepContext) -> StepOutcome:
    """Puts chains in the places of layers, in place.

    Raises:
        NotApplicable: a weight holds NaN or infinity, or a budget cannot be met.
        DataMismatch: the calibration data does not fit the model.
    """
    context.report(0.0, "finding layers to factorize")
    check = output_check(model, context, _POOR_DB)
    infer_shapes(model)
    before = count_macs(model).total
    places, kept = find_places(model, chosen)
    early = replace(context, report=lambda done, words: context.report(0.4 * done, words))
    material = collect(model, places, wish, early)
    later = replace(context, report=lambda done, words: context.report(0.4 + 0.5 * done, words))
    told = (
        _by_budget(model, places, material, later)
        if wish.has_budget
        else _singly(model, places, material, later)
    )
    for place in places:
        if place.name not in told:
            kept |= dict.fromkeys((layer.name for layer in place.layers), _no_gain(place, wish))
    context.report(0.95, "comparing the outputs with the original's")
    notes, details = summary(material, told, before, count_macs(infer_shapes(model)).total)
    if check.probe is None:
        notes = (*notes, check.reason)
    elif told:
        details["outputs"] = figures(fidelity(check.probe, model, check.context))
    return StepOutcome(
        model=model,
        layers=outcomes(chosen, places, told, kept, material),
        notes=notes,
        details=details,
        unchanged=not told,
    )


def _singly(
    model: ir.Model, places: Sequence[Place], material: Material, context: StepContext
) -> dict[str, Told]:
    """Each layer by its own share, energy or noise."""
    names, told = Names(model), {}
    for count, place in enumerate(places):
        context.report(count / len(places), f"factorizing {place.name}")
        problem = material.problem(place)
        built = _built(problem, material.wish)
        if built is not None:
            told[place.name] = _write(place, problem, built, material, names)
    return told


def _built(problem: Problem, wish: Wish) -> Built | None:
    forms = wish.forms(problem.forms)
    if wish.ratio is not None:
        return by_ratio(problem, forms, wish.ratio)
    if wish.energy is not None:
        return by_energy(problem, forms, wish.energy)
    return by_noise(problem, forms[0])


def _by_budget(
    model: ir.Model, places: Sequence[Place], material: Material, context: StepContext
) -> dict[str, Told]:
    known = [place for place in places if place.geometry.known]
    whole = count_macs(model)
    limit = _limit(material.wish, whole.total)
    ladders: dict[str, list[Option]] = {}
    energies: dict[str, float] = {}
    for count, place in enumerate(known):
        context.report(0.8 * count / len(known), f"trying ranks of {place.name}")
        problem = material.problem(place)
        ladders[place.name] = ladder(problem, material.wish.forms(problem.forms))
        if place.name in material.curvature:
            energies[place.name] = problem.energy
    macs = {place.name: place.geometry.macs(place.geometry.whole) for place in known}
    others = (whole.total or 0) - sum(macs.values())
    found = allot(ladders, macs, limit - others, _importance(macs, energies))
    if found.macs + others > limit:
        raise NotApplicable(
            f"the budget of {limit:,.0f} multiply-accumulates cannot be met: the least that factorizing the selected "
            f"layers leaves is {found.macs + others:,} of {whole.total or 0:,}",
            where="max_macs" if material.wish.max_macs is not None else "macs_ratio",
            hint="allow more, select more layers, or lower round_to",
        )
    names, told = Names(model), {}
    for count, place in enumerate(place for place in known if place.name in found.options):
        context.report(0.8 + 0.2 * count / max(len(found.options), 1), f"factorizing {place.name}")
        problem = material.problem(place)
        told[place.name] = _write(place, problem, build(problem, found.options[place.name]), material, names)
    return told


def _importance(names: Iterable[str], energies: Mapping[str, float]) -> dict[str, float]:
    """Energies in the model's outputs where they are known, the mean of these elsewhere; 1 where none is."""
    mean = sum(energies.values()) / len(energies) if energies else 1.0
    return {name: energies.get(name, mean) for name in names}


def _limit(wish: Wish, total: int | None) -> float:
    if total is None:
        raise NotApplicable(
            "the multiply-accumulates of this model are not known, since its shapes are not",
            where="max_macs" if wish.max_macs is not None else "macs_ratio",
            hint="use ratio or energy, which look at each layer by itself",
        )
    return float(wish.max_macs) if wish.max_macs is not None else (wish.macs_ratio or 1.0) * total


def _write(place: Place, problem: Problem, built: Built, material: Material, names: Names) -> Told:
    centred, moments, weight = material.is_centred(place), material.moments(place), problem.stored
    write_chain(place, built, names)
    if centred and moments is not None:
        amount = (weight - built.composed).reshape(len(weight), -1) @ moments.mean
        for layer in place.layers:
            add_to_bias(layer, amount, names)
    plain = Norm(inputs=problem.norm.inputs, kernel=problem.norm.kernel)
    return Told(
        words=built.option.words,
        macs_before=problem.geometry.macs(problem.geometry.whole),
        macs_after=built.option.macs,
        known=place.geometry.known,
        weight_error=plain.error(weight, built.composed) ** 0.5,
        output_error=None if moments is None else problem.norm.error(weight, built.composed) ** 0.5,
        ranks=built.option.ranks,
        biased=centred,
    )


def _no_gain(place: Place, wish: Wish) -> str:
    if wish.has_budget:
        if not place.geometry.known:
            return "its multiply-accumulates are not known, so that no budget can count them"
        return "the budget is met without it, or no rank saves multiplications and bytes"
    return "no rank that was asked for saves both multiplications and bytes"

"""Takes channels out of a model: groups, scores, choice, cut, proof."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from compression.channel_pruning.budgets import macs, weight_bytes, within
from compression.channel_pruning.choosing import Chooser, apart
from compression.channel_pruning.judging import Judged, judge
from compression.channel_pruning.material import Material
from compression.channel_pruning.proof import Proof, cut_and_prove
from compression.channel_pruning.telling import Told, outcomes
from compression.channel_pruning.wish import Wish
from compression.errors import NotApplicable
from compression.graph import Layer, layers
from compression.graph.channels import Doomed, Group, Grouping, find_groups
from compression.method import StepContext, StepOutcome


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What leaves, and why other groups stay whole."""

    groups: Sequence[Group]
    doomed: Doomed
    whole: Mapping[str, str]
    notes: tuple[str, ...]


def prune(model: ir.Model, chosen: Sequence[Layer], wish: Wish, context: StepContext) -> StepOutcome:
    """Cuts the model in place.

    Raises:
        NotApplicable: no unit can leave, or the budget cannot be met.
        ResultRejected: the result and the original with the same units silent disagree.
    """
    context.report(0.0, "finding out which channels depend on each other")
    original = model.clone()
    grouping = find_groups(model, widths=wish.widths)
    material = Material(model=model, context=context, max_samples=wish.max_samples)
    plan = _plan(model, grouping, {layer.name for layer in chosen}, wish, material)
    before = Told.of(model, macs(model), weight_bytes(model))
    context.report(0.7, "cutting, and comparing with the original whose units are silent")
    proof = cut_and_prove(original, model, plan.doomed, material.proofs(), widths=wish.widths)
    after = Told.of(model, macs(model), weight_bytes(model))
    whole = {**plan.whole, **proof.left_whole}
    return StepOutcome(
        model=model,
        layers=outcomes(chosen, grouping, (before, after), _groups_cut(plan, proof), whole),
        notes=tuple(_notes(plan, proof, (before, after), wish, material.source)),
        details=_details(plan, proof, (before, after), wish),
    )


def _plan(model: ir.Model, grouping: Grouping, names: set[str], wish: Wish, material: Material) -> Plan:
    able, whole = _selected(model, grouping, names)
    context = material.context
    context.report(0.05, f"judging {sum(group.size for group in able)} units by {wish.criterion}")
    judged = judge(model, able, wish.criterion, material, context) if able else Judged(scores={})
    groups = apart([group for group in able if group.id in judged.scores])
    whole |= judged.unscored
    if not groups:
        raise NotApplicable(f"no channels can leave{_reasons(grouping, whole)}", where="layers")
    chooser = Chooser(
        groups=groups,
        scores=judged.scores,
        scope=wish.scope,
        max_sparsity=max(wish.max_sparsity, wish.sparsity or 0.0),
        round_to=wish.round_to,
    )
    doomed, notes = _choice(model, chooser, wish, material)
    if not doomed:
        raise NotApplicable(
            f"nothing would leave: {_why_nothing(judged, groups, wish)}",
            where="threshold" if wish.threshold else "round_to",
        )
    return Plan(groups=groups, doomed=doomed, whole=whole, notes=(*judged.notes, *notes))


def _selected(model: ir.Model, grouping: Grouping, names: set[str]) -> tuple[list[Group], dict[str, str]]:
    """Groups all of whose kernels and matrices are selected, for all of them shrink; and why others stay."""
    with_kernels = {layer.name for layer in layers(model) if _has_kernel(layer)}
    able, whole = [], {}
    for group in grouping.groups:
        outside = [name for name in group.layers if name in with_kernels and name not in names]
        if outside:
            whole[group.id] = f"{outside[0]!r} would shrink with it and is not selected"
        else:
            able.append(group)
    return able, whole


def _has_kernel(layer: Layer) -> bool:
    """Layers that have but vectors follow others."""
    return any(value.const_value is not None and len(value.const_value.shape) > 1 for value in layer.weights)


def _choice(
    model: ir.Model, chooser: Chooser, wish: Wish, material: Material
) -> tuple[Doomed, tuple[str, ...]]:
    if wish.sparsity is not None:
        return chooser.by_share(wish.sparsity), ()
    if wish.threshold is not None:
        return chooser.by_threshold(wish.threshold), ()
    if wish.budget is None:
        raise ValueError("a wish says how much leaves")
    share, notes = within(
        model,
        chooser.by_share,
        wish.budget,
        material.context,
        most=chooser.max_sparsity,
        widths=wish.widths,
        feeds=material.proofs(),
    )
    return chooser.by_share(share), notes


def _groups_cut(plan: Plan, proof: Proof) -> Mapping[str, tuple[Group, int]]:
    """By id the groups that were cut, with how many units left."""
    return {
        group.id: (group, len(proof.doomed[group.id])) for group in plan.groups if group.id in proof.doomed
    }


def _reasons(grouping: Grouping, whole: Mapping[str, str]) -> str:
    found = [f"{name}: {reason}" for name, reason in whole.items()]
    found += [f"{lock.layer}: {lock.reason}" for lock in grouping.locked]
    return f" ({'; '.join(found[:3])})" if found else ": the model has no layer whose outputs could shrink"


def _why_nothing(judged: Judged, groups: Sequence[Group], wish: Wish) -> str:
    if wish.threshold is None:
        return f"counts are rounded to multiples of {wish.round_to}; lower round_to"
    low = min(float(judged.scores[group.id].min()) for group in groups)
    return f"the lowest score is {low:.3g}, the threshold {wish.threshold:.3g}"


def _notes(plan: Plan, proof: Proof, told: tuple[Told, Told], wish: Wish, source: str) -> Iterator[str]:
    before, after = told
    gone = sum(len(units) for units in proof.doomed.values())
    everyone = sum(group.size for group in plan.groups)
    groups = f"{len(proof.doomed)} of {len(plan.groups)} groups"
    yield f"{gone:,} of {everyone:,} units left {groups}, chosen by {wish.criterion}"
    if before.macs and after.macs:
        operations = f"{after.macs / before.macs:.1%} of the multiply-accumulates"
        yield f"{operations} and {after.size_bytes / before.size_bytes:.1%} of the weights' bytes are left"
    yield from plan.notes
    yield (
        f"proof: the original with these units silent and the result agree to {proof.error:.1e} on {source} "
        f"({proof.allowed:.0e} is allowed)"
    )
    if wish.widths and any(group.restates and group.id in proof.doomed for group in plan.groups):
        yield "normalizations now take their statistics over fewer units: finetune to make up for it"


def _details(plan: Plan, proof: Proof, told: tuple[Told, Told], wish: Wish) -> dict[str, object]:
    before, after = told
    return {
        "criterion": wish.criterion,
        "groups": [
            {
                "id": group.id,
                "unit": group.unit,
                "before": group.size,
                "after": group.size - len(proof.doomed.get(group.id, ())),
                "layers": list(group.layers),
            }
            for group in plan.groups
        ],
        "proof": {"error": proof.error, "allowed": proof.allowed},
        "macs": {"before": before.macs, "after": after.macs},
        "weight_bytes": {"before": before.size_bytes, "after": after.size_bytes},
    }

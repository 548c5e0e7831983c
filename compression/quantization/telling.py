"""Puts a placement's decision into outcomes, notes and facts; falls back to stored weights where nothing
won."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir

from compression.graph import layers
from compression.method import LayerOutcome, StepOutcome
from compression.quantization.candidates import Candidate, Decision
from compression.quantization.check import Judgement, OutputCheck
from compression.quantization.recovery.means import Means
from compression.quantization.weight_only import store_layers

Reasons = Mapping[str, str | None]
"""By layer, why it could never compute in integers; None where it could."""
_HEADROOM_DB = 5.0
"""Stored weights alone have to be this much truer than the whole, so that integers have room left."""


@dataclass(frozen=True, kw_only=True)
class Fallback:
    """The model with all weights stored and none of the integers: made first, kept where nothing beats it."""

    model: ir.Model
    judged: Judgement

    def outcome(self, reason: str, details: Mapping[str, Any]) -> StepOutcome:
        note = f"{reason}; the model still computes in floats, only its weights are stored as integers"
        return StepOutcome(
            model=self.model,
            layers=self.judged.layers,
            notes=(note, *self.judged.notes),
            details={**details, **self.judged.details, "fallback": "weight-only"},
        )


def fall_back(
    model: ir.Model,
    names: Set[str],
    check: OutputCheck,
    *,
    min_sqnr_db: float,
    means: Means | None = None,
) -> Fallback:
    """Store all weights of a copy of the model, with int16 where the outputs want it; see `store_layers`."""
    copy = model.clone()
    everyone = layers(copy)
    outcomes, chains = store_layers(
        copy,
        [layer for layer in everyone if layer.name in names],
        everyone,
        min_sqnr_db=min_sqnr_db,
        means=means,
        report=lambda done, message: check.context.report(0.1 * done, message),
    )
    wanted = check.min_sqnr_db + _HEADROOM_DB
    return Fallback(model=copy, judged=replace(check, min_sqnr_db=wanted).judge(copy, outcomes, chains))


def decided(
    decision: Decision, fallback: Fallback, reasons: Reasons, details: Mapping[str, Any]
) -> StepOutcome:
    """The winner with all that was tried, or the fallback."""
    tried = [{**item.facts(), "chosen": item is decision.chosen} for item in decision.tried]
    details = {**details, "candidates": tried, "problems": list(decision.problems)}
    if decision.chosen is None:
        return fallback.outcome(_no_winner(decision), details)
    if not decision.chosen.layers:
        note = f"{_no_winner(decision)}; {_floats_sentence(decision.chosen)}"
        return _won(decision.chosen, reasons, {**details, "fallback": "weight-only"}, note)
    return _won(decision.chosen, reasons, details, _winner_sentence(decision.chosen, len(reasons)))


def _won(winner: Candidate, reasons: Reasons, details: Mapping[str, Any], note: str) -> StepOutcome:
    told = {outcome.layer: _with_reason(outcome, reasons, winner) for outcome in winner.stored}
    for layer, sqnr in winner.weight_sqnr_db.items():
        numbers = {} if abs(sqnr) == float("inf") else {"sqnr_db": sqnr}
        told[layer] = LayerOutcome(layer=layer, changed=True, note="computes in int8", numbers=numbers)
    gone = LayerOutcome(layer="", changed=False, note="folded into its neighbours before quantization")
    outcomes = tuple(told.get(name) or gone.model_copy(update={"layer": name}) for name in reasons)
    return StepOutcome(model=winner.model, layers=outcomes, notes=(note,), details=details)


def _with_reason(outcome: LayerOutcome, reasons: Reasons, winner: Candidate) -> LayerOutcome:
    if not winner.layers:
        return outcome
    if outcome.layer in winner.dropped:
        reason: str | None = "integers there spoil the outputs"
    else:
        reason = reasons.get(outcome.layer) or "integers there do not pay"
    return outcome.model_copy(update={"note": f"computes in floats, since {reason}; weights: {outcome.note}"})


def _no_winner(decision: Decision) -> str:
    tried = [item for item in decision.tried if item.layers]
    if not tried:
        return "no part of this model can compute in integers" + _first(decision.problems)
    timed = [item for item in tried if item.speed is not None]
    if not timed:
        best = max(tried, key=lambda item: item.fidelity.sqnr_db)
        reached = f"the best of {len(tried)} candidates reaches {best.fidelity.sqnr_db:.1f} dB"
        return f"integers spoil the outputs: {reached}"
    best = max(timed, key=lambda item: item.speed.speedup if item.speed else 0.0)
    speedup = best.speed.speedup if best.speed else 0.0
    ran = f"the fastest of {len(timed)} candidates ran at {speedup:.2f}x the original's speed"
    return f"integers do not pay on this device: {ran}, {_beaten(decision)}"


def _beaten(decision: Decision) -> str:
    return (
        "which is not faster beyond noise"
        if decision.chosen is None
        else "and floats with fewer nodes are faster"
    )


def _first(problems: Sequence[str]) -> str:
    return f" ({problems[0]})" if problems else ""


def _winner_sentence(winner: Candidate, count: int) -> str:
    left = count - len(winner.layers)
    rest = f"; {left} others compute in floats from int8 weights" if left else ""
    return f"integers in {winner.name}: {len(winner.layers)} layers{_figures(winner)}{rest}"


def _floats_sentence(winner: Candidate) -> str:
    stored = "only its weights are stored as integers"
    return f"with fewer nodes the model computes in floats{_figures(winner)}; {stored}"


def _figures(winner: Candidate) -> str:
    speed = f", {winner.speed.speedup:.2f}x the original's speed" if winner.speed else ", not timed"
    db = winner.fidelity.sqnr_db
    true = f", outputs at {db:.1f} dB" if winner.fidelity.comparable and abs(db) != float("inf") else ""
    return f"{speed}{true}"

"""Finds how much has to leave for a budget to be met, by trial cuts on copies."""

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir

from compression import runtime
from compression.channel_pruning.wish import Budget
from compression.errors import NotApplicable
from compression.graph import layers
from compression.graph.channels import Doomed, cut
from compression.graph.macs import count_macs
from compression.method import StepContext
from compression.quantization.latency import paired_speeds

ROUNDS = 7
LADDER = 8
TIMING_S = 20.0

Choose = Callable[[float], Doomed]
Measure = Callable[[ir.Model], float | None]


def within(
    model: ir.Model,
    choose: Choose,
    budget: Budget,
    context: StepContext,
    *,
    most: float,
    widths: bool,
    feeds: Sequence[Any],
) -> tuple[float, tuple[str, ...]]:
    """The least share of units whose leaving meets the budget, and sentences that say how it was found.

    Args:
        model: stays as it is.
        choose: from a share to the units that leave.
        budget: what may be left.
        context: device, threads, progress.
        most: the largest share to try.
        widths: as the groups were found.
        feeds: what latency is measured on.

    Raises:
        NotApplicable: not even the largest share meets it.
    """
    trial = _Trial(model, choose, widths)
    share, notes = 0.0, []
    for name, wanted, measure in (
        ("macs", budget.macs, macs),
        ("size", budget.size, lambda cut_model: float(weight_bytes(cut_model))),
    ):
        if wanted is not None:
            context.report(0.4, f"looking for the share that meets the budget of {name}")
            found, left = _bisected(trial, measure, wanted, name, most)
            share = max(share, found)
            notes.append(f"{name}: {left:.1%} of the original's are left, {wanted:.1%} were allowed")
    if budget.latency is not None:
        found, left = _timed(trial, budget.latency, (share, most), context, feeds)
        share = max(share, found)
        notes.append(f"latency: {left:.1%} of the original's is left, {budget.latency:.1%} was allowed")
    return share, tuple(notes)


class _Trial:
    def __init__(self, model: ir.Model, choose: Choose, widths: bool) -> None:
        self.model, self._choose, self._widths = model, choose, widths

    def cut(self, share: float) -> ir.Model:
        copy = self.model.clone()
        doomed = self._choose(share)
        if doomed:
            cut(copy, doomed, widths=self._widths)
        return copy


def macs(model: ir.Model) -> float | None:
    """Of one inference, as far as shapes are known."""
    total = count_macs(model).total
    return None if not total else float(total)


def weight_bytes(model: ir.Model) -> int:
    """Of all layers' tensors, each counted once."""
    values = {value for layer in layers(model) for value in layer.weights}
    return sum(value.const_value.nbytes for value in values if value.const_value is not None)


def _bisected(trial: _Trial, measure: Measure, wanted: float, name: str, most: float) -> tuple[float, float]:
    """The least share that meets one demand, to within most / 2^ROUNDS, and what is left then."""
    whole = measure(trial.model)
    if not whole:
        raise NotApplicable(
            f"the model's {name} cannot be counted before it runs: its shapes are not known",
            where=f"budget.{name}",
            hint="give a budget of size or latency, or a sparsity",
        )
    least = (measure(trial.cut(most)) or whole) / whole
    if least > wanted:
        raise NotApplicable(
            f"{least:.1%} of the {name} is the least that can be left; the budget allows {wanted:.1%}",
            where=f"budget.{name}",
            hint="allow more, raise max_sparsity, or select more layers",
        )
    low, high, left = 0.0, most, least
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        found = (measure(trial.cut(middle)) or whole) / whole
        if found <= wanted:
            high, left = middle, found
        else:
            low = middle
    return high, left


def _timed(
    trial: _Trial, wanted: float, between: tuple[float, float], context: StepContext, feeds: Sequence[Any]
) -> tuple[float, float]:
    """Times a ladder of cuts in alternation with the original."""
    low, high = between
    shares = [low + (high - low) * step / LADDER for step in range(1, LADDER + 1)]
    sessions = []
    for number, share in enumerate(shares):
        context.report(0.4 + 0.2 * number / LADDER, f"building a cut of {share:.0%} to time it")
        sessions.append(_open(trial.cut(share), context))
    with context.timing():
        speeds = paired_speeds(_open(trial.model, context), sessions, feeds, seconds=TIMING_S)
    left = [1 / speed.speedup for speed in speeds]
    for share, part in zip(shares, left, strict=True):
        if part <= wanted:
            return share, part
    raise NotApplicable(
        f"the fastest cut takes {min(left):.1%} of the original's time; the budget allows {wanted:.1%}",
        where="budget.latency",
        hint="allow more, raise max_sparsity, or select more layers",
    )


def _open(model: ir.Model, context: StepContext) -> Any:
    return runtime.open_session(model, device=context.device, threads=context.threads)

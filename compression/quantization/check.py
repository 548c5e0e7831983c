"""Judges what stored weights do to the model's outputs, finds the layers that spoil them, and gives those
more bits."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx_ir as ir

from compression.errors import CompressionError
from compression.method import LayerOutcome, StepContext
from compression.quantization.blaming import share_noise
from compression.quantization.probe import Fidelity, Probe, fidelity, take_probe
from compression.quantization.storage import Chain

MAX_BYTES = 1_500_000_000
"""Above this the model is not run inside the step: the probe would hold it in memory twice."""
_SECONDS = 15.0
"""For finding the layers that spoil the output, by one trial per layer."""
_SAMPLES = 16
"""As many as the evaluation makes up: what it would find to be spoilt is to be found here first."""
_PROBE_SECONDS = 4.0
_TRIALS = 4
"""Inputs for each trial, at most."""
_WIDE = 16
_NARROW = 8

Chains = Mapping[str, Sequence[Chain]]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Outcomes after the mending, and what to say about it."""

    layers: tuple[LayerOutcome, ...]
    widened: frozenset[str] = frozenset()
    """Layers stored as int16."""
    sqnr_db: float | None = None
    """Of the worst output in the end; None where nothing could be compared."""
    notes: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class OutputCheck:
    """Holds the original's answers while the model is changed."""

    context: StepContext
    min_sqnr_db: float
    probe: Probe | None
    reason: str = ""
    """Why there is no probe."""

    def judge(self, model: ir.Model, outcomes: Sequence[LayerOutcome], chains: Chains) -> Judgement:
        """Compare the outputs; below the bound, store the layers to blame as int16.

        The layers to blame are those whose int8 weights alone, beside int16 in all others, spoil the worst
        output most. Where even int16 in all of them is not enough, they are left at int8 and named.
        """
        if self.probe is None:
            return Judgement(layers=tuple(outcomes), notes=(self.reason,))
        found = fidelity(self.probe, model, self.context)
        details: dict[str, Any] = {"inputs": self.probe.source, "outputs": figures(found)}
        if not found.comparable or found.sqnr_db >= self.min_sqnr_db:
            db = found.sqnr_db if found.comparable else None
            return Judgement(layers=tuple(outcomes), sqnr_db=db, details=details)
        blamed = self._blame(model, chains)
        mended, after = self._mend(model, blamed, chains, found)
        worst = sorted(blamed, key=lambda item: -item.noise)[:10]
        details["outputs_with_int8_only_in"] = {
            item.layer: round(min(item.sqnr_db, 999.0), 2) for item in worst
        }
        details["outputs_after_mending"] = figures(after)
        note = self._sentence(found, after, worst, mended)
        return Judgement(
            layers=_widened(outcomes, mended),
            widened=mended,
            sqnr_db=after.sqnr_db,
            notes=(note,),
            details=details,
        )

    def _measure(self, model: ir.Model) -> Fidelity:
        if self.probe is None:
            raise ValueError("there is nothing to compare with")
        return fidelity(self.probe, model, self.context)

    def _blame(self, model: ir.Model, chains: Chains) -> list["Blame"]:
        """What int8 in each layer alone does to the outputs, the best bargain of mending first.

        All others are int16 meanwhile: little noise adds up, about, while that of many int8 layers drowns out
        what one of them does.
        """
        costs = {
            name: sum(chain.source.size for chain in own) for name, own in chains.items() if _can_widen(own)
        }
        _widen(tuple(costs), chains, _WIDE)
        quick, exact = self._quick(model)

        def alone(names: Sequence[str]) -> float:
            _widen(names, chains, _NARROW)
            noise = _noise(quick._measure(model))
            _widen(names, chains, _WIDE)
            return max(noise - exact, 0.0)

        noise = share_noise(tuple(costs), alone, until=time.monotonic() + _SECONDS)
        _widen(tuple(costs), chains, _NARROW)
        blamed = [Blame(layer=name, noise=own, cost=costs[name]) for name, own in noise.items()]
        return sorted(blamed, key=lambda item: -item.noise / item.cost)

    def _quick(self, model: ir.Model) -> tuple["OutputCheck", float]:
        """A check on a few inputs, on one where inference takes long, and the model's noise there."""
        first = replace(self, probe=_cut(self.probe, 1))
        start = time.monotonic()
        noise = _noise(first._measure(model))
        if time.monotonic() - start > _SECONDS / 50:
            return first, noise
        few = replace(self, probe=_cut(self.probe, _TRIALS))
        return few, _noise(few._measure(model))

    def _mend(
        self, model: ir.Model, blamed: Sequence["Blame"], chains: Chains, before: Fidelity
    ) -> tuple[frozenset[str], Fidelity]:
        """Widen the best bargains until the bound is met; all the way back if it never is.

        Noise of single layers adds up, about, so that it tells how many to take at first. From there the least
        sufficient number is searched for, to within an eighth.
        """
        fails, enough, best = 0, len(blamed) + 1, before
        count = _promising(blamed, 10 ** (-self.min_sqnr_db / 10))
        while fails < len(blamed) and (enough > len(blamed) or enough - fails > max(1, enough // 8)):
            _widen([item.layer for item in blamed[:count]], chains, _WIDE)
            _widen([item.layer for item in blamed[count:]], chains, _NARROW)
            found = self._measure(model)
            if found.sqnr_db >= self.min_sqnr_db:
                enough, best = count, found
            else:
                fails = count
            count = (fails + enough) // 2 if enough <= len(blamed) else min(len(blamed), fails * 3 // 2 + 1)
        mended = blamed[:enough] if enough <= len(blamed) else ()
        _widen([item.layer for item in mended], chains, _WIDE)
        _widen([item.layer for item in blamed[len(mended) :]], chains, _NARROW)
        return frozenset(item.layer for item in mended), best

    def _sentence(
        self, before: Fidelity, after: Fidelity, worst: Sequence["Blame"], mended: frozenset[str]
    ) -> str:
        kind = "synthetic inputs"
        if self.probe and self.probe.source == "calibration":
            kind = "calibration samples"
        reached = f"output {before.output!r} reached {before.sqnr_db:.1f} dB on {kind}"
        start = f"{reached}, below {self.min_sqnr_db:g} dB"
        if mended:
            named = ", ".join(sorted(mended)[:5]) + (
                f" and {len(mended) - 5} more" if len(mended) > 5 else ""
            )
            return f"{start}; int16 weights in {named} bring it to {after.sqnr_db:.1f} dB"
        named = ", ".join(f"{item.layer} ({item.sqnr_db:.1f} dB by itself)" for item in worst[:3])
        return f"{start}; most of it is due to {named or 'layers inside functions'}, and int16 is not enough"


@dataclass(frozen=True, kw_only=True)
class Blame:
    """What int8 in one layer does."""

    layer: str
    noise: float
    """Noise over signal of the worst output, with int8 in this layer only."""
    cost: int
    """Bytes more as int16."""

    @property
    def sqnr_db(self) -> float:
        """Of the worst output, with int8 in this layer only."""
        return float(-10 * math.log10(max(self.noise, 1e-20)))


def output_check(model: ir.Model, context: StepContext, min_sqnr_db: float) -> OutputCheck:
    """Take the original's answers now, before it is changed; a model that cannot be run is judged by its
    weights."""
    probe, reason = None, "the outputs were not compared inside the step: the model is too large to run twice"
    if weight_bytes(model) <= MAX_BYTES:
        try:
            probe = take_probe(model, context, count=_SAMPLES, seconds=_PROBE_SECONDS)
        except CompressionError as error:
            reason = f"the outputs were not compared inside the step: {error.message}"
    return OutputCheck(context=context, min_sqnr_db=min_sqnr_db, probe=probe, reason=reason)


def weight_bytes(model: ir.Model) -> int:
    return sum(
        value.const_value.nbytes
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )


def figures(found: Fidelity) -> dict[str, float | str]:
    """Fidelity as JSON, which has no infinity."""
    numbers: dict[str, float | str] = {"agreement": found.agreement}
    if found.comparable:
        numbers["output"] = found.output
        infinite = abs(found.sqnr_db) == float("inf")
        numbers |= {"exact": found.sqnr_db > 0} if infinite else {"sqnr_db": round(found.sqnr_db, 2)}
    return numbers


def _cut(probe: Probe | None, count: int) -> Probe | None:
    return probe and replace(probe, feeds=probe.feeds[:count], answers=probe.answers[:count])


def _promising(blamed: Sequence[Blame], allowed: float) -> int:
    """How many layers from the front leave little enough noise behind them, if noise simply adds up."""
    left, count = sum(item.noise for item in blamed), 0
    while left > allowed and count < len(blamed):
        left -= blamed[count].noise
        count += 1
    return max(count, 1)


def _noise(found: Fidelity) -> float:
    """Noise over signal of the worst output."""
    return float(10 ** (-max(found.sqnr_db, -300.0) / 10))


def _can_widen(chains: Sequence[Chain]) -> bool:
    return all(chain.can_widen for chain in chains)


def _widen(names: Sequence[str], chains: Chains, bits: int) -> None:
    for name in names:
        for chain in chains[name]:
            chain.set_bits(bits)


def _widened(outcomes: Sequence[LayerOutcome], mended: frozenset[str]) -> tuple[LayerOutcome, ...]:
    note = "int16 per channel, stored as Cast * scale: int8 there spoils the outputs"
    return tuple(
        outcome.model_copy(update={"note": note, "numbers": {}}) if outcome.layer in mended else outcome
        for outcome in outcomes
    )

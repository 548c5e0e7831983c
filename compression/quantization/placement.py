"""Chooses by measurement which part of a model computes in integers.

Candidates are regions of growing reach. Each is built, checked on held-out inputs (a candidate that strays
loses the layers to blame, found by trial), and timed against the original in alternation. The fastest that
stays accurate and is not slower than the original wins; where there is none, nothing is quantized.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx_ir as ir

from compression import runtime
from compression.errors import ResultRejected
from compression.method import StepContext
from compression.quantization.affine import Range
from compression.quantization.check import figures
from compression.quantization.latency import Speed, paired_speeds
from compression.quantization.probe import Fidelity, Probe, compare
from compression.quantization.qdq import insert
from compression.quantization.regions import ALL_GROUPS, Group, find_region
from compression.quantization.target import IntegerTypes

_LADDER: tuple[tuple[str, frozenset[Group]], ...] = (
    ("convolutions", frozenset({"conv", "depthwise"})),
    ("convolutions but depthwise ones", frozenset({"conv"})),
    ("convolutions and elementwise", frozenset({"conv", "depthwise", "elementwise"})),
    ("matrix products", frozenset({"matmul"})),
    ("convolutions and matrix products", frozenset({"conv", "depthwise", "matmul"})),
    ("everything", ALL_GROUPS),
)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One region, built and judged."""

    name: str
    groups: frozenset[Group]
    layers: frozenset[str]
    """Layers that compute in integers."""
    model: ir.Model
    weight_sqnr_db: Mapping[str, float]
    fidelity: Fidelity
    speed: Speed | None = None
    dropped: tuple[str, ...] = ()
    """Layers left in floats because the outputs suffered."""

    def facts(self) -> dict[str, Any]:
        speed = self.speed
        return {
            "name": self.name,
            "layers": len(self.layers),
            "left_out_for_accuracy": list(self.dropped),
            "outputs": figures(self.fidelity),
            "speedup": None if speed is None else round(speed.speedup, 3),
            "speedup_middle_half": None if speed is None else [round(speed.low, 3), round(speed.high, 3)],
            "latency_ms": None if speed is None else round(speed.latency_ms, 3),
        }


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The winner, or None, and everything that was tried."""

    chosen: Candidate | None
    tried: tuple[Candidate, ...]
    problems: tuple[str, ...]
    """Candidates that could not be built or did not load, with the runtime's words."""


@dataclass(kw_only=True)
class Placement:
    """The search for one model."""

    original: ir.Model
    prepared: ir.Model
    """The original with constants folded, at an opset that takes QDQ."""
    layers: frozenset[str]
    ranges: Mapping[str, Range]
    types: IntegerTypes
    probe: Probe
    context: StepContext
    min_sqnr_db: float
    seconds: float
    """Wall time for the whole search, about."""
    problems: list[str] = field(default_factory=list)
    _deadline: float = 0.0

    def everything(self) -> Decision:
        """One candidate with all that can be quantized, neither timed nor mended."""
        built = self._build("everything", ALL_GROUPS, self.layers)
        return Decision(chosen=built, tried=(built,) if built else (), problems=tuple(self.problems))

    def search(self) -> Decision:
        self._deadline = time.monotonic() + self.seconds
        accurate: list[Candidate] = []
        strayed: list[Candidate] = []
        for done, candidate in self._candidates():
            self.context.report(done, f"trying integers in {candidate.name}")
            mended = candidate if self._accurate(candidate) else self._mend(candidate)
            (accurate if self._accurate(mended) else strayed).append(mended)
        timed = self._timed(accurate)
        fast = [item for item in timed if item.speed is not None and item.speed.speedup >= 1.0]
        chosen = max(fast, key=lambda item: item.speed.speedup if item.speed else 0.0, default=None)
        return Decision(chosen=chosen, tried=(*timed, *strayed), problems=tuple(self.problems))

    def _candidates(self) -> Iterator[tuple[float, Candidate]]:
        seen: set[tuple[frozenset[str], int]] = set()
        for count, (name, groups) in enumerate(_LADDER):
            region = find_region(self.prepared.graph, self.layers, groups, frozenset(self.ranges))
            key = (frozenset(region.kernels), len(region.made))
            if not region.kernels or key in seen or (seen and time.monotonic() > self._deadline):
                continue
            seen.add(key)
            built = self._build(name, groups, self.layers)
            if built:
                yield count / len(_LADDER), built

    def _build(self, name: str, groups: frozenset[Group], layers: frozenset[str]) -> Candidate | None:
        model = self.prepared.clone()
        region = find_region(model.graph, layers, groups, frozenset(self.ranges))
        if not region.kernels:
            return None
        made = insert(
            model,
            region,
            self.ranges,
            activations=self.types.activations,
            weight_bits=self.types.weight_bits,
        )
        try:
            session = self._open(model)
            answers = [runtime.run(session, feed) for feed in self.probe.feeds]
        except ResultRejected as error:
            self.problems.append(f"{name}: {error.message}")
            return None
        return Candidate(
            name=name,
            groups=groups,
            layers=frozenset(region.kernels),
            model=model,
            weight_sqnr_db=made.weight_sqnr_db,
            fidelity=compare(self.probe.answers, answers),
        )

    def _accurate(self, candidate: Candidate) -> bool:
        return not candidate.fidelity.comparable or candidate.fidelity.sqnr_db >= self.min_sqnr_db

    def _mend(self, candidate: Candidate) -> Candidate:
        """Leave the most harmful layers in floats, 1, 2, 4, ... of them, until the outputs are accurate."""
        harm = self._harm(candidate)
        best, count = candidate, 1
        while harm and count < len(harm):
            dropped = tuple(harm[:count])
            again = self._build(candidate.name, candidate.groups, candidate.layers - frozenset(dropped))
            if again is None:
                break
            best = replace(again, dropped=dropped)
            if self._accurate(best) or time.monotonic() > self._deadline:
                break
            count *= 2
        return best

    def _harm(self, candidate: Candidate) -> list[str]:
        """Layers by the outputs' noise when that layer alone computes in integers, the most harmful first."""
        alone: list[tuple[float, str]] = []
        for layer in sorted(candidate.layers):
            if time.monotonic() > self._deadline:
                break
            built = self._build(layer, candidate.groups, frozenset({layer}))
            if built:
                alone.append((built.fidelity.sqnr_db, layer))
        return [layer for _, layer in sorted(alone)]

    def _timed(self, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
        if not candidates:
            return ()
        self.context.report(0.9, f"timing {len(candidates)} candidates against the original")
        sessions = [self._open(candidate.model) for candidate in candidates]
        speeds = paired_speeds(
            self._open(self.original), sessions, self.probe.feeds, seconds=self.seconds / 4
        )
        return tuple(
            replace(candidate, speed=speed) for candidate, speed in zip(candidates, speeds, strict=True)
        )

    def _open(self, model: ir.Model) -> Any:
        return runtime.open_session(model, device=self.context.device, threads=self.context.threads)

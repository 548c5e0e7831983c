"""What a placement tries and decides between: regions of a model that compute in integers."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from typing import Any, Protocol

import onnx_ir as ir

from compression.method import LayerOutcome
from compression.quantization.check import figures
from compression.quantization.latency import Speed
from compression.quantization.probe import Fidelity

Ladder = tuple[tuple[str, frozenset[Any]], ...]


class Integers(Protocol):
    """A way of computing in integers: which layers it can take, and how it rewrites them."""

    @property
    def ladder(self) -> Ladder:
        """Candidates by name, each with the groups of operators it reaches; the last one reaches all."""

    def reach(self, model: ir.Model, layers: Set[str], groups: Set[str]) -> tuple[frozenset[str], int]:
        """The layers that would compute in integers, and how many tensors would: equal answers, equal
        models."""

    def write(self, model: ir.Model, layers: Set[str], groups: Set[str]) -> Mapping[str, float]:
        """Rewrite them in place; returns the weights' signal to noise ratio (dB) by layer."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One region, built and judged."""

    name: str
    groups: frozenset[str]
    layers: frozenset[str]
    """Layers that compute in integers; none where the model only has fewer nodes than the original."""
    model: ir.Model
    weight_sqnr_db: Mapping[str, float]
    stored: tuple[LayerOutcome, ...]
    """The other layers, which compute in floats from weights stored as int8."""
    fidelity: Fidelity
    """Of the whole: integers and stored weights together."""
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
            "speedup_interval": None if speed is None else [round(speed.low, 3), round(speed.high, 3)],
            "latency_ms": None if speed is None else round(speed.latency_ms, 3),
        }


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The winner, or None, and everything that was tried."""

    chosen: Candidate | None
    tried: tuple[Candidate, ...]
    problems: tuple[str, ...]
    """Candidates that could not be built or did not load, with the runtime's words."""

    def choosing(self, better: Candidate) -> "Decision":
        """With another candidate in the winner's place."""
        tried = tuple(better if item is self.chosen else item for item in self.tried)
        return replace(self, chosen=better, tried=tried)


def speedup(candidate: Candidate) -> float:
    """Over the original; 0 where it was not timed."""
    return candidate.speed.speedup if candidate.speed else 0.0

"""Chooses by measurement which part of a model computes in integers.

Candidates are regions of growing reach. Each is built, checked on held-out inputs (a candidate that strays
loses the layers to blame, found by trial), and timed against the original in alternation. The fastest that
stays accurate and is faster than the original, beyond noise, wins, once it proved itself on all samples that there
are; where there is none, nothing is quantized.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx_ir as ir

from compression import runtime
from compression.errors import CompressionError
from compression.graph import Layer
from compression.graph import layers as layers_of
from compression.method import LayerOutcome
from compression.quantization.blaming import share_noise
from compression.quantization.candidates import Candidate, Decision, Integers, speedup
from compression.quantization.check import OutputCheck
from compression.quantization.latency import Speed, paired_speeds
from compression.quantization.probe import Outputs, Probe, compare
from compression.quantization.recovery.means import Means
from compression.quantization.weight_only import store_layers

_SEVERAL = 4
"""Layers of a candidate that is worth halving."""
_FINALISTS = 2
_MARGIN_DB = 1.0
_TRIALS = 2
"""Samples that a group of layers is tried on."""


@dataclass(kw_only=True)
class Placement:
    """The search for one model."""

    original: ir.Model
    prepared: ir.Model
    """The original with constants folded, at an opset that takes QDQ."""
    layers: frozenset[str]
    integers: Integers
    check: OutputCheck
    """The original's answers and how near a candidate has to come."""
    min_sqnr_db: float
    """For the weights of layers left in floats."""
    wide: frozenset[str]
    """Of those, the layers stored as int16."""
    seconds: float
    """Wall time for the whole search, about."""
    means: Means = field(default_factory=dict)
    """Of the inputs of layers left in floats, for their biases to make good what rounding their weights does."""
    audit: Callable[[], Probe] | None = None
    """Draws all samples that there are, for the winner alone: a rare one that spoils it may not be among the few."""
    timed: bool = True
    """Whether speed can be measured here; else the first accurate candidate is taken."""
    floats: bool = False
    """Whether a candidate without integers takes part: the prepared model may be faster for its fewer nodes."""
    problems: list[str] = field(default_factory=list)
    _deadline: float = 0.0
    _noise: dict[str, float] = field(default_factory=dict)
    """What layers add to the outputs' noise, as far as it was looked for."""

    @property
    def _order(self) -> tuple[str, ...]:
        """The layers as the graph has them, so that halves of a group lie apart."""
        return tuple(layer.name for layer in layers_of(self.prepared) if layer.name in self.layers)

    @property
    def _probe(self) -> Probe:
        if self.check.probe is None:
            raise ValueError("placement needs answers to compare with")
        return self.check.probe

    def everything(self) -> Decision:
        """One candidate with all that can be quantized, neither timed nor mended."""
        built = self._build(*self.integers.ladder[-1], self.layers)
        return Decision(chosen=built, tried=(built,) if built else (), problems=tuple(self.problems))

    def again(
        self, name: str, groups: frozenset[str], layers: frozenset[str], speed: Speed | None
    ) -> Decision:
        """What an earlier search decided on, built anew and neither judged nor timed."""
        built = self._build(name, groups, layers)
        chosen = built and replace(built, speed=speed)
        return Decision(chosen=chosen, tried=(chosen,) if chosen else (), problems=tuple(self.problems))

    def search(self) -> Decision:
        self._deadline = time.monotonic() + self.seconds
        accurate: list[Candidate] = []
        strayed: list[Candidate] = []
        for done, candidate in self._candidates():
            self.check.context.report(done, f"trying integers in {candidate.name}")
            mended = candidate if self._accurate(candidate) else self._mend(candidate)
            (accurate if self._accurate(mended) else strayed).append(mended)
            if accurate and not self.timed:
                return self._decided([mended], strayed)
        timed = [*self._timed([*accurate, *self._floats()], self.seconds / 4)]
        return self._decided(self._settled([*timed, *self._narrowed(timed)]), strayed)

    def _decided(self, found: Sequence[Candidate], strayed: Sequence[Candidate]) -> Decision:
        """The fastest that holds on all samples; of those timed, only what is faster beyond noise."""
        tried = sorted(found, key=speedup, reverse=True)
        for place, candidate in enumerate(tried):
            if candidate.speed is not None and candidate.speed.low <= 1.0:
                continue
            confirmed = self._confirmed(candidate)
            tried[place] = confirmed
            if self._holds(confirmed) and (confirmed.speed is None or confirmed.speed.low > 1.0):
                return Decision(chosen=confirmed, tried=(*tried, *strayed), problems=tuple(self.problems))
        return Decision(chosen=None, tried=(*tried, *strayed), problems=tuple(self.problems))

    def _confirmed(self, candidate: Candidate) -> Candidate:
        """The candidate judged on all samples, and mended and timed anew where it does not hold there."""
        if self.audit is None:
            return candidate
        self.check.context.report(0.93, f"judging integers in {candidate.name} on all samples")
        probe = self.audit()
        session = self._open(candidate.model)
        answers = [runtime.run(session, feed) for feed in probe.feeds]
        judged = replace(candidate, fidelity=compare(probe.answers, answers))
        if self._holds(judged):
            return judged
        strict = replace(self, check=replace(self.check, probe=_worst_first(probe, answers)))
        strict._noise, strict._deadline = {}, time.monotonic() + self.seconds / 3
        mended = strict._mend(judged)
        mended = replace(mended, dropped=tuple(dict.fromkeys((*candidate.dropped, *mended.dropped))))
        if candidate.speed is None or not self._holds(mended):
            return mended
        return self._timed([mended], self.seconds / 12)[0]

    def _holds(self, candidate: Candidate) -> bool:
        """Without the margin that few samples call for."""
        return not candidate.fidelity.comparable or candidate.fidelity.sqnr_db >= self.check.min_sqnr_db

    def _settled(self, timed: Sequence[Candidate]) -> list[Candidate]:
        """The fastest few timed once more, side by side: speeds of different runs do not compare to a hair."""
        ranked = sorted(timed, key=speedup, reverse=True)
        finalists = ranked[:_FINALISTS]
        if len(finalists) < _FINALISTS or speedup(finalists[0]) < 1.0:
            return ranked
        return [*self._timed(finalists, self.seconds / 8), *ranked[_FINALISTS:]]

    def rebuild(self, candidate: Candidate, prepared: ir.Model) -> Candidate | None:
        """The candidate made from other floats, such as corrected biases; None where it cannot be.

        It takes over the speed and what is known of the weights: nothing but values may differ.
        """
        search = replace(self, prepared=prepared)
        again = search._build(candidate.name, candidate.groups, candidate.layers)
        return again and replace(
            again,
            speed=candidate.speed,
            dropped=candidate.dropped,
            weight_sqnr_db=candidate.weight_sqnr_db,
        )

    def _narrowed(self, timed: Sequence[Candidate]) -> Iterator[Candidate]:
        """Halves of the fastest candidate of several layers: those with most arithmetic for what they read and
        write, as long as a half is faster than the whole."""
        best = max((item for item in timed if len(item.layers) >= _SEVERAL), key=speedup, default=None)
        if best is None:
            return
        intensity = {layer.name: _intensity(layer) for layer in layers_of(self.prepared)}
        for share in ("half", "quarter", "eighth"):
            ranked = sorted(best.layers, key=lambda name: (-intensity[name], name))
            half = frozenset(ranked[: len(ranked) // 2])
            built = self._build(f"{best.name}, the densest {share}", best.groups, half) if half else None
            if built is None or not self._accurate(built):
                return
            (found,) = self._timed([replace(built, dropped=best.dropped)], self.seconds / 12)
            yield found
            if speedup(found) <= speedup(best):
                return
            best = replace(found, name=best.name)

    def _candidates(self) -> Iterator[tuple[float, Candidate]]:
        seen: set[tuple[frozenset[str], int]] = set()
        for count, (name, groups) in enumerate(self.integers.ladder):
            key = self.integers.reach(self.prepared, self.layers, groups)
            if not key[0] or key in seen or (seen and time.monotonic() > self._deadline):
                continue
            seen.add(key)
            built = self._build(name, groups, self.layers)
            if built:
                yield count / len(self.integers.ladder), built

    def _floats(self) -> Iterator[Candidate]:
        if self.floats and self.timed:
            built = self._build("no layer", frozenset(), frozenset())
            if built and self._accurate(built):
                yield built

    def _build(
        self,
        name: str,
        groups: frozenset[str],
        layers: frozenset[str],
        *,
        whole: bool = True,
        samples: int | None = None,
    ) -> Candidate | None:
        """Integers in these layers and, for the `whole` result, the weights of all others stored; judged on the
        first `samples`."""
        model = self.prepared.clone()
        written = self.integers.write(model, layers, groups)
        if layers and not written:
            return None
        stored = self._store(model, self.layers - set(written)) if whole else ()
        try:
            session = self._open(model)
            answers = [runtime.run(session, feed) for feed in self._probe.feeds[:samples]]
        except CompressionError as error:
            self.problems.append(f"{name}: {error.message}")
            return None
        return Candidate(
            name=name,
            groups=groups,
            layers=frozenset(written),
            model=model,
            weight_sqnr_db=written,
            stored=stored,
            fidelity=compare(self._probe.answers[:samples], answers),
        )

    def _store(self, model: ir.Model, names: frozenset[str]) -> tuple[LayerOutcome, ...]:
        everyone = layers_of(model)
        rest = [layer for layer in everyone if layer.name in names]
        return store_layers(
            model,
            rest,
            everyone,
            min_sqnr_db=self.min_sqnr_db,
            wide=self.wide,
            means=self.means,
            report=lambda *_: None,
        )[0]

    def _accurate(self, candidate: Candidate) -> bool:
        return not candidate.fidelity.comparable or candidate.fidelity.sqnr_db >= self._wanted_db

    @property
    def _wanted_db(self) -> float:
        """A little more than is asked for: the samples are few, and others shall come out as true."""
        return self.check.min_sqnr_db + _MARGIN_DB

    def _mend(self, candidate: Candidate) -> Candidate:
        """Leave the most harmful layers in floats until the outputs are accurate.

        The noise of layers adds up, about, which tells how many must go; a few more go where that was too
        hopeful.
        """
        harm = self._harm(candidate)
        best, count = candidate, self._too_many(harm)
        while count < len(harm) and not self._accurate(best) and time.monotonic() < self._deadline:
            dropped = tuple(layer for layer, _ in harm[:count])
            again = self._build(candidate.name, candidate.groups, candidate.layers - frozenset(dropped))
            if again is None:
                break
            best = replace(again, dropped=dropped)
            count = max(count + 1, count * 3 // 2)
        return best

    def _harm(self, candidate: Candidate) -> list[tuple[str, float]]:
        """Layers with what each adds to the outputs' noise when it computes in integers, the worst first.

        What was found for one candidate is not looked for again in the next.
        """
        unknown = [name for name in self._order if name in candidate.layers - self._noise.keys()]
        half = time.monotonic() + (self._deadline - time.monotonic()) / 2

        def noise(names: Sequence[str]) -> float:
            built = self._build("", candidate.groups, frozenset(names), whole=False, samples=_TRIALS)
            return float(10 ** (-max(built.fidelity.sqnr_db, -300.0) / 10)) if built else 0.0

        self._noise |= share_noise(unknown, noise, until=half)
        known = [(name, self._noise.get(name, 0.0)) for name in candidate.layers]
        return sorted(known, key=lambda item: (-item[1], item[0]))

    def _too_many(self, harm: Sequence[tuple[str, float]]) -> int:
        """How many layers from the front must go for the noise of the rest to stay under the bound."""
        allowed = 10 ** (-self._wanted_db / 10)
        rest = sum(noise for _, noise in harm)
        for count, (_, noise) in enumerate(harm):
            if rest <= allowed:
                return max(count, 1)
            rest -= noise
        return len(harm)

    def _timed(self, candidates: Sequence[Candidate], seconds: float) -> tuple[Candidate, ...]:
        if not candidates:
            return ()
        self.check.context.report(0.9, f"timing {len(candidates)} candidates against the original")
        sessions = [self._open(candidate.model) for candidate in candidates]
        original = self._open(self.original)
        with self.check.context.timing():
            speeds = paired_speeds(original, sessions, self._probe.feeds, seconds=seconds)
        return tuple(
            replace(candidate, speed=speed) for candidate, speed in zip(candidates, speeds, strict=True)
        )

    def _open(self, model: ir.Model) -> Any:
        return runtime.open_session(
            model, device=self.check.context.device, threads=self.check.context.threads
        )


def _worst_first(probe: Probe, answers: Sequence[Outputs]) -> Probe:
    """The same samples, those first that came out worst: trials look at the first few."""
    pairs = list(zip(probe.feeds, probe.answers, answers, strict=True))
    pairs.sort(key=lambda item: compare((item[1],), [item[2]]).sqnr_db)
    return replace(probe, feeds=tuple(p[0] for p in pairs), answers=tuple(p[1] for p in pairs))


def _intensity(layer: Layer) -> float:
    """Multiplications for each element that a layer reads or writes, from its weight [out, in, ...] or [in, out]."""
    tensor = layer.weights[0].const_value if layer.weights else None
    shape = [int(size) for size in tensor.shape.numpy()] if tensor is not None else []
    return math.prod(shape) / (shape[0] + shape[1]) if len(shape) > 1 else 0.0

"""How much each weight's precision matters: by itself, and when all others are at their smallest.

`alone`: all weights as they were but one, harm(one at p). `rest`: all at their smallest but one, harm(one at p) less
harm(one as it was), which is what is won back by keeping that one. Single weights are measured where time allows;
else groups, split in halves, the most harmful always next.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from compression.method import StepContext
from compression.quantization.mixed.grounds import Ground
from compression.quantization.mixed.judging import Judge
from compression.quantization.mixed.settings import KEPT, Mixture, Precision, Sensitivity
from compression.quantization.mixed.trial import Trial
from compression.quantization.mixed.units import Unit

FEWEST = 4
"""Samples in a trial, at least, where there are as many."""
_LITTLE = 0.1
"""Harm of a group up to which that of its halves adds up."""
_DROWNED = 1.0
"""Noise over signal from which outputs tell nothing of what made it."""

Key = tuple[str, Precision]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Harm by weight and precision."""

    alone: Mapping[Key, float] = field(default_factory=dict)
    rest: Mapping[Key, float] = field(default_factory=dict)
    samples: int = 0
    trials: int = 0
    grouped: bool = False
    """Time did not allow to measure each weight by itself."""
    notes: tuple[str, ...] = ()

    def harm(self, unit: Unit, precision: Precision) -> float:
        """What the knapsack adds up: the mean of what was measured, and never less than that of a larger precision."""
        places = tuple(unit.forms)
        return max(self._mean(unit, larger) for larger in places[places.index(precision) :])

    def _mean(self, unit: Unit, precision: Precision) -> float:
        if precision == KEPT:
            return 0.0
        found = [table[unit.name, precision] for table in (self.alone, self.rest) if table]
        return sum(found) / len(found)


def measure_sensitivity(
    trial: Trial,
    judge: Judge,
    units: Sequence[Unit],
    kind: Sensitivity,
    context: StepContext,
    *,
    samples: int,
    seconds: float,
) -> Table:
    """Fill the table, from a checkpoint as far as there is one.

    Raises:
        DataMismatch: the model fails on a sample.
    """
    memory = _Memory(context)
    trials = _trials(units, kind)
    if not memory.samples:
        few = affordable(trial, judge.ground, units, trials=trials, seconds=seconds / 2)
        memory.samples = max(min(few, samples), min(samples, FEWEST))
    count = memory.samples
    judge = judge.first(count)
    work = _Work(trial, judge, units, memory, context, total=trials, seconds=seconds)
    alone = work.table("alone", {}) if kind != "rest" else {}
    rest: dict[Key, float] = {}
    notes: tuple[str, ...] = ()
    if kind != "alone":
        smallest = {unit.name: unit.smallest for unit in units}
        if work.harm("all", smallest) < _DROWNED or judge.by_labels:
            rest = work.table("rest", smallest)
        else:
            notes = (
                "with all weights at their smallest nothing is left of the outputs: what is won back by keeping "
                "one tells nothing, so that sensitivity is that of each weight by itself",
            )
            alone = alone or work.table("alone", {})
    return Table(
        alone=alone,
        rest=rest,
        samples=judge.ground.samples,
        trials=work.done,
        grouped=work.grouped,
        notes=notes,
    )


def _trials(units: Sequence[Unit], kind: Sensitivity) -> int:
    narrow = sum(sum(precision != KEPT for precision in unit.forms) for unit in units)
    return narrow if kind == "alone" else narrow + len(units) if kind == "rest" else 2 * narrow + len(units)


def affordable(trial: Trial, ground: Ground, units: Sequence[Unit], *, trials: int, seconds: float) -> int:
    """As many samples as so many trials can have in the time, a power of two; all where these are fewer."""
    one = ground.first(1)
    mixture = {unit.name: unit.smallest for unit in units}
    trial.answers(one.batches, mixture)
    start = time.monotonic()
    trial.answers(one.batches, mixture)
    each = (time.monotonic() - start) / one.samples
    able = seconds / max(trials * each, 1e-9)
    return ground.samples if able >= ground.samples else 1 << math.floor(math.log2(max(able, 1.0)))


class _Memory:
    """Harm of mixtures that were tried, by a key; kept in checkpoints. A broken one counts as none."""

    def __init__(self, context: StepContext) -> None:
        self._checkpoints = context.checkpoints
        self.samples = 0
        self.found: dict[str, float] = {}
        saved = self._checkpoints.load()
        if saved is not None:
            with suppress(ValueError, KeyError, TypeError):
                kept = json.loads(saved.read_text())
                self.samples, self.found = int(kept["samples"]), dict(kept["found"])

    def keep(self, key: str, harm: float) -> None:
        self.found[key] = harm
        if self._checkpoints.due():
            self._checkpoints.save(self._write)

    def _write(self, path: Path) -> None:
        path.write_text(json.dumps({"samples": self.samples, "found": self.found}))


class _Work:
    def __init__(
        self,
        trial: Trial,
        judge: Judge,
        units: Sequence[Unit],
        memory: _Memory,
        context: StepContext,
        *,
        total: int,
        seconds: float,
    ) -> None:
        self._trial, self._judge, self._units, self._memory = trial, judge, tuple(units), memory
        self._context, self._total = context, total
        self._end = time.monotonic() + seconds
        self.done, self.grouped = 0, False

    def harm(self, key: str, mixture: Mixture) -> float:
        """Of a mixture; `key` names it."""
        self.done += 1
        self._context.report(
            0.2 + 0.4 * min(self.done / max(self._total, 1), 1.0), f"trying precisions, trial {self.done}"
        )
        if key not in self._memory.found:
            answers = self._trial.answers(self._judge.ground.batches, mixture)
            self._memory.keep(key, self._judge.harm(answers))
        return self._memory.found[key]

    def table(self, kind: str, base: Mixture) -> dict[Key, float]:
        """Of every weight at every precision below what it was, beside all others as in `base`."""
        found: dict[Key, float] = {}
        precisions = sorted({precision for unit in self._units for precision in unit.forms} - {KEPT})
        for number, precision in enumerate(precisions):
            able = [unit for unit in self._units if precision in unit.forms]
            measure = self._measure(kind, base, precision)
            left = max(self._end - time.monotonic(), 0.0) / (len(precisions) - number)
            found |= self._column(able, precision, measure, left)
        return found

    def _measure(self, kind: str, base: Mixture, precision: Precision) -> Callable[[Sequence[Unit]], float]:
        def measure(group: Sequence[Unit]) -> float:
            names = [unit.name for unit in group]
            where = (
                f"{kind} {names[0]}" if len(names) == 1 else f"{kind} {precision} {names[0]} +{len(names)}"
            )
            with_it = self.harm(f"{where} {precision}", {**base, **dict.fromkeys(names, precision)})
            if not base:
                return with_it
            without = self.harm(f"{where} {KEPT}", {**base, **dict.fromkeys(names, KEPT)})
            return max(with_it - without, 0.0)

        return measure

    def _column(
        self,
        units: Sequence[Unit],
        precision: Precision,
        measure: Callable[[Sequence[Unit]], float],
        seconds: float,
    ) -> dict[Key, float]:
        """One by one if the first tell that time allows; else by groups."""
        end = time.monotonic() + seconds
        found: dict[Key, float] = {}
        start = time.monotonic()
        for count, unit in enumerate(units):
            found[unit.name, precision] = measure([unit])
            each = (time.monotonic() - start) / (count + 1)
            if start + each * len(units) > end and count >= 1:
                rest = units[count + 1 :]
                return found | self._by_groups(rest, precision, measure, end) if rest else found
        return found

    def _by_groups(
        self,
        units: Sequence[Unit],
        precision: Precision,
        measure: Callable[[Sequence[Unit]], float],
        end: float,
    ) -> dict[Key, float]:
        self.grouped = True
        groups = [(measure(units), tuple(units))]
        done: list[tuple[float, tuple[Unit, ...]]] = []
        while groups and time.monotonic() < end:
            harm, members = groups.pop(max(range(len(groups)), key=lambda place: groups[place][0]))
            if len(members) == 1:
                done.append((harm, members))
                continue
            left, right = members[: len(members) // 2], members[len(members) // 2 :]
            taken = measure(left)
            rest = max(harm - taken, 0.0) if harm < _LITTLE else measure(right)
            groups += [(taken, left), (rest, right)]
        return {
            (unit.name, precision): harm * share
            for harm, members in (*done, *groups)
            for unit, share in zip(members, _shares(members, precision), strict=True)
        }


def _shares(members: Sequence[Unit], precision: Precision) -> list[float]:
    """A group's harm, shared out by the noise of the weights themselves."""
    noises = [10 ** (-max(min(unit.forms[precision].sqnr_db, 200.0), -200.0) / 10) for unit in members]
    total = sum(noises)
    return [noise / total if total else 1 / len(members) for noise in noises]

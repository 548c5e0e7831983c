"""From sensitivity to a mixture that holds its budgets: the knapsack proposes, measurements decide.

Noise of single weights adds up only about, so that each budget is tried on samples: first along the knapsack's front,
then, on samples kept aside, by giving more bits to the weights with most harm for their cost until it holds.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from compression.errors import NotApplicable
from compression.knapsack import Front, Option, undominated
from compression.quantization.mixed.judging import Judge, Verdict
from compression.quantization.mixed.sensitivity import Key, Table
from compression.quantization.mixed.settings import MixedOptions, Mixture, Precision
from compression.quantization.mixed.trial import Trial
from compression.quantization.mixed.units import Unit

_NEAR = 1e-3
"""Of the whole range of costs: nearer than that, two points of the front are one."""
_TINY_NOISE = 1e-12
"""Told apart from none, so that of two equal precisions the larger is not taken for nothing."""
Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Items, options and what they cost and harm."""

    units: tuple[Unit, ...]
    costs: Mapping[Key, float]
    table: Table
    front: Front

    @classmethod
    def of(cls, units: Sequence[Unit], costs: Mapping[Key, float], table: Table) -> "Problem":
        options = [
            [
                Option(cost=costs[unit.name, precision], noise=table.harm(unit, precision))
                for precision in unit.forms
            ]
            for unit in units
        ]
        return cls(units=tuple(units), costs=costs, table=table, front=undominated(options))

    def mixture(self, point: int) -> dict[str, Precision]:
        taken = self.front.choices(point)
        return {unit.name: tuple(unit.forms)[place] for unit, place in zip(self.units, taken, strict=True)}

    def cost(self, mixture: Mixture) -> float:
        return sum(self.costs[unit.name, mixture[unit.name]] for unit in self.units)

    def harm(self, mixture: Mixture) -> float:
        """As the additive model tells."""
        return sum(self.table.harm(unit, mixture[unit.name]) for unit in self.units)

    def wider(self, mixture: Mixture) -> list[tuple[float, str, Precision]]:
        """Every step to more bits, the best bargain first: harm taken away for each unit of cost."""
        found = []
        for unit in self.units:
            now = mixture[unit.name]
            for precision in tuple(unit.forms)[tuple(unit.forms).index(now) + 1 :]:
                gain = self.table.harm(unit, now) - self.table.harm(unit, precision) + _TINY_NOISE
                more = self.costs[unit.name, precision] - self.costs[unit.name, now]
                if gain > 0:
                    found.append((gain / more if more > 0 else float("inf"), unit.name, precision))
        return sorted(found, key=lambda step: (-step[0], step[1]))

    def narrower(self, mixture: Mixture) -> list[tuple[float, str, Precision]]:
        """Every step to less cost, the best bargain first: cost saved for each unit of harm."""
        found = []
        for unit in self.units:
            now = mixture[unit.name]
            for precision in unit.forms:
                saved = self.costs[unit.name, now] - self.costs[unit.name, precision]
                more = self.table.harm(unit, precision) - self.table.harm(unit, now) + _TINY_NOISE
                if saved > 0:
                    found.append((saved / max(more, _TINY_NOISE), unit.name, precision))
        return sorted(found, key=lambda step: (-step[0], step[1]))


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where a mixture is tried."""

    trial: Trial
    judge: Judge
    report: Report

    def verdict(self, mixture: Mixture) -> Verdict:
        return self.judge.verdict(self.trial.answers(self.judge.ground.batches, mixture))


def cheapest(problem: Problem, bench: Bench, options: MixedOptions) -> Mixture:
    """The cheapest point of the front that holds the budgets on the samples of this bench; by bisection.

    Where none does, since what was measured tells too little, the last one with more bits.

    Raises:
        NotApplicable: not even the widest choices hold them.
    """
    front = problem.front
    low, high = -1, len(front) - 1
    if not bench.verdict(problem.mixture(high)).holds:
        return repaired(problem, problem.mixture(high), bench, options)[0]
    span = float(front.cost[-1] - front.cost[0])
    middle = _predicted(front, options, high)
    while high - low > 1 and (low < 0 or front.cost[high] - front.cost[low] > _NEAR * span):
        bench.report(f"trying a mixture of {front.cost[middle]:.4g} against the budgets")
        if bench.verdict(problem.mixture(middle)).holds:
            high = middle
        else:
            low = middle
        middle = (low + high) // 2
    return problem.mixture(high)


def _predicted(front: Front, options: MixedOptions, high: int) -> int:
    """Where to try first: what sums of noise tell, or else the middle."""
    if options.floor_db is not None and options.max_metric_drop is None:
        point = front.cheapest(10 ** (-options.floor_db / 10))
        return min(high if point is None else point, high - 1) if high else 0
    return high // 2


def truest(problem: Problem, most: float) -> Mixture | None:
    """The least noise, as it adds up, within a cost; None where nothing fits."""
    point = problem.front.truest(most)
    return None if point is None else problem.mixture(point)


def repaired(
    problem: Problem, mixture: Mixture, bench: Bench, options: MixedOptions
) -> tuple[dict[str, Precision], int]:
    """Give more bits to the best bargains, no more of them than it takes for the budgets to hold here.

    Returns the mixture and how many steps it took.

    Raises:
        NotApplicable: not even the widest choices hold them.
    """
    ladder = [dict(mixture)]
    verdict = bench.verdict(mixture)
    if verdict.holds:
        return ladder[0], 0
    fails, reach = 0, 1
    while not verdict.holds:
        while len(ladder) <= reach and (able := problem.wider(ladder[-1])):
            ladder.append({**ladder[-1], able[0][1]: able[0][2]})
        if fails == len(ladder) - 1:
            raise refusal(verdict, options)
        fails, reach = min(reach, len(ladder) - 1), 2 * reach
        bench.report(f"repairing: {fails} weights get more bits")
        verdict = bench.verdict(ladder[fails])
    enough, fails = fails, fails // 2
    while enough - fails > 1:
        middle = (fails + enough) // 2
        if bench.verdict(ladder[middle]).holds:
            enough = middle
        else:
            fails = middle
    return ladder[enough], enough


def tightened(problem: Problem, mixture: Mixture, benches: Sequence[Bench], *, seconds: float) -> Mixture:
    """Take bits away again where all benches still hold: harm adds up only about, and often comes to less.

    The step that saves most for its harm goes first; each is tried once.
    """
    now, refused = dict(mixture), set[Key]()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        step = next((step for step in problem.narrower(now) if step[1:] not in refused), None)
        if step is None:
            break
        _, name, precision = step
        benches[0].report(f"trying whether {name} bears {precision}")
        if all(bench.verdict({**now, name: precision}).holds for bench in benches):
            now[name] = precision
        else:
            refused.add((name, precision))
    return now


def widened(problem: Problem, mixture: Mixture) -> Mixture | None:
    """One step to more bits; None where there is none."""
    able = problem.wider(mixture)
    return {**mixture, able[0][1]: able[0][2]} if able else None


def refusal(verdict: Verdict, options: MixedOptions) -> NotApplicable:
    """Why no mixture of the choices meets the budgets."""
    drop, most = verdict.metric_drop, options.max_metric_drop
    if drop is not None and most is not None and drop > most:
        return NotApplicable(
            f"the widest of the choices loses {drop:.4g} of the metric; the budget allows {most:g}",
            where="max_metric_drop",
            hint="allow more, add float16 or float32 to the choices, or select fewer layers",
        )
    floor = options.floor_db or 0.0
    return NotApplicable(
        f"output {verdict.output!r} reaches {verdict.sqnr_db:.1f} dB with the widest of the choices; "
        f"the budget asks for {floor:g}",
        where="min_sqnr_db",
        hint="ask for less, add float16 or float32 to the choices, or select fewer layers",
    )

"""Finds the mixture and builds it: what is proposed on some samples has to hold on others, in the file itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from compression import runtime
from compression.errors import NotApplicable
from compression.evaluation.inputs import Batch
from compression.evaluation.outputs import Outputs, samples_only
from compression.graph import save
from compression.method import StepContext
from compression.quantization.check import OutputCheck
from compression.quantization.mixed.grounds import Ground, Grounds
from compression.quantization.mixed.judging import Judge, Verdict, refuse_unmeasurable
from compression.quantization.mixed.searching import (
    Bench,
    Problem,
    cheapest,
    refusal,
    repaired,
    tightened,
    truest,
    widened,
)
from compression.quantization.mixed.sensitivity import FEWEST, Key, Table, affordable, measure_sensitivity
from compression.quantization.mixed.settings import MixedOptions, Mixture
from compression.quantization.mixed.storing import build, packed_items, with_floats_and_bytes
from compression.quantization.mixed.trial import Trial
from compression.quantization.mixed.units import Unit
from compression.quantization.narrow.deciding import decide
from compression.quantization.narrow.kernels import ACCURACY
from compression.quantization.narrow.placing import choose_forms
from compression.quantization.probe import take_probe

_ATTEMPTS = 6
"""At a file that is small enough, and no smaller than it has to be, once it is written."""
_TIGHTENING = 0.25
"""Of `max_seconds`, for taking bits away again."""
_VERDICTS = 40
"""Mixtures that are tried against the budgets, about."""
_FEWEST_LABELLED = 256


@dataclass(frozen=True, kw_only=True)
class Built:
    """A model as it will be written."""

    model: ir.Model
    accuracy: int | None = None
    """The level at which MatMulNBits computes on the codes; None where all folds into floats at load."""
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Found:
    """The mixture, built, and how it came about."""

    mixture: Mixture
    built: Built
    verdict: Verdict
    """On the samples kept aside, of the built model."""
    problem: Problem
    metric: str | None
    lifted: bool
    repairs: int
    samples: tuple[int, int]
    """Measured on, and kept aside."""


class Search:
    def __init__(
        self, model: ir.Model, units: Sequence[Unit], options: MixedOptions, context: StepContext
    ) -> None:
        self._model, self._units, self._options, self._context = model, tuple(units), options, context

    def find(self, grounds: Grounds) -> Found:
        """The cheapest mixture that holds the budgets.

        Raises:
            NotApplicable: there is none.
        """
        self._context.report(0.2, "running the original")
        trial = Trial(self._model, self._units, self._context)
        grounds = self._cut(trial, grounds)
        measuring, aside = self._bench(trial, grounds.measuring), self._bench(trial, grounds.held_out)
        refuse_unmeasurable(measuring.verdict({}))
        table = self._table(trial, measuring.judge)
        problem = Problem.of(self._units, self._costs(), table)
        if self._options.max_size_bytes is not None:
            mixture, built = self._within(problem, self._options.max_size_bytes)
            repairs = 0
        else:
            proposed = cheapest(problem, measuring, self._options)
            mixture, repairs = repaired(problem, proposed, aside, self._options)
            seconds = self._options.max_seconds * _TIGHTENING
            mixture = tightened(problem, mixture, (aside, measuring), seconds=seconds)
            mixture, built = self._holding(problem, mixture, grounds.held_out)
        verdict = self._verdict(built.model, grounds.held_out)
        if not verdict.holds:
            raise refusal(verdict, self._options)
        return Found(
            mixture=mixture,
            built=built,
            verdict=verdict,
            problem=problem,
            metric=measuring.judge.metric,
            lifted=trial.is_lifted,
            repairs=repairs,
            samples=(grounds.measuring.samples, grounds.held_out.samples),
        )

    def _cut(self, trial: Trial, grounds: Grounds) -> Grounds:
        """No more samples than the verdicts of the search can have in its time, but enough to tell."""
        fewest = FEWEST if self._options.max_metric_drop is None else _FEWEST_LABELLED
        seconds = self._options.max_seconds / 4
        able = affordable(trial, grounds.measuring, self._units, trials=_VERDICTS, seconds=seconds)
        count = max(able, fewest)
        return replace(
            grounds, measuring=grounds.measuring.first(count), held_out=grounds.held_out.first(count)
        )

    def _bench(self, trial: Trial, ground: Ground) -> Bench:
        expected = trial.answers(ground.batches, {})
        judge = Judge(ground, expected, self._options)
        return Bench(trial=trial, judge=judge, report=lambda words: self._context.report(0.65, words))

    def _table(self, trial: Trial, judge: Judge) -> Table:
        options = self._options
        return measure_sensitivity(
            trial,
            judge,
            self._units,
            options.sensitivity,
            self._context,
            samples=options.samples,
            seconds=options.max_seconds,
        )

    def _costs(self) -> dict[Key, float]:
        return {
            (unit.name, precision): float(form.size_bytes)
            for unit in self._units
            for precision, form in unit.forms.items()
        }

    def _holding(self, problem: Problem, mixture: Mixture, ground: Ground) -> tuple[Mixture, Built]:
        """The mixture built; where kernels, which round their inputs, cost what was left, they go, then come more bits.

        Raises:
            NotApplicable: not even the widest choices hold the budgets in the end.
        """
        built = self._built(mixture)
        verdict = self._verdict(built.model, ground)
        if not verdict.holds and built.accuracy is not None:
            note = "kernels that compute on four bits round their inputs too, which the budgets do not allow here"
            built = Built(model=build(self._model, self._units, mixture), notes=(note,))
            verdict = self._verdict(built.model, ground)
        while not verdict.holds:
            wider = widened(problem, mixture)
            if wider is None:
                raise refusal(verdict, self._options)
            mixture = wider
            built = Built(model=build(self._model, self._units, mixture), notes=built.notes)
            verdict = self._verdict(built.model, ground)
        return mixture, built

    def _within(self, problem: Problem, most: int) -> tuple[Mixture, Built]:
        """The truest mixture whose file is small enough; what nodes cost is an estimate until it is written.

        Raises:
            NotApplicable: the smallest is not.
        """
        best: Mixture = problem.mixture(0)
        built = self._built(best)
        least = self._file_bytes(built.model)
        if least > most:
            raise NotApplicable(
                f"the smallest file that these choices make takes {least} bytes; the budget allows {most}",
                where="max_size_bytes",
                hint="allow more, add int4 to the choices, or select more layers",
            )
        allowed, tried = problem.cost(best) + most - least, [dict(best)]
        for _ in range(_ATTEMPTS):
            mixture = truest(problem, allowed)
            if mixture is None or mixture in tried:
                break
            tried.append(dict(mixture))
            made = replace(built, model=build(self._model, self._units, mixture, accuracy=built.accuracy))
            spare = most - self._file_bytes(made.model)
            if spare >= 0 and problem.harm(mixture) < problem.harm(best):
                best, built = mixture, made
            allowed = problem.cost(mixture) + spare if spare < 0 else allowed + spare
        return best, built

    def _built(self, mixture: Mixture) -> Built:
        """In kernels where these pay, as quantize_weights decides it."""
        context = self._context
        items = packed_items(self._units, mixture)
        model = with_floats_and_bytes(self._model, self._units, mixture)
        if not items:
            return Built(model=model)
        context.report(0.8, "comparing forms of storage")
        asked = self._options.narrowing(1)
        choose_forms(items, asked.storage, opset=model.opset_imports.get("", 0))
        check = OutputCheck(context=context, min_sqnr_db=0.0, probe=take_probe(model, context))
        made = decide(model, items, asked, check)
        accuracy = None
        if not made.folded_only and any(item.form != "folded" for item in items):
            accuracy = made.details.get("accuracy_level", ACCURACY)
        return Built(model=made.model, accuracy=accuracy, notes=made.notes, details=made.details)

    def _verdict(self, model: ir.Model, ground: Ground) -> Verdict:
        """Of a built model, beside the original as the runtime opens it."""
        self._context.report(0.9, "comparing the outputs with the original's on samples kept aside")
        judge = Judge(ground, self._answers(self._model, ground.batches), self._options)
        return judge.verdict(self._answers(model, ground.batches))

    def _answers(self, model: ir.Model, batches: Sequence[Batch]) -> list[Outputs]:
        context = self._context
        session = runtime.open_session(model, device=context.device, threads=context.threads)
        runs = ((runtime.run(session, batch.feeds), batch) for batch in batches)
        return [
            {name: samples_only(output, batch) for name, output in outputs.items()} for outputs, batch in runs
        ]

    def _file_bytes(self, model: ir.Model) -> int:
        folder = Path(self._context.workdir) / "size"
        folder.mkdir(exist_ok=True)
        files = save(model, folder / "model.onnx")
        size = sum(file.stat().st_size for file in files)
        for file in files:
            file.unlink()
        return size

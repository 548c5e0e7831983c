"""One pass over calibration data that learns of chosen tensors what ranges are made from, in memory that does
not grow with it."""

import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from compression import runtime
from compression.graph import infer_shapes
from compression.method import StepContext
from compression.quantization.affine import Range
from compression.quantization.probe import Feeds, Outputs
from compression.quantization.ranges.collecting import Collected
from compression.quantization.ranges.derived import derive
from compression.quantization.ranges.rules import Candidate, Rule, grid_search, learn
from compression.quantization.ranges.statistics import Statistics
from compression.quantization.ranges.watching import Watcher

DRAWN = 1 << 17
"""Values drawn from each tensor over all inferences, about."""
FEWEST, MOST = 2048, 8192
"""Values drawn from a tensor in one inference; smaller tensors are taken whole."""
_AT_ONCE = 4


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was learned, by tensor name, and the tensors that gave nothing with the reason."""

    statistics: dict[str, Statistics]
    refused: dict[str, str]
    batches: int
    drawn: int = 0
    """The most values taken from a tensor in one inference; 0 where only extremes were."""

    def ranges(self, rule: Rule) -> dict[str, Range]:
        """Ranges by tensor name. Any number of rules can be asked for: nothing is run again."""
        known: dict[int, Range] = {}
        for seen in self.statistics.values():
            if id(seen) not in known:
                known[id(seen)] = learn(seen, rule)
        return {name: known[id(seen)] for name, seen in self.statistics.items()}

    def grid_search(self, rule: Rule) -> dict[str, Candidate]:
        """What a grid search over the folds takes for each tensor."""
        return {name: grid_search(seen, rule) for name, seen in self.statistics.items()}

    def extremes(self) -> dict[str, Range]:
        """The exact minimum and maximum by tensor name."""
        seen = {name: item.distribution() for name, item in self.statistics.items()}
        return {
            name: Range(low=0.0, high=0.0) if item.empty else Range(low=item.low, high=item.high)
            for name, item in seen.items()
        }


def calibrate(
    model: ir.Model,
    tensors: Sequence[ir.Value],
    feeds: Iterable[Feeds],
    context: StepContext,
    *,
    expected: int,
    drawing: bool = True,
    fewest: int = FEWEST,
    folds: int = 1,
) -> Calibration:
    """Run the model once over the feeds; it reduces the tensors itself, so that little leaves the runtime.

    Extremes are exact. Of large tensors a share of the values is drawn at random, anew in every inference (see
    `ranges.watching`); how near that comes, `sampling_error` tells. A CPU with several threads runs as many
    samples side by side, at most four.

    Args:
        model: stays as it is.
        tensors: floats of the graph, its inputs included, or of bodies of If.
        feeds: inputs, one sample each for statistics of single samples.
        context: the device, the threads, the seed and where to report.
        expected: how many feeds there will be.
        drawing: False for extremes alone, which any opset allows.
        fewest: values to draw from each tensor in an inference, at least.
        folds: how many folds to deal samples out to, in turn.

    Raises:
        DataMismatch: the model fails on a feed.
    """
    copy = _reinferred(model.clone())
    watcher = Watcher(copy, drawing=drawing)
    derived = derive(watcher.named(value.name or "" for value in tensors))
    watched = watcher.watch(value.name or "" for value in tensors if value.name not in derived)
    if not watched:
        return Calibration(statistics={}, refused={}, batches=0)
    drawn = max(min(DRAWN // max(expected, 1), MOST), fewest) if drawing else 0
    collected = Collected(watched, derived, folds)
    fed = _with_positions(feeds, watcher.positions, drawn, context.seed)
    batches = 0
    for outputs in _run(copy, fed, context):
        collected.take(outputs, batches % folds)
        batches += 1
        context.report(batches / max(expected, batches), f"calibrating on batch {batches}")
    statistics = collected.finished()
    return Calibration(statistics=statistics, refused=collected.refused, batches=batches, drawn=drawn)


def sampling_error(draws: int, *, thresholds: int = 1, failure: float = 1e-3) -> float:
    """How far drawn shares of values may be off at some fixed thresholds, but for a chance of `failure`.

    sqrt(ln(2 thresholds / failure) / (2 draws)): Hoeffding 1963, theorem 1, which asks that draws are
    independent, not that they are alike, and a union bound over the thresholds. `draws` is over all samples,
    which are of equal size; a quantile is off by no more than that in the share it cuts off.
    """
    return math.sqrt(math.log(2 * thresholds / failure) / (2 * draws))


def _reinferred(model: ir.Model) -> ir.Model:
    """Shapes as they follow from the inputs: what a file declares of the values in between may be wrong, and
    tensors of one shape share the places they are drawn from."""
    for graph in model.graphs():
        for node in graph:
            for value in node.outputs:
                value.shape = None
    return infer_shapes(model)


def _with_positions(feeds: Iterable[Feeds], name: str | None, drawn: int, seed: int) -> Iterator[Feeds]:
    random = np.random.default_rng(seed)
    for feed in feeds:
        yield feed if name is None else {**feed, name: random.random(drawn)}


def _run(model: ir.Model, feeds: Iterator[Feeds], context: StepContext) -> Iterator[Outputs]:
    """Outputs in the order of the feeds, a few inferences at once.

    Reductions of whole tensors use one thread each, so that samples side by side keep more cores busy than
    threads inside one.
    """
    at_once = min(context.threads, _AT_ONCE) if context.device == "cpu" else 1
    threads = context.threads // at_once
    session = runtime.open_session(model, device=context.device, threads=threads, in_order=True)
    with ThreadPoolExecutor(at_once) as pool:
        waiting: deque[Future[Mapping[str, object]]] = deque()
        for feed in itertools.islice(feeds, at_once):
            waiting.append(pool.submit(runtime.run, session, feed))
        while waiting:
            outputs = waiting.popleft().result()
            for feed in itertools.islice(feeds, 1):
                waiting.append(pool.submit(runtime.run, session, feed))
            yield dict(outputs)  # type: ignore[arg-type]

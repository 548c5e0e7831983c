"""factorize.md from what is finished: what was expected and found, and a table for each network and target."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import torch

from benchmarks.factorize_ways import BEST, FINETUNE, IMAGES, NAIVE, TARGETS, Case
from benchmarks.methods_run import MNIST, Finished

TRAINING_IMAGES = 60_000


def page(cases: Sequence[Case], finished: Mapping[str, Finished]) -> str:
    lines = [*_head(finished), *_expectations(cases, finished)]
    for (network, target), group in groupby(cases, lambda case: (case.network, case.target)):
        lines += _table(network, target, [case for case in group if case.key in finished], finished)
    return "\n".join([*lines, *_legend()]) + "\n"


def _head(finished: Mapping[str, Finished]) -> Iterator[str]:
    yield "# Low rank at equal multiply-accumulates\n"
    yield "Written by `python -m benchmarks.factorize --mnist FOLDER`, and once more with `--time`, with"
    yield f"torch {torch.__version__.partition('+')[0]}, Python {platform.python_version()}"
    device = next((row.measurements.device for row in finished.values()), "")
    yield f"on {device}.\n"
    yield "Networks are trained on all 60,000 training images by benchmarks/networks.py; accuracy is that on all 10,000"
    yield "test images. Every way runs as a job. The naive one gets the least ratio (in benchmarks/factorize_ways.py's"
    yield "steps) that leaves the network *at least* the target's multiply-accumulates. That is the limit of all other"
    yield "ways, which get the largest number that leaves *at most* as many. 512 training images are the data that"
    yield "factors are fitted to.\n"


def _expectations(cases: Sequence[Case], finished: Mapping[str, Finished]) -> Iterator[str]:
    yield "| | naive SVD | budget, with data | naive, finetuned | budget, with data, finetuned | MACs: naive, budget |"
    yield "|---|---|---|---|---|---|"
    keys = {(case.network, case.target, case.way.name, case.trained): case.key for case in cases}
    for network, targets in TARGETS.items():
        for target in targets:
            rows = [
                finished.get(keys[network, target, name, trained])
                for trained in (False, True)
                for name in (NAIVE, BEST)
            ]
            if any(rows):
                told = ["not measured" if row is None else f"{row.accuracy:.2%}" for row in rows]
                macs = ", ".join("not measured" if row is None else _macs(row) for row in rows[:2])
                yield f"| {network} at {target:.0%} | {' | '.join(told)} | {macs} |"
    yield ""


def _table(
    network: str, target: float, cases: Sequence[Case], finished: Mapping[str, Finished]
) -> Iterator[str]:
    if not cases:
        return
    images = "MNIST" if network in MNIST else "Fashion-MNIST"
    original = finished[cases[0].key].measurements.original
    yield f"## {network} at {target:.0%}, {images}\n"
    yield (
        f"As trained: {original.metrics['accuracy'].value:.2%}, {original.macs or 0:,} MACs, "
        f"{original.size_bytes / 1000:,.0f} kB.\n"
    )
    yield "| way | set to | MACs | accuracy | change | finetuned | change | size | speedup |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for case in cases:
        if not case.trained:
            trained = finished.get(f"{case.key}, finetune")
            yield _line(case, finished[case.key], trained)
    yield ""


def _line(case: Case, row: Finished, trained: Finished | None) -> str:
    made = row.measurements.compressed
    goal = row.steps[0][case.way.knob]
    cells = (
        case.way.name,
        f"`{case.way.knob}: {goal:g}`",
        _macs(row),
        f"{row.accuracy:.2%}",
        _change(row),
        "" if trained is None else f"{trained.accuracy:.2%}",
        "" if trained is None else _change(trained),
        f"{made.size_bytes / 1000:,.0f} kB",
        _speedup(row),
    )
    return f"| {' | '.join(cells)} |"


def _macs(row: Finished) -> str:
    original, made = row.measurements.original, row.measurements.compressed
    return f"{(made.macs or 0) / (original.macs or 1):.1%}"


def _change(row: Finished) -> str:
    change = row.measurements.metric_changes["accuracy"].change
    return f"{100 * change.value:+.2f} ({100 * change.low:+.2f} to {100 * change.high:+.2f})"


def _speedup(row: Finished) -> str:
    speedup = row.measurements.speedup
    return f"{speedup.value:.2f}x ({speedup.low:.2f} to {speedup.high:.2f})" if row.timed and speedup else ""


def _legend() -> Iterator[str]:
    yield "Changes are in points of accuracy, in brackets the 95% interval of the paired change. `finetuned` has"
    share = IMAGES / TRAINING_IMAGES
    yield f"{FINETUNE['epochs']} epochs of `finetune` behind it, on {share:.0%} of the training images. It keeps what"
    yield "is best on a tenth of these, set aside, and that may be what it began with: then nothing changes."
    yield "The speedup is the median of paired runs of one image on one thread of onnxruntime with its 95% interval,"
    yield "empty until measured with `--time`. Ways with other forms than SVD differ only where kernels are larger than"
    yield "1x1. Both of a chain's layers cost a call each: what computes half need not run in half the time."

"""methods.md from finished rows: what was expected and found, and one table per network."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import torch

from benchmarks.methods_rows import EXPECTATIONS, Expectation
from benchmarks.methods_run import EPOCHS, MNIST, Finished, Row, is_current
from compression.measurements import ModelMeasurement

TRAINING_IMAGES = 60_000


def page(rows: Sequence[Row], finished: Mapping[str, Finished]) -> str:
    lines = [*_head(finished), *_expectations(finished)]
    for network, group in groupby(rows, lambda row: row.network):
        lines += _network(network, [row for row in group if row.key in finished], finished)
    return "\n".join([*lines, *_legend()]) + "\n"


def _head(finished: Mapping[str, Finished]) -> Iterator[str]:
    yield "# Pruning, sparse learning and distillation, measured\n"
    yield "Written by `python -m benchmarks.methods --mnist FOLDER`, and once more with `--time`, with"
    yield f"torch {torch.__version__.partition('+')[0]}, Python {platform.python_version()}"
    devices = dict.fromkeys(row.measurements.device for row in finished.values())
    yield f"on {' and '.join(devices)}.\n"
    yield f"Networks are trained on all {TRAINING_IMAGES:,} training images by benchmarks/networks.py; the share of"
    yield "these that the steps learn from is told with each row. Accuracy is that on all 10,000 test images. The steps"
    yield "with their parameters are in benchmarks/methods_rows.py.\n"


def _expectations(finished: Mapping[str, Finished]) -> Iterator[str]:
    yield "| expected | found | met |"
    yield "|---|---|---|"
    for expectation in EXPECTATIONS:
        found, met = _found(expectation, finished)
        yield f"| {expectation.words} | {found} | {met} |"
    yield ""
    yield "Deep networks were pruned gradually by lamp and by taylor, and what lost less is listed."
    yield "At 90% the MobileNet keeps 1,794 weights of its layers. Depthwise networks have little to spare: the full"
    yield "MobileNet loses 8.8 points on ImageNet there (Zhu and Gupta 2017, arXiv:1710.01878, table 2). The wide one"
    yield "is the same network with three times the channels, and about eight times the weights.\n"


def _found(expectation: Expectation, finished: Mapping[str, Finished]) -> tuple[str, str]:
    rows = [finished[key] for key in expectation.keys if key in finished]
    if len(rows) < len(expectation.keys) or (expectation.timed and not all(row.timed for row in rows)):
        return "not measured", ""
    found, met = expectation.found(*rows)
    return found, "yes" if met else "**no**"


def _network(network: str, rows: Sequence[Row], finished: Mapping[str, Finished]) -> Iterator[str]:
    if not rows:
        return
    yield f"## {network}, {'MNIST' if network in MNIST else 'Fashion-MNIST'}, {EPOCHS[network]} epochs\n"
    yield "| | accuracy | change | MACs | size | deflated | zeros | latency | speedup | images | steps took |"
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    first = finished[rows[0].key]
    yield _line("as trained", first.measurements.original, ("", "", "", ""), timed=first.timed)
    for row in rows:
        found = finished[row.key]
        yield _line(
            _named(row, found, first),
            found.measurements.compressed,
            (
                _change(found),
                _speedup(found),
                f"{row.images / TRAINING_IMAGES:.0%}",
                f"{found.seconds:.0f} s",
            ),
            timed=found.timed,
        )
    yield ""


def _named(row: Row, found: Finished, first: Finished) -> str:
    """With a mark where a method has changed since, and where the row began with another training of the network."""
    began, listed = (one.measurements.original.metrics["accuracy"].value for one in (found, first))
    elsewhere = "" if began == listed else f" (from {began:.2%}, trained on {found.measurements.device})"
    return f"{row.name}{'' if is_current(row, found) else ' *'}{elsewhere}"


def _line(name: str, model: ModelMeasurement, more: tuple[str, str, str, str], *, timed: bool) -> str:
    change, *others = more
    latency = f"{model.latency_ms.p50_ms:.3f} ms" if timed and model.latency_ms else ""
    cells = (
        name,
        f"{model.metrics['accuracy'].value:.2%}",
        change,
        f"{model.macs or 0:,}",
        f"{model.size_bytes / 1000:,.0f} kB",
        f"{model.zip_bytes / 1000:,.0f} kB",
        f"{model.sparsity:.1%}",
        latency,
        *others,
    )
    return f"| {' | '.join(cells)} |"


def _change(row: Finished) -> str:
    change = row.measurements.metric_changes["accuracy"].change
    return f"{100 * change.value:+.2f} ({100 * change.low:+.2f} to {100 * change.high:+.2f})"


def _speedup(row: Finished) -> str:
    speedup = row.measurements.speedup
    return f"{speedup.value:.2f}x ({speedup.low:.2f} to {speedup.high:.2f})" if row.timed and speedup else ""


def _legend() -> Iterator[str]:
    yield "Changes are in points of accuracy, in brackets the 95% interval of the paired change. Latency is that of"
    yield "one image on one thread of onnxruntime, the speedup the median of paired runs with its 95% interval, both"
    yield "as every job measures them. Zeros alone make a file smaller only where it is deflated or packed, and no"
    yield "dense kernel faster. Steps ran on one thread. Images over 100% are copies of the training set's, turned,"
    yield "scaled, slanted and moved a little at random, which the networks were not trained on. A star marks what an"
    yield "earlier version of a method made, or an earlier recipe."

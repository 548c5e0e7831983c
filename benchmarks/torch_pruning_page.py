"""torch_pruning.md from finished rows: the trained networks side by side, and which architectures were cut."""

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from statistics import fmean

import torch

from benchmarks.methods_rows import FEW
from benchmarks.torch_pruning_rows import ROWS, Compared, Reach, Side, Trained
from benchmarks.torch_pruning_trained import FINETUNE, SEEDS
from compression.graph.channels import TOLERANCE

NAMES = {"ours": "prune_channels", "theirs": "Torch-Pruning"}


def page(finished: Mapping[str, Compared]) -> str:
    return "\n".join([*_head(), *_trained(finished), *_reach(finished), *_legend()]) + "\n"


def _head() -> Iterator[str]:
    yield "# Beside Torch-Pruning, measured\n"
    yield "Written by `python -m benchmarks.torch_pruning --peers FOLDER`, and once more with `--time`, with"
    yield f"torch-pruning {version('torch-pruning')}, transformers {version('transformers')},"
    yield f"torch {torch.__version__.partition('+')[0]}, Python {platform.python_version()}.\n"


def _trained(finished: Mapping[str, Compared]) -> Iterator[str]:
    rows = [(row, finished[key]) for key, row in ROWS.items() if isinstance(row, Trained) and key in finished]
    if not rows:
        return
    yield "## Half of the channels, the same finetuning\n"
    yield f"Trained on Fashion-MNIST, cut with the same criterion, then {FINETUNE['epochs']} epochs of `finetune` on"
    yield f"the same {FEW:,} images for both, with {len(SEEDS)} seeds. Accuracy is that on all 10,000 test images,"
    yield "the mean over the seeds, and so is its change from the trained network.\n"
    yield "| network | criterion | cut by | accuracy | change | with each seed | MACs | speedup in onnxruntime |"
    yield "|---|---|---|---|---|---|---|---|"
    for row, compared in rows:
        for what, side in (("ours", compared.ours), ("theirs", compared.theirs)):
            yield _trained_line(row, NAMES[what], side, timed=compared.timed)
    yield ""


def _trained_line(row: Trained, who: str, side: Side, *, timed: bool) -> str:
    measured = side.measurements
    if measured is None:
        return f"| {row.name} | {row.criterion} | {who} | {side.reason} | | | | |"
    before, after = measured.original, measured.compressed
    accuracy = fmean(side.accuracies)
    cells = (
        row.name,
        row.criterion,
        who,
        f"{accuracy:.2%}",
        f"{100 * (accuracy - before.metrics['accuracy'].value):+.2f} points",
        ", ".join(f"{each:.2%}" for each in side.accuracies),
        f"{before.macs or 0:,} to {after.macs or 0:,}",
        _speedup(side, timed=timed),
    )
    return f"| {' | '.join(cells)} |"


def _reach(finished: Mapping[str, Compared]) -> Iterator[str]:
    yield "## Which architectures are cut by half\n"
    yield "Random weights. Half of every group of channels leaves by L1 norm, of attention whole heads, residual"
    yield "streams through normalizations among them. Ours starts from the ONNX file, Torch-Pruning from the torch"
    yield "module and is told which layers make heads; both results run in onnxruntime.\n"
    yield "| network | cut | error of the proof | MACs | size | speedup | Torch-Pruning | MACs | speedup |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for key, row in ROWS.items():
        if isinstance(row, Reach) and key in finished:
            yield _reach_line(key, finished[key])
    yield ""


def _reach_line(name: str, compared: Compared) -> str:
    ours, theirs = compared.ours, compared.theirs
    proven = ours.error is not None and ours.error <= TOLERANCE
    cells = (
        name,
        "proven" if proven else ours.reason or "**not proven**",
        "" if ours.error is None else f"{ours.error:.1e}",
        _macs(ours),
        "" if ours.measurements is None else f"{ours.measurements.size_ratio:.2f}x smaller",
        _speedup(ours, timed=compared.timed),
        theirs.reason or ("cuts nothing" if _macs_ratio(theirs) == 1 else "cut"),
        _macs(theirs),
        _speedup(theirs, timed=compared.timed),
    )
    return f"| {' | '.join(cells)} |"


def _macs_ratio(side: Side) -> float | None:
    measured = side.measurements
    if measured is None or not measured.original.macs or not measured.compressed.macs:
        return None
    return measured.original.macs / measured.compressed.macs


def _macs(side: Side) -> str:
    ratio = _macs_ratio(side)
    return "" if ratio is None else f"{ratio:.2f}x fewer"


def _speedup(side: Side, *, timed: bool) -> str:
    speedup = side.measurements.speedup if side.measurements else None
    return f"{speedup.value:.2f}x ({speedup.low:.2f} to {speedup.high:.2f})" if timed and speedup else ""


def _legend() -> Iterator[str]:
    yield "The proof compares the cut model with the original in which the same units are silent, in onnxruntime;"
    yield f"{TOLERANCE:g} relative to the largest output is allowed. Torch-Pruning offers none. Speedups are medians of"
    yield "paired runs on one thread with their 95% intervals, as every job measures them."

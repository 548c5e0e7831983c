"""Whole models in 8-bit integers, ours beside onnxruntime's quantize_static and NNCF; writes quantization_peers.md.

    python -m tests.corpus.fetch .corpus
    python -m benchmarks.quantization_peers --models .corpus --nncf FOLDER [--only 'rapid*'] [--cases 'nncf*'] [--again]

The same 16 samples to calibrate on and 64 others to judge by, for everyone. In all cases but the last, nothing is left
in floats to save accuracy: integers go wherever each tool puts them. The last is a job as users start it, and asked
for more dB than the others reached; it runs once these are there. NNCF is no dependency: it is found in the folder
that `pip install --no-deps --target FOLDER nncf tabulate pydot pyparsing openvino-telemetry` filled. What is finished
stays in quantization_peers.json.
"""

import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from benchmarks.measuring import Kept
from benchmarks.quantization_peers_page import (
    ASKED,
    JUDGED,
    LARGE,
    LEAST_DB,
    MARGIN_DB,
    OF_LARGE,
    SAMPLES,
    Judged,
    Row,
    page,
)
from compression import runtime
from compression.data import open_dataset
from compression.graph import load, save, upgrade_opset
from compression.method import Role, StepContext
from compression.methods.quantize_static import QuantizeStatic
from compression.quantization.latency import paired_speeds
from compression.quantization.probe import Feeds, Outputs, compare
from compression.quantization.qdq import MIN_OPSET
from tests.corpus.inputs import inputs, stacked

PAGE = Path(__file__).with_suffix(".md")
SECONDS = 300
"""Of processor time that any one of them may take, so that none holds up the table."""
TIMING = 4.0
"""Seconds of paired inferences."""
Make = Callable[[Path, Sequence[Feeds], Path, Path], None]


def main() -> None:
    options = _parser().parse_args()
    if options.case:
        return _print(options.case, options.model, options.least)
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
    PAGE.write_text("\n".join(page(kept.read(), CASES)) + "\n")
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
        [*command, "--model", str(model), "--least", str(row.wanted_db + MARGIN_DB)],
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


def _print(case: str, model: Path, least: float) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, most))
    learned, judged = _feeds(model, SAMPLES, 0), _feeds(model, JUDGED, 1)
    if sum(array.size for array in learned[0].values()) > LARGE:
        judged = judged[:OF_LARGE]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "quantized.onnx"
        _cases(least)[case](model, learned, made, Path(folder))
        resource.setrlimit(resource.RLIMIT_CPU, (most, most))
        expected = _answers(model, judged, optimize=True)
        found = Judged(
            here_db=_sqnr_db(expected, _answers(made, judged, optimize=True)),
            exact_db=_sqnr_db(expected, _answers(made, judged, optimize=False)),
            kernels=_kernels(made, Path(folder) / "optimized.onnx"),
            speedup=_speedup(model, made, judged),
        )
    print(found.model_dump_json())


def _answers(model: Path, judged: Sequence[Feeds], *, optimize: bool) -> list[Outputs]:
    session = runtime.open_session(model, device="cpu", threads=1, optimize=optimize)
    return [runtime.run(session, feed) for feed in judged]


def _speedup(model: Path, made: Path, judged: Sequence[Feeds]) -> float:
    original, quantized = (runtime.open_session(path, device="cpu", threads=1) for path in (model, made))
    return paired_speeds(original, [quantized], judged, seconds=TIMING)[0].speedup


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


def _cases(least: float) -> dict[str, Make]:
    """`least` dB are what the job is asked for."""
    return {
        "modelpress": _ours(),
        "modelpress: uint8 weights": _ours(weights="uint8"),
        "modelpress: output_search": _ours(weights="uint8", ranges="output_search", max_seconds=200),
        "modelpress: learned rounding": _ours(rounding="learned", max_seconds=200),
        "onnxruntime: MinMax": _onnxruntime("MinMax", "QInt8"),
        "onnxruntime: MinMax, uint8 weights": _onnxruntime("MinMax", "QUInt8"),
        "onnxruntime: Percentile, uint8 weights": _onnxruntime("Percentile", "QUInt8"),
        "onnxruntime: Entropy, uint8 weights": _onnxruntime("Entropy", "QUInt8"),
        "nncf": _nncf,
        ASKED: _ours(placement="auto", min_output_sqnr_db=least),
    }


CASES = tuple(_cases(LEAST_DB))


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
    parser.add_argument("--least", type=float, default=LEAST_DB, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()

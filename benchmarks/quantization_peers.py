"""Whole models in 8-bit integers, ours beside onnxruntime's quantize_static and NNCF; writes quantization_peers.md.

    python -m tests.corpus.fetch .corpus
    python -m benchmarks.quantization_peers --models .corpus --nncf FOLDER [--only 'rapid*'] [--again]

The same 16 samples to calibrate on and 16 others to judge by, for everyone. Nothing is left in floats to save
accuracy: integers go wherever each tool puts them. NNCF is no dependency: `pip install --target FOLDER nncf`.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from pydantic import BaseModel

from benchmarks.measuring import Kept
from compression import runtime
from compression.data import open_dataset
from compression.graph import load, save
from compression.method import Role, StepContext
from compression.methods.quantize_static import QuantizeStatic
from compression.quantization.probe import Feeds, compare
from tests.corpus.inputs import inputs, stacked

PAGE = Path(__file__).with_suffix(".md")
SAMPLES = 16
SECONDS = 300
"""Any one of them may take, so that none holds up the table."""
OVER_ONNXRUNTIME, OVER_NNCF = 3.0, 1.0
Make = Callable[[Path, Sequence[Feeds], Path, Path], None]


class Row(BaseModel):
    """SQNR of the worst output in dB by tool, or why there is none."""

    sqnr_db: dict[str, float] = {}
    failed: dict[str, str] = {}

    def best(self, tool: str) -> float | None:
        return max((db for name, db in self.sqnr_db.items() if name.startswith(tool)), default=None)


def main() -> None:
    options = _parser().parse_args()
    if options.case:
        return _print(options.case, options.model)
    models = sorted(options.models.glob("*.onnx"))
    kept = Kept(PAGE.with_suffix(".json"), Row, [path.stem for path in models])
    for path in models:
        wanted = any(fnmatchcase(path.stem, pattern) for pattern in options.only)
        if wanted and (options.again or path.stem not in kept.read()):
            row = _row(path, options.nncf)
            kept.keep(path.stem, row)
            print(f"{path.stem}: {row.sqnr_db} {row.failed}", flush=True)
    PAGE.write_text("\n".join(_page(kept.read())) + "\n")
    return None


def _row(model: Path, nncf: Path | None) -> Row:
    """Each tool in a process of its own, whatever it does."""
    row = Row()
    for name in CASES:
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            f"benchmarks.{PAGE.stem}",
            "--case",
            name,
            "--model",
            str(model),
        ]
        paths = [str(Path.cwd()), *([str(nncf)] if nncf else [])]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
                env={"PYTHONPATH": ":".join(paths), "PATH": ""},
            )
        except subprocess.TimeoutExpired:
            row.failed[name] = f"not done after {SECONDS} s"
            continue
        lines = done.stdout.strip().splitlines()
        if done.returncode == 0 and lines:
            row.sqnr_db[name] = float(lines[-1])
        else:
            row.failed[name] = (done.stderr.strip().splitlines() or ["no answer"])[-1][:120]
    return row


def _print(case: str, model: Path) -> None:
    learned, judged = _feeds(model, 0), _feeds(model, 1)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "quantized.onnx"
        CASES[case](model, learned, made, Path(folder))
        sessions = [
            runtime.open_session(load(path), device="cpu", threads=1, optimize=True) for path in (model, made)
        ]
        expected, found = ([runtime.run(session, feed) for feed in judged] for session in sessions)
    print(compare(tuple(expected), found).sqnr_db)


def _feeds(model: Path, seed: int) -> list[Feeds]:
    samples = inputs(model, SAMPLES, seed)
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


def _onnxruntime(method: str) -> Make:
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

        prepared = folder / "prepared.onnx"
        quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[method],
        )

    return make


def _nncf(model: Path, feeds: Sequence[Feeds], target: Path, _folder: Path) -> None:
    import nncf

    made = nncf.quantize(onnx.load(model), nncf.Dataset(list(feeds)), subset_size=len(feeds))
    onnx.save(made, target)


CASES: dict[str, Make] = {
    "modelpress: minmax": _ours(),
    "modelpress: percentile": _ours(ranges="percentile"),
    "onnxruntime: MinMax": _onnxruntime("MinMax"),
    "onnxruntime: Percentile": _onnxruntime("Percentile"),
    "onnxruntime: Entropy": _onnxruntime("Entropy"),
    "nncf.quantize": _nncf,
}


def _page(rows: Mapping[str, Row]) -> Iterator[str]:
    yield "# Whole models in integers, beside onnxruntime and NNCF\n"
    yield "Written by `python -m benchmarks.quantization_peers --models .corpus --nncf FOLDER`. SQNR in dB of the worst"
    yield f"output on {SAMPLES} samples that nobody calibrated on; {SAMPLES} others were calibrated on. Every tool puts"
    yield "integers wherever it can: this compares ranges, rounding and what is done for accuracy, not placement.\n"
    yield from _totals(list(rows.values()))
    yield "| model | " + " | ".join(CASES) + " |"
    yield "|---|" + "---|" * len(CASES)
    for name, row in rows.items():
        cells = (
            f"{row.sqnr_db[case]:.1f}" if case in row.sqnr_db else row.failed.get(case, "") for case in CASES
        )
        yield f"| {name} | {' | '.join(cells)} |"


def _totals(rows: Collection[Row]) -> Iterator[str]:
    for tool, least in (("onnxruntime", OVER_ONNXRUNTIME), ("nncf", OVER_NNCF)):
        pairs = [(row.best("modelpress"), row.best(tool)) for row in rows]
        gaps = [ours - theirs for ours, theirs in pairs if ours is not None and theirs is not None]
        none = sum(ours is not None and theirs is None for ours, theirs in pairs)
        if gaps:
            enough = sum(gap >= least for gap in gaps)
            yield f"- Our better one is {np.median(gaps):+.1f} dB (median) from the best of {tool}'s, and at least"
            yield f"  {least:g} dB above it on {enough} of {len(gaps)} models; {none} more {tool} cannot quantize."
    yield ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, help="folder of ONNX files")
    parser.add_argument("--nncf", type=Path, help="folder that nncf is installed in")
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="models to take")
    parser.add_argument("--again", action="store_true", help="run also rows that are finished")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()

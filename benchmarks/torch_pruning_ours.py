"""Our side of the comparison: an ONNX file goes through prune_channels, as a job does it."""

import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from compression.job import Event, Job, StepFinished
from compression.method import Role
from compression.pipeline import run
from compression.spec import CompressionSpec, Evaluation, Latency

HALF = {"method": "prune_channels", "sparsity": 0.5, "criterion": "l1", "widths": True, "round_to": 1}
BRIEFLY = Evaluation(max_samples=64, latency=Latency(runs=5))


def halve(source: Path, target: Path) -> float:
    """Cuts half of every group, residual streams among them; gives the error of the proof.

    Raises:
        CompressionError: as `compression.pipeline.run`.
    """
    (step,) = run_steps(source, target, [HALF], {})
    return float(step.outcome.details["proof"]["error"])


def run_steps(
    source: Path, target: Path, steps: list[Mapping[str, Any]], data: Mapping[Role, Path], *, seed: int = 0
) -> list[StepFinished]:
    """Runs a job and keeps its last model at `target`.

    Raises:
        CompressionError: as `compression.pipeline.run`.
    """
    folder = target.with_suffix(".job")
    shutil.rmtree(folder, ignore_errors=True)
    spec = CompressionSpec(steps=steps, evaluation=BRIEFLY, seed=seed)
    heard: list[Event] = []
    run(Job(spec=spec, model=source, data=data, folder=folder, threads=1), heard.append, nullcontext)
    shutil.copyfile(folder / "steps" / str(len(steps) - 1) / "model.onnx", target)
    shutil.rmtree(folder)
    return [event for event in heard if isinstance(event, StepFinished)]

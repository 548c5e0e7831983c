"""Runs the steps of a spec on a model, one after the other, and measures what came out."""

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compression.checkpoints import FolderCheckpoints
from compression.data import Dataset, open_dataset
from compression.errors import CompressionError
from compression.job import (
    CHECKPOINTS_FOLDER,
    STEPS_FOLDER,
    CheckpointSaved,
    Event,
    FinishedStep,
    Job,
    Note,
    OutputFile,
    Result,
    StepFinished,
    StepRecord,
    StepStarted,
)
from compression.measurements import Measurements
from compression.method import Role, StepContext, StepOutcome
from compression.outputs import write_outputs
from compression.preflight import Preflight, preflight
from compression.probe import Probe, find_probe
from compression.progress import Tracker
from compression.summary import ModelSummary

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Event", "FinishedStep", "Job", "OutputFile", "Result", "StepRecord", "run"]

MODEL, PACKED = "model.onnx", "model.packed"
WORK_FOLDER = "run"
"""Under the job folder: unpacked inputs and scratch files, removed when the run ends."""
Listener = Callable[[Event], None]


def run(job: Job, listener: Listener, timing: Callable[[], AbstractContextManager[None]]) -> Result:
    """Runs a job from its first unfinished step to its output files.

    Each step works on the file the last one wrote. Its result counts when it has the original's
    interface, opens in onnxruntime and runs once; then `StepFinished` names its files, which stay where
    they are even if a later step fails. With the same job the same bytes come out.

    Args:
        job: what to do. Its folder is created where it is missing.
        listener: hears every event, in order, in this thread.
        timing: held while inferences are timed, so that no two jobs of a machine time at once.

    Raises:
        CompressionError: the job cannot be done; `where` begins with the step.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, job.folder / WORK_FOLDER, ignore_errors=True)
        bench = _prepare(job, listener, timing)
        for dataset in bench.data.values():
            cleanup.callback(dataset.close)
        return _run(job, bench)


def _run(job: Job, bench: "_Bench") -> Result:
    seconds = [step.seconds for step in bench.forecast.steps]
    seconds.append(max(bench.forecast.seconds - sum(seconds), 1.0))
    tracker = Tracker(seconds, bench.listener, done=len(job.finished), midway=job.checkpoint is not None)
    records = [(done.outcome, done.seconds) for done in job.finished]
    for index in range(len(job.finished), len(job.spec.steps)):
        records.append(_run_step(job, index, bench, tracker))
    files = _step_files(job, len(job.spec.steps) - 1)
    measurements = _with_packed(job, _evaluate(job, bench, files[0], tracker))
    outputs = write_outputs(job, files, records, measurements)
    tracker.report(len(job.spec.steps), 1.0, "done")
    return Result(measurements=measurements, outputs=outputs)


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """What every part of a run needs: the original, the opened data, an inference to try, the forecast."""

    original: Path
    summary: ModelSummary
    models: Mapping[str, Path]
    data: Mapping[Role, Dataset]
    probe: Probe
    forecast: Preflight
    listener: Listener
    timing: Callable[[], AbstractContextManager[None]]


def _prepare(job: Job, listener: Listener, timing: Callable[[], AbstractContextManager[None]]) -> _Bench:
    original, model, summary = _open(job.model, job.folder / WORK_FOLDER / "original")
    models, summaries = _open_others(job)
    data = {
        role: open_dataset(path, _empty(job.folder / WORK_FOLDER / role.value))
        for role, path in job.data.items()
    }
    told = {role: dataset.summary for role, dataset in data.items()}
    forecast = preflight(job.spec, summary, told, summaries)
    if not forecast.ok:
        raise forecast.all_problems()[0].as_error()
    order = [data[role] for role in (Role.EVALUATION, Role.CALIBRATION, Role.TRAINING) if role in data]
    probe = find_probe(
        original, model, summary.inputs, order, device=job.device, threads=job.threads, seed=job.spec.seed
    )
    return _Bench(
        original=original,
        summary=summary,
        models=models,
        data=data,
        probe=probe,
        forecast=forecast,
        listener=listener,
        timing=timing,
    )


def _open(path: Path, workdir: Path) -> tuple[Path, "ir.Model", ModelSummary]:
    """The ONNX file itself, unpacked where it came in an archive."""
    from compression.graph import load, summarise
    from compression.graph.loading import external_files

    model = load(path, workdir=_empty(workdir))
    file = Path(model.meta.get("path", path))
    size = sum(part.stat().st_size for part in (file, *external_files(model)))
    return file, model, summarise(model, size_bytes=size)


def _open_others(job: Job) -> tuple[dict[str, Path], dict[str, ModelSummary]]:
    """Of the other models, only the files and the summaries are kept."""
    files: dict[str, Path] = {}
    summaries: dict[str, ModelSummary] = {}
    for id, path in job.models.items():
        try:
            files[id], _, summaries[id] = _open(path, job.folder / WORK_FOLDER / "models" / id)
        except CompressionError as error:
            error.where = id if error.where is None else f"{id}: {error.where}"
            raise
    return files, summaries


def _run_step(job: Job, index: int, bench: _Bench, tracker: Tracker) -> tuple[StepRecord, float]:
    step = job.spec.steps[index]
    name = f"steps.{index} ({step.method})"
    bench.listener(StepStarted(index=index, method=step.method))
    tracker.report(index, 0.0, f"starting {step.method}")
    began = time.monotonic()
    scratch = _empty(job.folder / WORK_FOLDER / "step")
    try:
        outcome = _apply(job, index, bench, scratch, tracker)
        files = _save(job, index, outcome, bench)
        bench.probe.check(files[0], name)
        further = _keep(job, index, outcome.files)
    except CompressionError as error:
        raise _located(error, name) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    record = StepRecord(
        layers=outcome.layers,
        notes=outcome.notes,
        details=dict(outcome.details),
        size_bytes=sum(file.stat().st_size for file in files),
        files=tuple(file.name for file in further),
    )
    seconds = time.monotonic() - began
    tracker.report(index, 1.0, f"finished {step.method}")
    shutil.rmtree(job.folder / CHECKPOINTS_FOLDER / str(index), ignore_errors=True)
    relative = tuple(str(file.relative_to(job.folder)) for file in (*files, *further))
    bench.listener(StepFinished(index=index, seconds=seconds, outcome=record, files=relative))
    for note in record.notes:
        bench.listener(Note(message=note))
    return record, seconds


def _apply(job: Job, index: int, bench: _Bench, scratch: Path, tracker: Tracker) -> StepOutcome:
    from compression.graph import left_alone, load

    step = job.spec.steps[index]
    source = bench.original if index == 0 else _step_files(job, index - 1)[0]
    model = load(source, workdir=_empty(scratch / "source"))
    roles = step.needs | step.uses
    context = StepContext(
        workdir=_empty(scratch / "work"),
        data={role: dataset for role, dataset in bench.data.items() if role in roles},
        device=job.device,
        threads=job.threads,
        seed=job.spec.seed,
        report=lambda fraction, message: tracker.report(index, 0.9 * fraction, message),
        models={id: bench.models[id] for id in step.other_models()},
        original=bench.original,
        timing=bench.timing,
        checkpoints=_checkpoints(job, index, bench.listener),
    )
    idle = left_alone(model, step)
    if idle:
        return StepOutcome(model=model, layers=(), notes=(idle,), unchanged=True)
    return step.apply(model, context)


def _checkpoints(job: Job, index: int, listener: Listener) -> FolderCheckpoints:
    """Of one step. What an earlier attempt saved is the first unfinished step's."""

    def announce(path: Path) -> None:
        listener(CheckpointSaved(index=index, file=str(path.relative_to(job.folder))))

    return FolderCheckpoints(
        job.folder / CHECKPOINTS_FOLDER / str(index),
        announce,
        saved=job.checkpoint if index == len(job.finished) else None,
        every_s=job.checkpoint_every_s,
    )


def _save(job: Job, index: int, outcome: StepOutcome, bench: _Bench) -> tuple[Path, ...]:
    from compression.graph import check_same_interface, external_files, interface, save

    check_same_interface((bench.summary.inputs, bench.summary.outputs), interface(outcome.model))
    target = _empty(job.folder / STEPS_FOLDER / str(index)) / MODEL
    if outcome.unchanged and not external_files(outcome.model):
        return (Path(shutil.copyfile(outcome.model.meta["path"], target)),)
    return save(outcome.model, target)


def _keep(job: Job, index: int, files: Mapping[str, Path]) -> tuple[Path, ...]:
    """Moves a step's further results beside its model, out of its scratch folder."""
    folder = job.folder / STEPS_FOLDER / str(index)
    return tuple(Path(shutil.move(path, folder / name)) for name, path in files.items())


def _evaluate(
    job: Job,
    bench: _Bench,
    compressed: Path,
    tracker: Tracker,
) -> Measurements:
    from compression.evaluation.evaluate import evaluate

    workdir = _empty(job.folder / WORK_FOLDER / "evaluation")
    last = len(job.spec.steps)
    try:
        return evaluate(
            bench.original,
            compressed,
            evaluation=job.spec.evaluation,
            data=bench.data.get(Role.EVALUATION),
            calibration=bench.data.get(Role.CALIBRATION),
            training=bench.data.get(Role.TRAINING),
            device=job.device,
            seed=job.spec.seed,
            workdir=workdir,
            timing=bench.timing,
            report=lambda fraction, message: tracker.report(last, 0.95 * fraction, message),
        )
    finally:
        shutil.rmtree(workdir, ignore_errors=True)


def _with_packed(job: Job, measurements: Measurements) -> Measurements:
    """The size of the packed file too, where the last step made one: an earlier step's may be of another model."""
    packed = job.folder / STEPS_FOLDER / str(len(job.spec.steps) - 1) / PACKED
    if not packed.exists():
        return measurements
    compressed = measurements.compressed.model_copy(update={"packed_bytes": packed.stat().st_size})
    return measurements.model_copy(update={"compressed": compressed})


def _located(error: CompressionError, step: str) -> CompressionError:
    """The same error, its place beginning with the step."""
    if error.where is None or not error.where.startswith("steps."):
        error.where = step if error.where is None else f"{step}: {error.where}"
    return error


def _step_files(job: Job, index: int) -> tuple[Path, ...]:
    """The model a step left, the graph first."""
    folder = job.folder / STEPS_FOLDER / str(index)
    return tuple(file for file in (folder / MODEL, folder / f"{MODEL}.data") if file.exists())


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder

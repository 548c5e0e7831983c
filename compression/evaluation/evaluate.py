"""Original and compressed model, measured side by side in one run."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from compression.evaluation.inputs import choose_source
from compression.evaluation.memory import peak_memory_bytes
from compression.evaluation.outputs import Compared, compare_outputs
from compression.evaluation.statics import Statics, measure_statics
from compression.measurements import Interval, Latency, Measurements, ModelMeasurement
from compression.method import Device
from compression.verdict import verdict

if TYPE_CHECKING:
    from compression.data import Dataset
    from compression.evaluation.timing import Timed
    from compression.spec import Evaluation

FAITHFUL_DB = 25.0
"""Outputs less true than this are told of together with the layers that changed most."""


def evaluate(
    original: Path,
    compressed: Path,
    *,
    evaluation: "Evaluation",
    data: "Dataset | None",
    calibration: "Dataset | None",
    training: "Dataset | None" = None,
    device: Device,
    seed: int,
    workdir: Path,
    timing: Callable[[], AbstractContextManager[None]],
    report: Callable[[float, str], None],
) -> Measurements:
    """Measure two ONNX files (external data beside them) on the same inputs.

    Task metrics come from `data` where it is labelled; fidelity from `data`, else `calibration`, else
    `training`, else synthetic inputs. `timing` is held only while inferences are timed, so that no two jobs of
    a machine time at once.

    Raises:
        ResultRejected: the compressed model cannot be opened or run.
        InvalidModel: the original cannot.
    """
    from compression.evaluation.timing import measure_timing

    report(0.0, "reading sizes and weights")
    before, after = measure_statics(original, compressed, workdir)
    source, notes = choose_source(
        before.summary.inputs,
        evaluation=data,
        calibration=calibration,
        training=training,
        max_samples=evaluation.max_samples,
        model=before.model,
        seed=seed,
    )
    report(0.1, "timing inferences")
    timed = measure_timing(
        original, compressed, source, latency=evaluation.latency, device=device, seed=seed, timing=timing
    )
    report(0.3, "measuring memory")
    memory = _memory((original, compressed), timed, device, evaluation.latency.threads, workdir)
    compared = None
    if timed.batch is not None:
        compared = compare_outputs(
            timed.sessions,
            timed.source,
            metrics=evaluation.metrics,
            seed=seed,
            report=lambda done: report(0.4 + 0.6 * done, "comparing outputs"),
        )
    return _measurements(
        (before, after),
        timed,
        memory,
        compared,
        evaluation=evaluation,
        device=device,
        notes=(*notes, *timed.notes),
    )


def _memory(
    models: tuple[Path, Path], timed: "Timed", device: Device, threads: int, workdir: Path
) -> tuple[int | None, int | None]:
    feeds = timed.batch.feeds if timed.batch else None
    before, after = (
        peak_memory_bytes(model, feeds, device=device, threads=threads, workdir=workdir) for model in models
    )
    return before, after


def _measurements(
    statics: tuple[Statics, Statics],
    timed: "Timed",
    memory: tuple[int | None, int | None],
    compared: Compared | None,
    *,
    evaluation: "Evaluation",
    device: Device,
    notes: tuple[str, ...],
) -> Measurements:
    from compression.runtime import device_description

    batch_size = timed.batch.samples if timed.batch else evaluation.latency.batch_size
    latencies = (timed.pairs.original, timed.pairs.compressed) if timed.pairs else (None, None)
    scores = (compared.scores.original, compared.scores.compressed) if compared else ({}, {})
    original, compressed = (
        _model(*figures, batch_size=batch_size)
        for figures in zip(statics, latencies, timed.load_ms, memory, scores, strict=True)
    )
    measured = Measurements(
        original=original,
        compressed=compressed,
        size_ratio=original.size_bytes / max(compressed.size_bytes, 1),
        speedup=timed.pairs.speedup if timed.pairs else None,
        fidelity=compared.fidelity if compared else {},
        incomparable=tuple(compared.incomparable) if compared else (),
        metric_changes=compared.scores.changes if compared else {},
        data=timed.source.origin,
        samples=compared.samples if compared else 0,
        batch_size=batch_size,
        threads=evaluation.latency.threads,
        device=device_description(device),
        verdict="",
        notes=(*notes, *_more_notes(compared, memory, device), *_changed_most(compared, compressed)),
    )
    return measured.model_copy(update={"verdict": verdict(measured)})


def _model(
    statics: Statics,
    latency: Latency | None,
    load_ms: float,
    memory: int | None,
    metrics: dict[str, Interval],
    *,
    batch_size: int,
) -> ModelMeasurement:
    summary = statics.summary
    weights = statics.weights
    return ModelMeasurement(
        size_bytes=summary.size_bytes,
        zip_bytes=statics.zip_bytes,
        parameters=weights.elements,
        nonzero_parameters=weights.elements - weights.zeros,
        sparsity=weights.sparsity,
        density=1 - weights.sparsity,
        macs=summary.macs,
        load_ms=load_ms,
        latency_ms=latency,
        throughput_per_s=1000 * batch_size / latency.p50_ms if latency else None,
        peak_memory_bytes=memory,
        metrics=metrics,
        layers=statics.layers,
    )


def _more_notes(
    compared: Compared | None, memory: tuple[int | None, int | None], device: Device
) -> tuple[str, ...]:
    notes = list(compared.notes) if compared else []
    for name, reason in (compared.incomparable if compared else {}).items():
        notes.append(f"Output {name!r} was not compared: {reason}.")
    if None in memory:
        where = (
            "on the CPU only" if device == "cuda" else "where a process of its own may be started; not here"
        )
        notes.append(f"Peak memory is measured {where}.")
    for name, output in (compared.fidelity if compared else {}).items():
        if not output.finite and not output.newly_nonfinite:
            notes.append(f"Output {name!r} holds NaN or infinity in the original too.")
    return tuple(notes)


def _changed_most(compared: Compared | None, compressed: ModelMeasurement) -> tuple[str, ...]:
    """Where an output came out less true than weights usually do: the layers to look at first."""
    measured = {
        name: output.sqnr_db
        for name, output in (compared.fidelity if compared else {}).items()
        if output.sqnr_db is not None and output.sqnr_db < FAITHFUL_DB
    }
    untrue = [layer for layer in compressed.layers if layer.weight_sqnr_db is not None]
    if not measured or not untrue:
        return ()
    worst = sorted(untrue, key=lambda layer: layer.weight_sqnr_db or 0.0)[:3]
    named = ", ".join(f"{layer.name} ({layer.weight_sqnr_db:.0f} dB)" for layer in worst)
    output = min(measured, key=lambda name: measured[name])
    return (f"Output {output!r} keeps {measured[output]:.0f} dB. Weights changed most in: {named}.",)

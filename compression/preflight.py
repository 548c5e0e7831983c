"""What a job would do and why it could not, told from stored summaries alone before it is queued.

Pure: nothing is opened, and neither torch, onnxruntime nor onnx_ir is imported.
"""

from collections.abc import Iterator, Mapping

from pydantic import BaseModel, ConfigDict, Field

from compression.data import fit_problems
from compression.method import NO_MODELS, Forecast, Problem, Role
from compression.spec import CompressionSpec, Metric
from compression.summary import DatasetSummary, ModelSummary

CLASSIFICATION: frozenset[Metric] = frozenset({"accuracy", "top5", "precision", "recall", "f1"})
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training"})
RUNTIME_DOMAINS = ("com.microsoft", "com.ms.", "org.pytorch.aten")
"""Operator sets beyond ONNX's own that onnxruntime brings along."""
BASE_MEMORY_BYTES = 200_000_000
"""A process with onnxruntime loaded and nothing else."""


class Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class StepPreflight(Value):
    """One step: which layers it would touch, and why it cannot run."""

    index: int
    method: str
    layers: tuple[str, ...] = Field(description="names of the layers that would be touched")
    problems: tuple[Problem, ...] = Field(description="why the step is refused; empty when it can run")
    warnings: tuple[Problem, ...]
    seconds: float = Field(description="estimated wall time")


class Preflight(Value):
    """The whole job. Sizes are bytes, estimates from the summaries, not promises."""

    ok: bool = Field(description="nothing is in the way: the job would be queued")
    steps: tuple[StepPreflight, ...]
    problems: tuple[Problem, ...] = Field(description="what stands in the way of the job as a whole")
    warnings: tuple[Problem, ...]
    estimated_size_bytes: int
    estimated_size_ratio: float = Field(description="original size / estimated size; more than 1 is smaller")
    peak_memory_bytes: int
    seconds: float = Field(description="estimated wall time, evaluation included, waiting excluded")

    def all_problems(self) -> tuple[Problem, ...]:
        """Every reason against the job, those of the job first; `where` begins with the step it concerns."""
        of_steps = (
            problem.model_copy(
                update={"where": ": ".join(filter(None, (f"steps.{step.index}", problem.where)))}
            )
            for step in self.steps
            for problem in step.problems
        )
        return (*self.problems, *of_steps)


def preflight(
    spec: CompressionSpec,
    model: ModelSummary,
    data: Mapping[Role, DatasetSummary],
    models: Mapping[str, ModelSummary] = NO_MODELS,
) -> Preflight:
    """Goes through the steps in order, each on the model that the last one's forecast leaves.

    `models` has the other models that steps name, by id.
    """
    forecasts = tuple(_forecasts(spec, model, data, models))
    steps = tuple(
        StepPreflight(
            index=index,
            method=step.method,
            layers=forecast.layers,
            problems=forecast.problems,
            warnings=forecast.warnings,
            seconds=round(forecast.seconds, 1),
        )
        for index, (step, forecast) in enumerate(zip(spec.steps, forecasts, strict=True))
    )
    problems = (*_operator_problems(model), *_data_problems(model, data), *_metric_problems(spec, data))
    after = forecasts[-1].model_after
    return Preflight(
        ok=not problems and not any(step.problems for step in steps),
        steps=steps,
        problems=problems,
        warnings=tuple(_warnings(spec, model, data)),
        estimated_size_bytes=after.size_bytes,
        estimated_size_ratio=round(model.size_bytes / max(after.size_bytes, 1), 3),
        peak_memory_bytes=max(
            *(forecast.peak_memory_bytes for forecast in forecasts), _evaluation_memory(model, after)
        ),
        seconds=round(
            sum(forecast.seconds for forecast in forecasts) + _evaluation_seconds(spec, model, data), 1
        ),
    )


def _forecasts(
    spec: CompressionSpec,
    model: ModelSummary,
    data: Mapping[Role, DatasetSummary],
    models: Mapping[str, ModelSummary],
) -> Iterator[Forecast]:
    current = model
    for step in spec.steps:
        named = {id: models[id] for id in step.other_models() if id in models}
        forecast = step.forecast(current, data, named)
        current = forecast.model_after
        yield forecast


def _operator_problems(model: ModelSummary) -> Iterator[Problem]:
    """Operators that no runtime here knows: the model would not load, compressed or not."""
    unknown = [domain for domain in _foreign_domains(model) if _is_used(domain, model)]
    if unknown and model.functions == 0:
        yield Problem(
            code="unsupported_model",
            message=f"onnxruntime does not know operators of {', '.join(sorted(unknown))}",
            hint="export it with standard ONNX operators, or with the custom ones as model-local functions",
        )


def _foreign_domains(model: ModelSummary) -> list[str]:
    return [name for name in model.domains if name not in DOMAINS and not name.startswith(RUNTIME_DOMAINS)]


def _is_used(domain: str, model: ModelSummary) -> bool:
    """Operators beyond ONNX's own are counted as `domain::Operator`; a declared domain may well be unused."""
    return any(name.startswith(f"{domain}::") for name in model.operators)


def _data_problems(model: ModelSummary, data: Mapping[Role, DatasetSummary]) -> Iterator[Problem]:
    for role in sorted(data):
        for problem in fit_problems(model.inputs, data[role]):
            place = f"data.{role}" if problem.where is None else f"data.{role}.{problem.where}"
            yield problem.model_copy(update={"where": place})


def _metric_problems(spec: CompressionSpec, data: Mapping[Role, DatasetSummary]) -> Iterator[Problem]:
    metrics = spec.evaluation.metrics
    if not metrics:
        return
    summary = data.get(Role.EVALUATION)
    labels = None if summary is None else summary.array("labels")
    asked = ", ".join(metrics)
    if labels is None:
        yield Problem(
            code="data_missing",
            message=f"{asked} need labelled evaluation data, and "
            + (
                "the job names none"
                if summary is None
                else "the evaluation dataset has no array named 'labels'"
            ),
            where="data.evaluation",
            hint="add an array named 'labels' with one entry per sample, or leave evaluation.metrics out "
            "to measure fidelity alone",
        )
    elif "float" in labels.dtype and len(labels.shape) < 2 and CLASSIFICATION.intersection(metrics):
        # Floats with a second axis may be one-hot: only their values tell.
        yield Problem(
            code="data_mismatch",
            message=f"classification metrics ({asked}) need class numbers; the labels are {labels.dtype}",
            where="data.evaluation.labels",
            hint="store class labels as integers, or ask for mse and mae",
        )


def _warnings(
    spec: CompressionSpec, model: ModelSummary, data: Mapping[Role, DatasetSummary]
) -> Iterator[Problem]:
    if Role.EVALUATION not in data:
        instead = (
            "the calibration data" if Role.CALIBRATION in data else "inputs made up from declared shapes"
        )
        yield Problem(
            code="no_evaluation_data",
            message=f"without evaluation data the models run on {instead}: fidelity only, no task metrics",
            where="data.evaluation",
            hint="name a labelled dataset as evaluation data",
        )
    used = {Role.EVALUATION, Role.CALIBRATION}.union(*(step.needs | step.uses for step in spec.steps))
    for role in sorted(set(data) - used):
        yield Problem(code="unused_data", message=f"no step reads the {role} data", where=f"data.{role}")
    for text in model.warnings:
        yield Problem(code="model_warning", message=text)
    for role in sorted(data):
        for text in data[role].warnings:
            yield Problem(code="data_warning", message=text, where=f"data.{role}")


def _evaluation_memory(before: ModelSummary, after: ModelSummary) -> int:
    """Both models are open in onnxruntime at once, each about twice its size while it loads."""
    return BASE_MEMORY_BYTES + 2 * (before.size_bytes + max(after.size_bytes, before.weight_bytes))


def _evaluation_seconds(
    spec: CompressionSpec, model: ModelSummary, data: Mapping[Role, DatasetSummary]
) -> float:
    """Loading, up to ten seconds of timing, and one pass of both models over the data at about 10 GMAC/s."""
    summary = data.get(Role.EVALUATION) or data.get(Role.CALIBRATION)
    samples = 32 if summary is None else min(summary.samples, spec.evaluation.max_samples or summary.samples)
    per_sample = (model.macs or model.parameters) / 10e9 + 0.0002
    timing = min(10.0, 2 * spec.evaluation.latency.runs * per_sample)
    return 1.0 + 4 * model.size_bytes / 500e6 + timing + 2 * samples * per_sample

"""Rows as response bodies."""

from collections.abc import Mapping, Sequence
from typing import Any

from api.schemas import ArtifactBody, Dataset, EventBody, Failure, Job, JobItem, Model, StepBody, StepDetail
from compression.measurements import Measurements
from compression.preflight import Preflight
from compression.spec import Evaluation
from compression.summary import DatasetSummary, ModelSummary
from db import models as rows
from db.models import JobState


def model(row: rows.Asset, *, listed: bool = False) -> Model:
    found = row.summary if not listed else None
    path = f"/v1/models/{row.id}"
    links = {"self": path, "content": f"{path}/content", "onnx": f"{path}/onnx", "layers": f"{path}/layers"}
    return Model(**_asset(row, links), summary=ModelSummary.model_validate(found) if found else None)


def dataset(row: rows.Asset) -> Dataset:
    path = f"/v1/datasets/{row.id}"
    links = {"self": path, "content": f"{path}/content"}
    found = DatasetSummary.model_validate(row.summary) if row.summary else None
    return Dataset(**_asset(row, links), summary=found)


def _asset(row: rows.Asset, links: dict[str, str]) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "filename": row.filename,
        "state": row.state,
        "size_bytes": row.size_bytes,
        "sha256": row.sha256,
        "error": failure(row.error),
        "created_at": row.created_at,
        "inspected_at": row.inspected_at,
        "links": links,
    }


def failure(error: Mapping[str, Any] | None) -> Failure | None:
    return None if error is None else Failure.model_validate(error)


def job_item(row: rows.Job) -> JobItem:
    return JobItem(**_job(row), steps=tuple(StepBody(**_step(row, step)) for step in row.steps))


def job(row: rows.Job, *, queue_position: int | None, waiting_for: str | None) -> Job:
    return Job(
        **_job(row),
        steps=tuple(_step_detail(row, step) for step in row.steps),
        evaluation=Evaluation.model_validate(row.spec.get("evaluation", {})),
        queue_position=queue_position,
        waiting_for=waiting_for,
        preflight=Preflight.model_validate(row.preflight),
        measurements=Measurements.model_validate(row.measurements) if row.measurements else None,
    )


def _job(row: rows.Job) -> dict[str, Any]:
    measured = row.measurements or {}
    speedup = measured.get("speedup")
    return {
        "id": row.id,
        "name": row.name,
        "state": row.state,
        "model_id": row.model_id,
        "data": row.data,
        "labels": row.labels,
        "device": "cuda" if row.queue == "cuda" else "cpu",
        "seed": row.spec.get("seed", 0),
        "time_limit_s": row.time_limit_s,
        "percentage_done": round(100 * row.fraction, 1),
        "step": row.step,
        "message": row.message,
        "eta_s": row.eta_s,
        "attempt": row.attempt,
        "retry_of": row.retry_of,
        "created_at": row.created_at,
        "queued_at": row.queued_at,
        "started_at": row.started_at,
        "cancel_requested_at": row.cancel_requested_at,
        "finished_at": row.finished_at,
        "size_ratio": measured.get("size_ratio"),
        "speedup": speedup["value"] if speedup else None,
        "verdict": measured.get("verdict"),
        "error": failure(row.error),
        "links": _job_links(row),
    }


def _job_links(row: rows.Job) -> dict[str, str]:
    path = f"/v1/jobs/{row.id}"
    links = {
        "self": path,
        "events": f"{path}/events",
        "artifacts": f"{path}/artifacts",
        "page": f"/jobs/{row.id}",
    }
    if row.state in (JobState.QUEUED, JobState.RUNNING):
        links["cancel"] = f"{path}/cancel"
    if row.state in (JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED):
        links["retry"] = f"{path}/retry"
    if row.state is JobState.SUCCEEDED:
        links["comparison"] = f"/v1/comparisons?job={row.id}"
    for artifact in row.artifacts:
        if artifact.name in ("model.onnx", "report.html"):
            links[artifact.name] = f"/v1/artifacts/{artifact.id}/content"
    return links


def _step(job: rows.Job, row: rows.JobStep) -> dict[str, Any]:
    outcome = row.outcome or {}
    layers: Sequence[Mapping[str, Any]] = outcome.get("layers", ())
    return {
        "index": row.index,
        "method": row.method,
        "parameters": job.spec["steps"][row.index],
        "state": row.state,
        "cached": row.cached,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "seconds": row.seconds,
        "changed": sum(bool(layer["changed"]) for layer in layers) if row.outcome else None,
        "size_bytes": outcome.get("size_bytes"),
    }


def _step_detail(job: rows.Job, row: rows.JobStep) -> StepDetail:
    outcome = row.outcome or {}
    return StepDetail(**_step(job, row), layers=outcome.get("layers", ()), notes=outcome.get("notes", ()))


def event(row: rows.JobEvent) -> EventBody:
    return EventBody(id=row.id, type=row.type, at=row.at, data=row.data)


def artifact(row: rows.Artifact) -> ArtifactBody:
    path = f"/v1/artifacts/{row.id}"
    return ArtifactBody(
        id=row.id,
        name=row.name,
        job_id=row.job_id,
        media_type=row.media_type,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        created_at=row.created_at,
        links={"self": path, "content": f"{path}/content", "job": f"/v1/jobs/{row.job_id}"},
    )

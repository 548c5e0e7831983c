"""From a job request to a queued row: preflight first, then one transaction, then the bell.

With an `Idempotency-Key` the key is reserved before anything else in a transaction of its own, so that a second
submission that comes meanwhile is told so, and is freed again when the job is refused.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from api.auth import Caller
from api.errors import IdempotencyInProgress, IdempotencyMismatch, Invalid, PreflightRefused
from api.requests import JobRequest
from api.services import Services
from compression.method import Problem as Finding
from compression.method import Role
from compression.preflight import Preflight, preflight
from compression.summary import DatasetSummary, ModelSummary
from db import assets, idempotency, jobs
from db.errors import AssetNotReady
from db.models import Asset, AssetKind, Job
from db.session import after_commit
from db.workers import live_workers


def look(services: Services, caller: Caller, request: JobRequest) -> Preflight:
    """What the job would do, from the stored summaries. Raises `NotFound`, `AssetNotReady`."""
    with services.database.read() as s:
        model = assets.get_asset(s, caller.project_id, AssetKind.MODEL, request.model_id)
        data = {
            role: assets.get_asset(s, caller.project_id, AssetKind.DATASET, dataset_id)
            for role, dataset_id in request.data.items()
        }
        models = {
            id: assets.get_asset(s, caller.project_id, AssetKind.MODEL, id) for id in request.other_models()
        }
    told = {Role(role): DatasetSummary.model_validate(_summary(row)) for role, row in data.items()}
    others = {id: ModelSummary.model_validate(_summary(row)) for id, row in models.items()}
    return preflight(request.spec(), ModelSummary.model_validate(_summary(model)), told, others)


def submit(services: Services, caller: Caller, request: JobRequest, key: str | None) -> Job:
    """The queued job, or the one that this key made before.

    Raises `PreflightRefused`, and what `look`, `idempotency` and `db.jobs.submit` raise.
    """
    _check_time_limit(services, request)
    if key is None:
        return _queue(services, caller, request, None)
    with _reserved(services, caller, key, _fingerprint(request)) as known:
        return known if known is not None else _queue(services, caller, request, key)


def ring(services: Services, job: Job) -> None:
    services.bell.ring_job(job.id, job.queue)


def _queue(services: Services, caller: Caller, request: JobRequest, key: str | None) -> Job:
    expected = look(services, caller, request)
    if not expected.ok:
        raise _refused(expected)
    with services.database.transaction() as s:
        job = jobs.submit(
            s,
            project_id=caller.project_id,
            name=request.shown_name(),
            labels=request.labels,
            model_id=request.model_id,
            data={str(role): dataset_id for role, dataset_id in request.data.items()},
            models=request.other_models(),
            spec=request.spec().model_dump(mode="json"),
            preflight=expected.model_dump(mode="json"),
            queue=_queue_of(services, request.device),
            time_limit_s=request.time_limit_s or services.settings.job_time_limit_s,
        )
        if key is not None:
            idempotency.complete(s, caller.project_id, key, job.id)
        after_commit(s, lambda: ring(services, job))
    return job


@contextmanager
def _reserved(services: Services, caller: Caller, key: str, fingerprint: str) -> Iterator[Job | None]:
    """Yields the job that was made under this key, or None when the key is now ours to use."""
    project_id = caller.project_id
    with services.database.transaction() as s:
        found = idempotency.reserve(s, project_id, key, fingerprint)
        known = jobs.get_job(s, project_id, found.job_id) if isinstance(found, idempotency.Replay) else None
    if isinstance(found, idempotency.Mismatch):
        raise IdempotencyMismatch("This Idempotency-Key was used for another request in the last 24 hours")
    if isinstance(found, idempotency.InProgress):
        raise IdempotencyInProgress("The same request is being carried out", headers={"Retry-After": "1"})
    try:
        yield known
    except Exception:
        with services.database.transaction() as s:
            idempotency.forget(s, project_id, key)
        raise


def _fingerprint(request: JobRequest) -> str:
    """Of what the request means: the order of its members and its white space do not matter."""
    document = json.dumps(request.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(b"POST /v1/jobs " + document.encode()).hexdigest()


def _summary(row: Asset) -> object:
    if row.summary is None:
        raise AssetNotReady(f"The {row.kind} {row.id} is {row.state}", hint="Wait until its state is ready.")
    return row.summary


def _refused(expected: Preflight) -> PreflightRefused:
    findings = expected.all_problems()
    places = [
        f"{finding.where}: {finding.message}" if finding.where else finding.message for finding in findings
    ]
    return PreflightRefused("; ".join(places[:3]), findings=findings)


def _check_time_limit(services: Services, request: JobRequest) -> None:
    most = services.settings.job_time_limit_s
    if request.time_limit_s is not None and request.time_limit_s > most:
        finding = Finding(
            code="less_than_equal", message=f"must be at most {most:g} here", where="time_limit_s"
        )
        raise Invalid(f"time_limit_s {finding.message}", findings=[finding])


def _queue_of(services: Services, device: Literal["auto", "cpu", "cuda"]) -> str:
    """`auto` is the CPU, on which most results will run, unless only GPU workers are there."""
    if device != "auto":
        return device
    with services.database.read() as s:
        queues = {worker.queue for worker in live_workers(s)}
    return "cuda" if "cuda" in queues and "cpu" not in queues else "cpu"

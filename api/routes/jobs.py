"""/v1/jobs: submit, list, watch, cancel and repeat jobs."""

from typing import Annotated

from fastapi import Body, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, StreamingResponse

from api import events, jobs, submission, views
from api.auth import JobReader, JobWriter
from api.documented import header, problems
from api.examples import JOB_EXAMPLES
from api.parameters import JobCursor, JobId, Limit, Wait
from api.requests import JobRequest
from api.routing import router
from api.schemas import Artifacts, Events, Job, JobItem, Page
from api.services import ServicesHere
from api.waiting import wait_until
from compression.method import MODEL_ID
from compression.preflight import Preflight
from db import jobs as rows
from db.artifacts import list_artifacts
from db.models import JobState
from db.session import after_commit

routes = router("jobs")
LOOK_AGAIN_S = "1"
_QUEUED = {
    "Location": header("path of the job"),
    "Retry-After": header("seconds to wait before looking again"),
}
_STREAM = {
    "schema": {"type": "string", "description": "server-sent events, each with an EventBody as its data"}
}
_LABEL = "^[^: \\t\\r\\n\\x00]{1,64}:[^\\x00]{0,512}$"


@routes.post(
    "/v1/jobs",
    status_code=202,
    response_model=Job,
    responses={
        200: {"model": Preflight, "description": "With `dry_run`: what the job would do. Nothing is queued."},
        202: {"model": Job, "description": "The job is queued.", "headers": _QUEUED},
        **problems(400, 404, 409, 413, 415),
    },
)
def submit_job(
    caller: JobWriter,
    services: ServicesHere,
    request: Annotated[JobRequest, Body(openapi_examples=JOB_EXAMPLES)],
    dry_run: Annotated[
        bool,
        Query(description="answer what the job would do, and what stands in its way, without queueing it"),
    ] = False,
    idempotency_key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            min_length=1,
            max_length=255,
            pattern="^[!-~]+$",
            description="the same key and body within 24 hours give the same job, however often they are sent",
        ),
    ] = None,
) -> Response:
    """Submit a job: steps that run one after the other on a model, and how the result is judged.

    A job that cannot work on this model or data is refused here, with every reason in `errors`.
    """
    if dry_run:
        return _json(submission.look(services, caller, request), 200)
    return _accepted(services, caller, submission.submit(services, caller, request, idempotency_key).id)


@routes.get("/v1/jobs", responses=problems())
def list_jobs(
    caller: JobReader,
    services: ServicesHere,
    state: Annotated[JobState | None, Query(description="only jobs in this state")] = None,
    model_id: Annotated[str | None, Query(pattern=MODEL_ID, description="only jobs on this model")] = None,
    label: Annotated[
        str | None, Query(pattern=_LABEL, description="only jobs with this label, as `key:value`")
    ] = None,
    limit: Limit = 50,
    cursor: JobCursor = None,
) -> Page[JobItem]:
    """The project's jobs, the newest first."""
    key, _, value = (label or "").partition(":")
    with services.database.read() as s:
        found, following = rows.list_jobs(
            s,
            caller.project_id,
            state=state,
            model_id=model_id,
            label=(key, value) if label else None,
            limit=limit,
            cursor=cursor,
        )
        return Page(items=tuple(map(views.job_item, found)), next_cursor=following)


@routes.get("/v1/jobs/{job_id}", responses=problems(404))
async def get_job(
    request: Request, caller: JobReader, services: ServicesHere, job_id: JobId, wait: Wait = 0
) -> Job:
    """A job with all that is known about it. `wait` answers when it is over, or after so many seconds."""
    return await wait_until(
        request, lambda: jobs.show(services, caller, job_id), lambda job: job.state.is_final, wait
    )


@routes.get(
    "/v1/jobs/{job_id}/events",
    response_model=Events,
    responses={
        200: {
            "description": "A list, or with `Accept: text/event-stream` the events as they come, until the last.",
            "content": {events.EVENT_STREAM: _STREAM},
        },
        204: {"description": "A stream only: the job is over and `Last-Event-ID` was its last event."},
        **problems(404),
    },
)
async def list_job_events(
    request: Request,
    caller: JobReader,
    services: ServicesHere,
    job_id: JobId,
    after: Annotated[int, Query(ge=0, le=events.LARGEST_ID, description="only events after this id")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000, description="most events in a list")] = 200,
    last_event_id: Annotated[
        str | None,
        Header(alias="Last-Event-ID", max_length=100, description="a stream goes on after this event"),
    ] = None,
) -> Response:
    """What happened to the job, the oldest first."""
    if not events.wants_stream(request):
        return _json(await run_in_threadpool(events.page, services, caller, job_id, after, limit), 200)
    start = events.last_id(last_event_id, after)
    first = await run_in_threadpool(events.page, services, caller, job_id, start, events.BATCH)
    if first.final and not first.items:
        return Response(status_code=204)
    stream = events.stream(request, services, caller, job_id, first)
    return StreamingResponse(stream, media_type=events.EVENT_STREAM, headers={"X-Accel-Buffering": "no"})


@routes.post("/v1/jobs/{job_id}/cancel", responses=problems(404, 409))
def cancel_job(caller: JobWriter, services: ServicesHere, job_id: JobId) -> Job:
    """Cancel a job: a queued one at once, a running one within seconds (`cancelling` until then)."""
    with services.database.transaction() as s:
        rows.request_cancel(s, caller.project_id, job_id)
    return jobs.show(services, caller, job_id)


@routes.post(
    "/v1/jobs/{job_id}/retry",
    status_code=202,
    response_model=Job,
    responses={
        202: {"model": Job, "description": "A new job like that one is queued.", "headers": _QUEUED},
        **problems(404, 409),
    },
)
def retry_job(caller: JobWriter, services: ServicesHere, job_id: JobId) -> Response:
    """Repeat a failed, cancelled or expired job as a new one, which goes on from where that one got."""
    with services.database.transaction() as s:
        job = rows.retry(s, caller.project_id, job_id)
        after_commit(s, lambda: submission.ring(services, job))
    return _accepted(services, caller, job.id)


@routes.get("/v1/jobs/{job_id}/artifacts", responses=problems(404))
def list_job_artifacts(caller: JobReader, services: ServicesHere, job_id: JobId) -> Artifacts:
    """The files that the job made."""
    with services.database.read() as s:
        found = list_artifacts(s, caller.project_id, job_id)
    return Artifacts(items=tuple(map(views.artifact, found)), next_cursor=None)


def _accepted(services: ServicesHere, caller: JobWriter, job_id: str) -> Response:
    headers = {"Location": f"/v1/jobs/{job_id}", "Retry-After": LOOK_AGAIN_S}
    return _json(jobs.show(services, caller, job_id), 202, headers)


def _json(body: Job | Preflight | Events, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(body.model_dump_json(), status, headers, JSONResponse.media_type)

"""/v1/comparisons: finished jobs and their originals side by side."""

from typing import Annotated, Literal

from fastapi import Query, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import StringConstraints

from api.auth import Caller, JobReader
from api.content import SANDBOX
from api.documented import problems
from api.parameters import JOB_ID
from api.routing import router
from api.services import Services, ServicesHere
from compression.comparison import Comparison, Entry, compare, to_csv
from compression.measurements import Measurements
from compression.method import Role
from compression.report import render_comparison_html
from db.assets import find_assets
from db.errors import Conflict
from db.jobs import get_job
from db.models import Asset, Job

routes = router("comparisons")
MOST = 100
JobRef = Annotated[str, StringConstraints(pattern=JOB_ID)]


@routes.get(
    "/v1/comparisons",
    response_model=Comparison,
    responses={
        200: {
            "description": "A row for each job and each original model.",
            "content": {
                "text/csv": {"schema": {"type": "string"}},
                "text/html": {"schema": {"type": "string"}},
            },
        },
        **problems(404, 409),
    },
)
def get_comparison(
    caller: JobReader,
    services: ServicesHere,
    job: Annotated[
        list[JobRef], Query(min_length=1, max_length=MOST, description="finished jobs, in any number")
    ],
    format: Annotated[
        Literal["json", "csv", "html"], Query(description="html is one self-contained page")
    ] = "json",
) -> Response:
    """Compare jobs on the same or on different models. Their originals are rows too."""
    comparison = compare(_entries(services, caller, tuple(dict.fromkeys(job))))
    if format == "csv":
        headers = {"Content-Disposition": 'attachment; filename="comparison.csv"'}
        return Response(to_csv(comparison), media_type="text/csv", headers=headers)
    if format == "html":
        return HTMLResponse(render_comparison_html(comparison), headers={"Content-Security-Policy": SANDBOX})
    return Response(comparison.model_dump_json(), media_type=JSONResponse.media_type)


def _entries(services: Services, caller: Caller, job_ids: tuple[str, ...]) -> list[Entry]:
    """Raises `NotFound`, and `Conflict` for a job that has no measurements."""
    with services.database.read() as s:
        found = [get_job(s, caller.project_id, job_id) for job_id in job_ids]
        models = find_assets(s, {job.model_id for job in found})
    return [_entry(job, models[job.model_id]) for job in found]


def _entry(job: Job, model: Asset) -> Entry:
    if job.measurements is None:
        raise Conflict(f"The job {job.id} is {job.state}: there are no measurements to compare")
    return Entry(
        id=job.id,
        name=job.name,
        model_id=model.id,
        model_name=model.name,
        measurements=Measurements.model_validate(job.measurements),
        evaluation_data=job.data.get(Role.EVALUATION),
    )

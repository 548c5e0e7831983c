"""/v1/artifacts: the files that jobs made."""

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool

from api import views
from api.auth import Caller, JobReader
from api.content import Stored, answer
from api.documented import downloaded, problems
from api.parameters import ArtifactId, As, IfNoneMatch, IfRange, Range
from api.routing import router
from api.schemas import ArtifactBody
from api.services import Services, ServicesHere
from api.unpacked import unpacked_answer
from db import artifacts
from db.models import Artifact

routes = router("artifacts")


@routes.get("/v1/artifacts/{artifact_id}", responses=problems(404))
def get_artifact(caller: JobReader, services: ServicesHere, artifact_id: ArtifactId) -> ArtifactBody:
    """A file's name, size and hash."""
    return views.artifact(_read(services, caller, artifact_id))


@routes.get("/v1/artifacts/{artifact_id}/content", responses=downloaded("*/*"), response_class=Response)
@routes.head("/v1/artifacts/{artifact_id}/content", include_in_schema=False)
async def get_artifact_content(
    request: Request,
    caller: JobReader,
    services: ServicesHere,
    artifact_id: ArtifactId,
    form: As = None,
    if_none_match: IfNoneMatch = None,
    range: Range = None,
    if_range: IfRange = None,
) -> Response:
    """The file itself: model.onnx, report.html, ... With `as=onnx`, what a `model.packed` unpacks to, as a whole."""
    row = await run_in_threadpool(_read, services, caller, artifact_id)
    stored = Stored(
        project_id=row.project_id,
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        filename=row.name,
        media_type=row.media_type,
    )
    if form == "onnx":
        return await unpacked_answer(request, services, stored)
    return await answer(request, services, stored)


def _read(services: Services, caller: Caller, artifact_id: str) -> Artifact:
    with services.database.read() as s:
        return artifacts.get_artifact(s, caller.project_id, artifact_id)

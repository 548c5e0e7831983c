"""What finished jobs made: files to download."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.blobs import add_blob
from db.clock import utcnow
from db.errors import NotFound
from db.ids import new_id
from db.models import Artifact, Job
from db.storage import ObjectStore


@dataclass(frozen=True, kw_only=True)
class NewArtifact:
    """A file whose bytes are already stored under `object_key(project_id, sha256)`."""

    name: str
    media_type: str
    sha256: str
    size_bytes: int


def add_artifacts(s: Session, store: ObjectStore, job: Job, new: Iterable[NewArtifact]) -> None:
    """Raises `ObjectMissing` if the bytes of one are not stored."""
    artifacts = tuple(new)
    for artifact in sorted(artifacts, key=lambda artifact: artifact.sha256):
        add_blob(s, store, job.project_id, artifact.sha256, artifact.size_bytes)
    s.add_all(_row(job, artifact) for artifact in artifacts)
    s.flush()


def get_artifact(s: Session, project_id: str, artifact_id: str) -> Artifact:
    """Raises `NotFound`."""
    artifact = s.get(Artifact, artifact_id)
    if artifact is None or artifact.project_id != project_id:
        raise NotFound(f"There is no artifact {artifact_id}")
    return artifact


def list_artifacts(s: Session, project_id: str, job_id: str) -> list[Artifact]:
    """In the order in which the job named them. Raises `NotFound` if the project has no such job."""
    if s.scalar(select(Job.id).where(Job.id == job_id, Job.project_id == project_id)) is None:
        raise NotFound(f"There is no job {job_id}")
    return list(s.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.id)))


def _row(job: Job, artifact: NewArtifact) -> Artifact:
    return Artifact(
        id=new_id("art"),
        project_id=job.project_id,
        job_id=job.id,
        name=artifact.name,
        media_type=artifact.media_type,
        sha256=artifact.sha256,
        size_bytes=artifact.size_bytes,
        created_at=utcnow(),
    )

"""Projects: who owns rows and bytes, and how much of both they may have."""

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from db.blobs import is_counted
from db.clock import utcnow
from db.errors import NotFound, QuotaExceeded
from db.ids import new_id
from db.models import HELD_STATES, Blob, Job, JobState, Project
from db.session import database_of
from db.settings import Settings


def ensure_project(s: Session, name: str, settings: Settings) -> Project:
    """The project of this name, made with the settings' quotas if new; two callers at once do no harm."""
    insert = sqlite.insert if database_of(s).dialect == "sqlite" else postgresql.insert
    s.execute(
        insert(Project)
        .values(
            id=new_id("prj"),
            name=name,
            max_stored_bytes=settings.project_max_stored_bytes,
            max_running_jobs=settings.project_max_running_jobs,
            max_queued_jobs=settings.project_max_queued_jobs,
            created_at=utcnow(),
        )
        .on_conflict_do_nothing(index_elements=["name"])
    )
    return s.scalars(select(Project).where(Project.name == name)).one()


def find_project(s: Session, name: str) -> Project | None:
    return s.scalars(select(Project).where(Project.name == name)).one_or_none()


def get_project(s: Session, project_id: str) -> Project:
    """Raises `NotFound`."""
    project = s.get(Project, project_id)
    if project is None:
        raise NotFound(f"There is no project {project_id}")
    return project


def list_projects(s: Session) -> list[Project]:
    return list(s.scalars(select(Project).order_by(Project.id)))


def lock_project(s: Session, project_id: str) -> Project:
    """The project, with its row locked until the transaction ends: whoever counts against a quota waits here.

    On SQLite the transaction already is the only one that writes. Raises `NotFound`.
    """
    wish = select(Project).where(Project.id == project_id).with_for_update(key_share=True)
    project = s.scalars(wish.execution_options(populate_existing=True)).one_or_none()
    if project is None:
        raise NotFound(f"There is no project {project_id}")
    return project


def stored_bytes(s: Session, project_id: str) -> int:
    """Of the project's models, datasets and artifacts; the same bytes count once, kept steps not at all."""
    total = select(func.coalesce(func.sum(Blob.size_bytes), 0)).where(
        Blob.project_id == project_id, is_counted()
    )
    return int(s.scalars(total).one())


def counts(s: Session, project_id: str, sha256: str) -> bool:
    """Whether these bytes already count towards the project's quota."""
    blob = select(Blob.sha256).where(Blob.project_id == project_id, Blob.sha256 == sha256, is_counted())
    return s.scalar(blob) is not None


def check_space(s: Session, project: Project, wanted_bytes: int) -> None:
    """Raises `QuotaExceeded` if the project could not store so many more bytes."""
    used = stored_bytes(s, project.id)
    if used + wanted_bytes > project.max_stored_bytes:
        raise QuotaExceeded(
            "max_stored_bytes", limit=project.max_stored_bytes, used=used, wanted=wanted_bytes
        )


def running_jobs(s: Session, project_id: str) -> int:
    """How many jobs workers hold for the project now."""
    return _count(s, project_id, *HELD_STATES)


def queued_jobs(s: Session, project_id: str) -> int:
    return _count(s, project_id, JobState.QUEUED)


def _count(s: Session, project_id: str, *states: JobState) -> int:
    wish = select(func.count()).select_from(Job).where(Job.project_id == project_id, Job.state.in_(states))
    return s.scalars(wish).one()

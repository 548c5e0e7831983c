"""Reading jobs."""

from sqlalchemy import ColumnElement, and_, func, literal, select
from sqlalchemy.orm import Session

from db.errors import NotFound
from db.models import Job, JobState


def get_job(s: Session, project_id: str, job_id: str) -> Job:
    """With its steps and artifacts, as the database has it now. Raises `NotFound`."""
    job = find_job(s, job_id)
    if job is None or job.project_id != project_id:
        raise NotFound(f"There is no job {job_id}")
    return job


def find_job(s: Session, job_id: str) -> Job | None:
    """Whatever its project; for the worker."""
    return s.get(Job, job_id, populate_existing=True)


def list_jobs(
    s: Session,
    project_id: str,
    *,
    state: JobState | None = None,
    model_id: str | None = None,
    label: tuple[str, str] | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> tuple[list[Job], str | None]:
    """The newest first, and the next page's cursor (None: that was all). `label` is a key and its value."""
    wish = select(Job).where(Job.project_id == project_id)
    if state is not None:
        wish = wish.where(Job.state == state)
    if model_id is not None:
        wish = wish.where(Job.model_id == model_id)
    if label is not None:
        wish = wish.where(_has_label(s, *label))
    if cursor is not None:
        wish = wish.where(Job.id < cursor)
    found = list(s.scalars(wish.order_by(Job.id.desc()).limit(limit + 1)))
    return found[:limit], found[limit - 1].id if len(found) > limit else None


def queue_position(s: Session, job: Job) -> int | None:
    """1 for the job that a free worker takes next; None unless it is queued."""
    if job.state is not JobState.QUEUED:
        return None
    before = and_(Job.queue == job.queue, Job.state == JobState.QUEUED, Job.id < job.id)
    return s.scalars(select(func.count()).select_from(Job).where(before)).one() + 1


def _has_label(s: Session, key: str, value: str) -> ColumnElement[bool]:
    """SQLite's path syntax cannot name every key, so there the object is walked."""
    if s.get_bind().dialect.name == "sqlite":
        pair = func.json_each(Job.labels).table_valued("key", "value")
        return select(literal(1)).select_from(pair).where(pair.c.key == key, pair.c.value == value).exists()
    stored: ColumnElement[str] = Job.labels[key].as_string()
    return stored == value

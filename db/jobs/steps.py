"""What a worker says while it runs a job. Once its token is stale, nothing is written and False returned."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db.clock import utcnow
from db.events import add_event
from db.jobs._moves import hold
from db.models import Job, JobStep, StepState


def start_step(s: Session, job_id: str, token: str, index: int) -> bool:
    if not hold(s, job_id, token, step=index):
        return False
    _write(s, job_id, index, {"state": StepState.RUNNING, "started_at": utcnow()})
    return True


def finish_step(
    s: Session,
    job_id: str,
    token: str,
    index: int,
    *,
    seconds: float,
    outcome: Mapping[str, Any],
    cached: bool = False,
) -> bool:
    """Keeps a step's outcome. `cached`: it was not run but found in the step cache."""
    if not hold(s, job_id, token, step=index):
        return False
    done = {"state": StepState.DONE, "finished_at": utcnow(), "outcome": dict(outcome)}
    _write(s, job_id, index, {**done, "seconds": seconds, "cached": cached}, seconds=seconds, cached=cached)
    return True


def progress(
    s: Session,
    job_id: str,
    token: str,
    *,
    step: int,
    fraction: float,
    message: str = "",
    eta_s: float | None = None,
) -> bool:
    """`fraction` is of the whole job, 0..1; `step` the index, or the number of steps while evaluating.

    The row has every report; an event is added only where the step or the whole percent changed, so that a
    job of hours has hundreds of events and not thousands.
    """
    before = s.execute(select(Job.step, Job.fraction).where(Job.id == job_id)).one_or_none()
    if not hold(s, job_id, token, step=step, fraction=fraction, message=message, eta_s=eta_s):
        return False
    if before is None or (before.step, int(before.fraction * 100)) != (step, int(fraction * 100)):
        data = {"step": step, "fraction": fraction, "message": message, "eta_s": eta_s}
        add_event(s, job_id, "progress", data)
    return True


def note(s: Session, job_id: str, token: str, message: str) -> bool:
    """Adds a remark to the job's events."""
    if not hold(s, job_id, token):
        return False
    add_event(s, job_id, "note", {"message": message})
    return True


def _write(s: Session, job_id: str, index: int, values: Mapping[str, Any], **more: Any) -> None:
    step = update(JobStep).where(JobStep.job_id == job_id, JobStep.index == index)
    options = {"populate_existing": True, "synchronize_session": False}
    written = s.scalars(step.values(**values).returning(JobStep), execution_options=options).one()
    add_event(s, job_id, "step", {"index": index, "method": written.method, "state": written.state, **more})
